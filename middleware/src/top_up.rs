//! A top-up: one card charge that becomes credit, exactly once.
//!
//! A top-up is driven by a task of its own, which a client that hangs up cannot cut. The order is
//! what makes it exact: the top-up is on disk, with the encoded call, before Stripe hears of it;
//! its id is Stripe's idempotency key; and the call is repeated, byte for byte, by whoever finds
//! the top-up open, until the outcome is definite.

use std::sync::Arc;
use std::time::Duration;

use dashmap::mapref::entry::Entry;
use farebox_ledger::{Command, Outcome, Store as _, StoreError, TopUp, TopUpState, Totals};
use farebox_processor::{
    Call, Charge, IdempotencyKey, Intent, IntentStatus, LookUpError, Mode, Rejection, Unknown,
};
use farebox_protocol::{Currency, ErrorCode, Micros, Money, PayerId, PaymentMethodId, TopUpId};
use tokio::sync::watch;

use crate::admission::{Asker, Endpoint};
use crate::payments::Shared;
use crate::refusal::Refusal;
use crate::who::{Card, refusal_of};

/// A top-up that a payment asks for.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) payer: PayerId,
    pub(crate) currency: Currency,
    /// Nothing is charged if this much is available; `None`: the charge is the proof of who pays.
    pub(crate) needed: Option<Micros>,
    /// How much to take.
    pub(crate) amount: Micros,
    pub(crate) card: Card,
    pub(crate) asker: Asker,
}

/// What a driver is to do.
pub(crate) enum Work {
    Open(Ask),
    Resume(TopUpId),
}

/// A top-up that became credit.
#[derive(Clone, Debug)]
pub(crate) struct Credited {
    pub(crate) id: TopUpId,
    /// The PaymentIntent.
    pub(crate) intent: String,
    pub(crate) method: PaymentMethodId,
}

/// How far a driver is, for the requests that wait for it.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Starting,
    Open(TopUpId),
    Ended(Ended),
}

/// How a driver's work ended. `None`: there was enough credit, and nothing was charged.
pub(crate) type Ended = Result<Option<Credited>, Failed>;

/// Nothing became credit.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) refusal: Refusal,
    /// What failed, if it came to a charge. Another card may still succeed.
    pub(crate) method: Option<PaymentMethodId>,
}

impl Failed {
    /// The card may have been charged, or is going to be.
    fn pending(id: TopUpId) -> Failed {
        Failed { refusal: Refusal::about(ErrorCode::PaymentPending, id), method: None }
    }
}

impl From<ErrorCode> for Failed {
    fn from(code: ErrorCode) -> Self {
        Failed { refusal: code.into(), method: None }
    }
}

/// The account that a driver works on. At most one does.
pub(crate) type Account = (PayerId, Currency);

/// How long a request waits for its top-up. The driver goes on after it.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long a driver waits for a customer, so that whoever waits is told within its time.
const CUSTOMER_WITHIN: Duration = Duration::from_secs(10);
/// How long one round of calls may take before the driver pauses.
pub(crate) const CALL_BUDGET: Duration = Duration::from_secs(20);
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(500);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Stripe may forget an idempotency key after 24 hours; then the same key would charge again.
pub(crate) const REPEAT_FOR_SECONDS: i64 = 23 * 3_600;
/// How far before its opening a top-up's charge is looked for: a ledger that was lost makes the
/// same ids again, and Stripe may remember their keys for longer than a day.
const LOOK_BACK_SECONDS: i64 = 7 * 24 * 3_600;
/// How often a number or a customer is taken anew before a driver gives up.
const ATTEMPTS_MAX: usize = 4;

impl Shared {
    /// Takes a top-up from a card, or joins the account's driver, and waits for the end of it.
    pub(crate) async fn top_up(self: &Arc<Self>, ask: Ask, within: Duration) -> Ended {
        self.wait(Work::Open(ask), within).await
    }

    /// Waits for the end of a top-up that was opened before, and drives it if nobody does.
    pub(crate) async fn resume(self: &Arc<Self>, id: TopUpId) -> Ended {
        if let Some(ended) = self.ended(id).await? {
            return ended;
        }
        // The account's driver may be at another top-up by the time it is joined: the ledger says
        // what became of this one.
        let _ = self.wait(Work::Resume(id), ANSWER_WITHIN).await;
        self.ended(id).await?.unwrap_or(Err(Failed::pending(id)))
    }

    /// How a top-up ended; `None` while it is open.
    async fn ended(&self, id: TopUpId) -> Result<Option<Ended>, Failed> {
        let top_up = self.ledger.top_up(&id).await.map_err(|error| {
            tracing::error!(%error, "a top-up cannot be read");
            Failed::pending(id)
        })?;
        let TopUp { method, state, .. } = top_up.ok_or(ErrorCode::InvalidPayment)?;
        Ok(match state {
            TopUpState::Open { .. } => None,
            TopUpState::Succeeded { intent } => Some(Ok(Some(Credited { id, intent, method }))),
            TopUpState::Failed { code } => {
                Some(Err(Failed { refusal: Refusal::about(code, id), method: Some(method) }))
            }
        })
    }

    async fn wait(self: &Arc<Self>, work: Work, within: Duration) -> Ended {
        let mut progress = self.drive(work);
        let ended = progress.wait_for(|progress| matches!(progress, Progress::Ended(_)));
        // Either too slow, or the driver died: what it opened is driven on by the next request.
        let _ = tokio::time::timeout(within, ended).await;
        let last = progress.borrow().clone();
        match last {
            Progress::Ended(ended) => ended,
            Progress::Open(id) => Err(Failed::pending(id)),
            Progress::Starting => Err(ErrorCode::PaymentPending.into()),
        }
    }

    /// Starts a driver, unless the account has one already.
    pub(crate) fn drive(self: &Arc<Self>, work: Work) -> watch::Receiver<Progress> {
        let account = match &work {
            Work::Open(ask) => (ask.payer, ask.currency),
            Work::Resume(id) => (id.payer, id.currency),
        };
        match self.drivers.entry(account) {
            Entry::Occupied(driver) => driver.get().clone(),
            Entry::Vacant(slot) => {
                let (progress, watched) = watch::channel(Progress::Starting);
                slot.insert(watched.clone());
                let driver = Driver { shared: self.clone(), account, progress };
                self.tasks.spawn_on(driver.run(work), &self.runtime);
                watched
            }
        }
    }

    /// The payer's Customer at Stripe, made once. `replaces` is one that Stripe does not know.
    pub(crate) async fn customer(
        &self,
        payer: PayerId,
        replaces: Option<String>,
        asker: Asker,
    ) -> Result<String, ErrorCode> {
        let known = self.load(payer).await?.customer;
        if let Some(known) = known.filter(|known| Some(known) != replaces.as_ref()) {
            return Ok(known);
        }
        self.gate.turn(Endpoint::Customers, asker).await.map_err(|refusal| refusal.code)?;
        let made = self.stripe.customer(&payer, replaces.as_deref()).await;
        let set = Command::SetCustomer { customer: made.map_err(refusal_of)?, replaces };
        match self.ledger.apply(&payer, &set).await.map(|applied| applied.outcome) {
            Ok(Outcome::Customer(customer)) => Ok(customer),
            other => {
                tracing::error!(?other, "a customer could not be kept");
                Err(ErrorCode::LedgerUnavailable)
            }
        }
    }
}

/// The task that drives one account's top-up.
struct Driver {
    shared: Arc<Shared>,
    account: Account,
    progress: watch::Sender<Progress>,
}

/// The driver stops before the outcome is definite; the top-up stays open on disk.
struct Stopped;

/// A top-up that is open.
struct Opened {
    id: TopUpId,
    call: Call,
    /// When, in seconds: Stripe's keys age.
    at: i64,
    /// Whether its call was certainly never sent.
    fresh: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also after a panic. Whoever was waiting sees the top-up as it was last.
        self.shared.drivers.remove(&self.account);
    }
}

impl Driver {
    async fn run(self, work: Work) {
        let ended = match work {
            Work::Open(ask) => self.admit(&ask).await,
            Work::Resume(id) => self.resume(id).await,
        };
        let progress = self.progress.clone();
        drop(self); // first: whoever is woken may start the next driver
        if let Ok(ended) = ended {
            progress.send_replace(Progress::Ended(ended));
        }
    }

    /// Opens a top-up and drives it, if that is admitted.
    async fn admit(&self, ask: &Ask) -> Result<Ended, Stopped> {
        if let Err(refusal) = self.shared.admit_charge(ask).await {
            return Ok(Err(Failed { refusal, method: None }));
        }
        let ended = self.open(ask).await?;
        self.shared.report(ask, &ended).await;
        Ok(ended)
    }

    /// Opens a top-up and drives it.
    async fn open(&self, ask: &Ask) -> Result<Ended, Stopped> {
        let mut unknown_customer = None;
        for _ in 0..ATTEMPTS_MAX {
            let customer = self.shared.customer(ask.payer, unknown_customer.take(), ask.asker);
            let customer = match tokio::time::timeout(CUSTOMER_WITHIN, customer).await {
                Ok(Ok(customer)) => customer,
                Ok(Err(code)) => return Ok(Err(code.into())),
                Err(_) => return Ok(Err(ErrorCode::ProcessorUnavailable.into())),
            };
            let opened = match self.open_on_disk(ask, &customer).await {
                Ok(Some(opened)) => opened,
                Ok(None) => return Ok(Ok(None)),
                Err(failed) => return Ok(Err(failed)),
            };
            match self.finish(&opened).await? {
                Finished::Ended(ended) => return Ok(ended),
                // Made anew once, under a key of its own.
                Finished::UnknownCustomer => unknown_customer = Some(customer),
            }
        }
        Ok(Err(ErrorCode::ProcessorUnavailable.into()))
    }

    /// Goes on with a top-up that somebody opened.
    async fn resume(&self, id: TopUpId) -> Result<Ended, Stopped> {
        let opened = self.join(id).await.map_err(|_| Stopped)?;
        match self.finish(&opened).await? {
            Finished::Ended(ended) => Ok(ended),
            Finished::UnknownCustomer => Ok(Err(ErrorCode::ProcessorUnavailable.into())),
        }
    }

    /// Writes the top-up down, or finds the one that is open. `None`: there is enough credit.
    async fn open_on_disk(&self, ask: &Ask, customer: &str) -> Result<Option<Opened>, Failed> {
        let (payer, currency) = self.account;
        let mut number = self.shared.load(payer).await?.account(currency).ended + 1;
        for _ in 0..ATTEMPTS_MAX {
            let id = TopUpId { payer, currency, number };
            let (amount, payment_method) = (ask.amount, &ask.card.method);
            let top_up = farebox_processor::TopUp {
                id,
                amount,
                customer,
                payment_method,
                save_card: self.shared.settings.save_cards,
            };
            let call = self.shared.stripe.top_up(&top_up);
            let open = Command::OpenTopUp {
                currency,
                number,
                needed: ask.needed,
                method: ask.card.method.clone(),
                card: ask.card.book,
                call: serde_json::to_string(&call).map_err(|_| ErrorCode::LedgerUnavailable)?,
            };
            let applied = self.shared.ledger.apply(&payer, &open).await;
            let at = applied.as_ref().map_or(0, |applied| applied.at.seconds());
            match applied.map(|applied| applied.outcome) {
                Ok(Outcome::Opened) => {
                    self.progress.send_replace(Progress::Open(id));
                    return Ok(Some(Opened { id, call, at, fresh: true }));
                }
                Ok(Outcome::Joined { number }) => {
                    return self.join(TopUpId { payer, currency, number }).await.map(Some);
                }
                Ok(Outcome::NotNeeded) => return Ok(None),
                Ok(Outcome::Frozen) => return Err(ErrorCode::AccountFrozen.into()),
                Ok(Outcome::Stale { number: next }) => number = next,
                other => {
                    // If it did reach the disk, the next start drives it.
                    tracing::error!(top_up = %id, ?other, "a top-up may not be open");
                    return Err(Failed::pending(id));
                }
            }
        }
        Err(ErrorCode::RateLimited.into())
    }

    /// A top-up that another process, or an earlier life of this one, left open.
    async fn join(&self, id: TopUpId) -> Result<Opened, Failed> {
        let top_up = self.shared.ledger.top_up(&id).await.ok().flatten();
        let Some(TopUp { state: TopUpState::Open { call }, opened, .. }) = top_up else {
            return Err(ErrorCode::RateLimited.into()); // it ended meanwhile
        };
        let Ok(call) = serde_json::from_str(&call) else {
            tracing::error!(top_up = %id, "the stored call cannot be read");
            return Err(Failed::pending(id));
        };
        self.progress.send_replace(Progress::Open(id));
        Ok(Opened { id, call, at: opened.seconds(), fresh: false })
    }

    /// Sends the call until its outcome is definite, and books it.
    async fn finish(&self, opened: &Opened) -> Result<Finished, Stopped> {
        let Opened { id, ref call, at, mut fresh } = *opened;
        let stripe = &self.shared.stripe;
        let key = IdempotencyKey::from(id);
        let mut pause = PAUSE_MIN;
        loop {
            let age = self.shared.clock.now().seconds() - at;
            let judged = if fresh {
                let charge = stripe.charge(call, &key, CALL_BUDGET).await;
                self.judge(opened, charge, true).await?
            } else if age < REPEAT_FOR_SECONDS {
                let charge = stripe.repeat(call, &key, CALL_BUDGET).await;
                self.judge(opened, charge, false).await?
            } else {
                self.look_up(opened).await // the key may be forgotten: never send it again
            };
            match judged {
                Judged::Credit { intent, received } => {
                    let ended = self.credit(id, intent, received, fresh).await;
                    return ended.map(Finished::Ended);
                }
                Judged::Fail(code) => {
                    return self.fail(id, code).await.map(|failed| Finished::Ended(Err(failed)));
                }
                Judged::UnknownCustomer => {
                    let _: Failed = self.fail(id, ErrorCode::ProcessorUnavailable).await?;
                    return Ok(Finished::UnknownCustomer);
                }
                Judged::Repeat => {
                    fresh = false;
                    tracing::warn!(top_up = %id, "the outcome of a charge is not known yet");
                    self.pause(&mut pause).await?;
                }
            }
        }
    }

    /// What an outcome of the call means for the top-up.
    async fn judge(&self, opened: &Opened, charge: Charge, fresh: bool) -> Result<Judged, Stopped> {
        let id = opened.id;
        match charge {
            Charge::Charged { intent, received, currency } if currency == id.currency => {
                Ok(Judged::Credit { intent, received })
            }
            Charge::Charged { intent, currency, .. } => {
                tracing::error!(top_up = %id, intent, %currency, "charged in another currency");
                Err(Stopped)
            }
            Charge::Declined => Ok(Judged::Fail(ErrorCode::CardDeclined)),
            Charge::AuthenticationRequired => Ok(Judged::Fail(ErrorCode::AuthenticationRequired)),
            Charge::NotSent if fresh => Ok(Judged::Fail(ErrorCode::ProcessorUnavailable)),
            Charge::Rejected(rejection) if fresh => Ok(match rejection {
                Rejection::PaymentMethod => Judged::Fail(ErrorCode::InvalidPayment),
                Rejection::Customer => Judged::UnknownCustomer,
                Rejection::Operator => Judged::Fail(ErrorCode::ProcessorUnavailable),
            }),
            Charge::NotSent | Charge::Unknown(Unknown::Repeat) => Ok(Judged::Repeat),
            // A refusal of a repeated call says nothing about the first one.
            Charge::Unknown(Unknown::LookUp) | Charge::Rejected(_) => {
                Ok(self.look_up(opened).await)
            }
        }
    }

    /// Repeating can no longer tell: what Stripe lists decides.
    async fn look_up(&self, opened: &Opened) -> Judged {
        let (stripe, id) = (&self.shared.stripe, opened.id);
        let since = opened.at - LOOK_BACK_SECONDS;
        let customer = opened.call.customer();
        let found = match stripe.intents_since(customer.as_deref(), since).await {
            // A customer that was deleted: its payments are among all of them.
            Err(LookUpError::NotFound) => stripe.intents_since(None, since).await,
            found => found,
        };
        let of_top_up: Vec<Intent> = match found {
            Ok(intents) => intents.into_iter().filter(|i| i.top_up == Some(id)).collect(),
            Err(error) => {
                tracing::warn!(top_up = %id, %error, "payments cannot be listed");
                return Judged::Repeat;
            }
        };
        let is_ours = |intent: &&Intent| {
            intent.status == IntentStatus::Succeeded
                && intent.currency == id.currency
                && intent.livemode == (stripe.mode() == Mode::Live)
        };
        if let Some(intent) = of_top_up.iter().find(is_ours) {
            return Judged::Credit { intent: intent.id.clone(), received: intent.received };
        }
        let is_dead = |intent: &Intent| {
            matches!(intent.status, IntentStatus::RequiresPaymentMethod | IntentStatus::Canceled)
        };
        let Some(waiting) = of_top_up.iter().find(|intent| !is_dead(intent)) else {
            return Judged::Fail(ErrorCode::ProcessorUnavailable);
        };
        // Nobody else would ever end it; the next round finds it as it is then.
        let ended = stripe.end_intent(&waiting.id, CALL_BUDGET).await;
        tracing::warn!(top_up = %id, intent = waiting.id, ?ended, "an intent was not finished");
        Judged::Repeat
    }

    /// Books what the card paid.
    async fn credit(
        &self,
        id: TopUpId,
        intent: String,
        received: Micros,
        fresh: bool,
    ) -> Result<Ended, Stopped> {
        let TopUpId { payer, currency, number } = id;
        let totals = Totals { received, ..Totals::default() };
        let mut pause = PAUSE_MIN;
        for _ in 0..ATTEMPTS_MAX {
            let Some(TopUp { version: seen_version, method, card, state, .. }) =
                self.patiently(|| self.shared.ledger.top_up(&id)).await?
            else {
                return Err(Stopped); // the ledger lost it: reconciliation finds the charge
            };
            if let TopUpState::Succeeded { intent: booked } = state {
                // An event was faster, and may have booked a refund since.
                if !fresh || booked != intent {
                    self.look_again(&intent, id).await;
                }
                self.shared.forget_oldest(payer).await;
                return Ok(Ok(Some(Credited { id, intent: booked, method })));
            }
            // Before the credit, so that a crash between the two is driven again.
            self.patiently(|| self.shared.claim(payer, card, &method)).await?;
            let intent = intent.clone();
            let observe = Command::Observe { currency, number, intent, seen_version, totals };
            let outcome = self.book(payer, &observe).await?;
            if matches!(outcome, Outcome::Observed { .. }) {
                let amount = Money::new(received, currency);
                tracing::info!(top_up = %id, %amount, "a top-up became credit");
            } else {
                tracing::error!(top_up = %id, ?outcome, "a charge is not credited yet");
                self.pause(&mut pause).await?;
            }
        }
        Err(Stopped)
    }

    /// What an old answer said may have changed since.
    async fn look_again(&self, intent: &str, id: TopUpId) {
        if let Err(error) = self.shared.observe(intent, Some(id)).await {
            tracing::warn!(top_up = %id, %error, "a charge that ended long ago was not read again");
        }
    }

    /// Ends the top-up without money.
    async fn fail(&self, id: TopUpId, code: ErrorCode) -> Result<Failed, Stopped> {
        let TopUpId { payer, currency, number } = id;
        self.book(payer, &Command::FailTopUp { currency, number, code }).await?;
        tracing::warn!(top_up = %id, code = code.as_str(), "a top-up failed");
        let top_up = self.shared.ledger.top_up(&id).await.ok().flatten();
        let method = top_up.map(|top_up| top_up.method);
        Ok(Failed { refusal: Refusal::about(code, id), method })
    }

    /// Applies a command until the ledger answers.
    async fn book(&self, payer: PayerId, command: &Command) -> Result<Outcome, Stopped> {
        let applied = self.patiently(|| self.shared.ledger.apply(&payer, command)).await;
        applied.map(|applied| applied.outcome)
    }

    /// Asks until the ledger answers.
    async fn patiently<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, Stopped>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = PAUSE_MIN;
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::error!(%error, "a top-up waits for the ledger"),
            }
            self.pause(&mut pause).await?;
        }
    }

    /// Waits, each time twice as long, until the server closes. Nothing about money is under way
    /// while it waits.
    async fn pause(&self, pause: &mut Duration) -> Result<(), Stopped> {
        let now = *pause;
        *pause = (now * 2).min(PAUSE_MAX);
        tokio::select! {
            () = tokio::time::sleep(now) => Ok(()),
            () = self.shared.closing.cancelled() => Err(Stopped),
        }
    }
}

/// How a driver's round ended.
enum Finished {
    Ended(Ended),
    UnknownCustomer,
}

/// What an outcome of a call means.
enum Judged {
    Credit { intent: String, received: Micros },
    Fail(ErrorCode),
    UnknownCustomer,
    Repeat,
}
