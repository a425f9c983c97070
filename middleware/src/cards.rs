//! The cards that Stripe keeps for a payer are those that the payer is known by, and no others.

use std::sync::Arc;

use farebox_ledger::Store as _;
use farebox_ledger::book::KNOWN_METHODS_MAX;
use farebox_protocol::PayerId;

use crate::observe::ObserveError;
use crate::payments::Shared;

impl Shared {
    /// Detaches, in a task of its own, the saved cards that the payer is not known by any more:
    /// beside the sixteen that were used last, and after its credentials were revoked.
    pub(crate) fn forget_cards(self: &Arc<Self>, payer: PayerId) {
        if !self.settings.save_cards {
            return; // Stripe keeps none
        }
        let shared = self.clone();
        let forget = async move {
            if let Err(error) = shared.detach_forgotten(payer).await {
                // They stay attached until the next one is forgotten. Nobody can spend with them.
                tracing::warn!(%payer, %error, "forgotten cards could not be detached");
            }
        };
        self.tasks.spawn_on(forget, &self.runtime);
    }

    async fn detach_forgotten(&self, payer: PayerId) -> Result<(), ObserveError> {
        let head = self.ledger.load(&payer).await?;
        let is_full = head.known.len() == KNOWN_METHODS_MAX || head.known.is_empty();
        let Some(customer) = head.customer.filter(|_| is_full) else { return Ok(()) };
        let attached = self.stripe.cards(&customer).await?;
        // Read after the list: a card that became known meanwhile is not forgotten. One that is
        // being charged is attached before it is known.
        let head = self.ledger.load(&payer).await?;
        if head.accounts.values().any(|account| account.open.is_some()) {
            return Ok(());
        }
        for method in attached.iter().filter(|method| !head.knows(method)) {
            self.stripe.detach(method).await?;
            tracing::info!(%payer, "a forgotten card was detached");
        }
        Ok(())
    }
}
