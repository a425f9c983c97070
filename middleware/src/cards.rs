//! The cards that Stripe keeps for a payer are those that the payer is known by, and no others.

use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::Store as _;
use farebox_ledger::book::KNOWN_METHODS_MAX;
use farebox_protocol::PayerId;

use crate::observe::ObserveError;
use crate::payments::Shared;

/// How often detaching is tried, and how long the first wait is; each is twice as long.
const TRIES: u32 = 7;
const PAUSE: Duration = Duration::from_millis(500);

impl Shared {
    /// Detaches what a payer that knows as many cards as it can has forgotten with the last one.
    pub(crate) async fn forget_oldest(self: &Arc<Self>, payer: PayerId) {
        match self.ledger.load(&payer).await {
            Ok(head) if head.known.len() < KNOWN_METHODS_MAX => {}
            _ => self.forget_cards(payer),
        }
    }

    /// Detaches, in a task of its own, the saved cards that the payer is not known by any more:
    /// beside the sixteen that were used last, and after its credentials were revoked. One that
    /// stays attached would pay for whoever knows its id, for its bank has checked its code.
    pub(crate) fn forget_cards(self: &Arc<Self>, payer: PayerId) {
        if !self.settings.save_cards {
            return; // Stripe keeps none
        }
        let shared = self.clone();
        let forget = async move {
            let mut pause = PAUSE;
            for _ in 0..TRIES {
                match shared.detach_forgotten(payer).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%payer, %error, "forgotten cards stay attached"),
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause *= 2,
                    () = shared.closing.cancelled() => return,
                }
            }
            tracing::error!(%payer, "forgotten cards could not be detached");
        };
        self.tasks.spawn_on(forget, &self.runtime);
    }

    async fn detach_forgotten(&self, payer: PayerId) -> Result<(), ObserveError> {
        let Some(customer) = self.ledger.load(&payer).await?.customer else { return Ok(()) };
        let attached = self.stripe.cards(&customer).await?;
        // Read after the list: a card that became known meanwhile is not forgotten. One that is
        // being charged is attached before it is known.
        let head = self.ledger.load(&payer).await?;
        if head.accounts.values().any(|account| account.open.is_some()) {
            return Err(ObserveError::Busy);
        }
        for method in attached.iter().filter(|method| !head.knows(method)) {
            self.stripe.detach(method).await?;
            tracing::info!(%payer, "a forgotten card was detached");
        }
        Ok(())
    }
}
