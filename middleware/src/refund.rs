//! Credit goes back to the cards that paid it: newest charge first, never more than is unspent.
//!
//! A refund is set aside in the ledger before Stripe hears of it, is driven by a task of its own
//! under a key of its own, and ends with what Stripe says about the charge afterwards.

use std::sync::Arc;

use dashmap::mapref::entry::Entry as Slot;
use farebox_ledger::book::{self, Entry, EntryId};
use farebox_ledger::{Book, Command, Outcome, Store as _, StoreError, TopUp, TopUpState};
use farebox_processor::{Call, GiveBack, LookUpError, Refund, Unknown};
use farebox_protocol::{Currency, Micros, Money, PayerId, TopUpId};
use serde::Serialize;
use tokio::sync::watch;

use crate::observe;
use crate::payments::{Payments, Shared};
use crate::top_up::{ANSWER_WITHIN, CALL_BUDGET, PAUSE_MAX, PAUSE_MIN, REPEAT_FOR_SECONDS};

/// What is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refundable {
    /// What one card charge brought.
    TopUp(TopUpId),
    /// A payer's account: its newest charges first.
    Account(PayerId, Currency),
}

impl From<TopUpId> for Refundable {
    fn from(id: TopUpId) -> Self {
        Refundable::TopUp(id)
    }
}

impl From<(PayerId, Currency)> for Refundable {
    fn from((payer, currency): (PayerId, Currency)) -> Self {
        Refundable::Account(payer, currency)
    }
}

impl Refundable {
    fn account(self) -> (PayerId, Currency) {
        match self {
            Refundable::TopUp(id) => (id.payer, id.currency),
            Refundable::Account(payer, currency) => (payer, currency),
        }
    }
}

/// What was given back, by charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refunded {
    /// The account's currency.
    pub currency: Currency,
    /// One refund of one charge each, in the order in which they were made.
    pub parts: Vec<RefundedPart>,
}

/// One refund of one charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundedPart {
    /// The charge's top-up.
    pub top_up: TopUpId,
    /// How much of it, in micros.
    pub amount: Micros,
    /// How it ended.
    pub state: RefundState,
}

/// How a refund of one charge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundState {
    /// Stripe gives it back. Should the bank refuse later, it is credit again.
    Done,
    /// Stripe refused, and it is credit again: the charge may be disputed, or too old.
    Refused,
    /// It is not known yet; the server goes on with it until it is.
    Pending,
}

impl Refunded {
    /// What goes back to cards for certain.
    pub fn total(&self) -> Money {
        self.sum(RefundState::Done)
    }

    /// What is not known yet.
    pub fn pending(&self) -> Money {
        self.sum(RefundState::Pending)
    }

    fn sum(&self, state: RefundState) -> Money {
        let parts = self.parts.iter().filter(|part| part.state == state);
        // Parts of one account's credit, which is in range.
        let sum = parts.fold(Micros::ZERO, |sum, part| sum.checked_add(part.amount).unwrap_or(sum));
        Money::new(sum, self.currency)
    }
}

/// Nothing was given back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefundError {
    /// The caller acts: it is in another currency, not above zero, or not in whole minor units.
    #[error("the amount must be a whole number of the account's minor units, above zero")]
    Amount,
    /// The caller acts: ask for less.
    #[error("only {unspent} can be given back")]
    Insufficient {
        /// What is unspent and can go back to a card, in whole minor units of its currency.
        unspent: Money,
    },
    /// There is no such top-up, or it never became credit.
    #[error("there is no such charge")]
    NotFound,
    /// The operator acts, or waits.
    #[error(transparent)]
    Ledger(#[from] StoreError),
}

impl Payments {
    /// Gives unspent credit back to the cards that paid it: `amount`, or with `None` all of it. The
    /// newest charges go first, each in a refund of its own.
    ///
    /// It waits up to 20 seconds for each; one that Stripe has not answered by then is
    /// [`Pending`](RefundState::Pending), and goes on by itself.
    ///
    /// # Errors
    ///
    /// [`RefundError`]; then nothing was given back.
    ///
    /// ```
    /// use farebox_middleware::{Payments, RefundError, usd};
    /// use farebox_protocol::Currency;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let payments = Payments::for_tests();
    /// let nobody = farebox_protocol::PayerId::from_bytes([1; 32]);
    /// let refunded = payments.refund((nobody, Currency::USD), Some(usd!("5"))).await;
    /// assert!(matches!(refunded, Err(RefundError::Insufficient { .. })));
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn refund(
        &self,
        what: impl Into<Refundable>,
        amount: Option<Money>,
    ) -> Result<Refunded, RefundError> {
        self.shared.refund(what.into(), amount).await
    }
}

/// How a driver's work ended: `None` while it goes on.
pub(crate) type End = Option<RefundState>;

/// The charges that are refunded, newest first, and how much of each.
fn plan(
    book: &Book,
    what: Refundable,
    amount: Option<Money>,
) -> Result<Vec<(u64, Micros)>, RefundError> {
    let (_, currency) = what.account();
    amount.map_or(Ok(()), |amount| check(amount, currency))?;
    let available = book.head.account(currency).available.max(Micros::ZERO);
    let charges = book.entries.iter().filter_map(|(id, entry)| match (id, entry) {
        (EntryId::TopUp(of, number), Entry::TopUp(top_up)) if *of == currency => {
            Some((*number, &**top_up))
        }
        _ => None,
    });
    let mut charges: Vec<(u64, &TopUp)> = charges.collect();
    if let Refundable::TopUp(id) = what {
        charges.retain(|(number, _)| *number == id.number);
        let is_paid =
            |(_, charge): &(u64, &TopUp)| matches!(charge.state, TopUpState::Succeeded { .. });
        charges.first().filter(|charge| is_paid(charge)).ok_or(RefundError::NotFound)?;
    }
    charges.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    // All that can go back, from which the asked amount takes the first part.
    let mut unspent = Micros::ZERO;
    let mut asked = amount.map_or(available, Money::micros);
    let mut parts = Vec::new();
    for (number, charge) in charges {
        // Parts of what is available, which is in range.
        let rest = available.checked_sub(unspent).unwrap_or_default();
        let most = currency.refundable(refundable(charge).min(rest));
        unspent = unspent.checked_add(most).unwrap_or(unspent);
        let part = currency.refundable(most.min(asked));
        if part > Micros::ZERO {
            asked = asked.checked_sub(part).unwrap_or_default();
            parts.push((number, part));
        }
    }
    let is_short = amount.is_some() && asked > Micros::ZERO;
    if is_short || parts.is_empty() {
        return Err(RefundError::Insufficient { unspent: Money::new(unspent, currency) });
    }
    Ok(parts)
}

/// Whether an amount can be given back to a card of this account at all.
fn check(amount: Money, currency: Currency) -> Result<(), RefundError> {
    let micros = amount.micros();
    let is_whole = micros > Micros::ZERO && currency.refundable(micros) == micros;
    if amount.currency() == currency && is_whole { Ok(()) } else { Err(RefundError::Amount) }
}

/// What is left of a charge, and not about to go back already.
fn refundable(charge: &TopUp) -> Micros {
    let opened = charge.refund.as_ref().map_or(Micros::ZERO, |refund| refund.left);
    let left = charge.totals.net().and_then(|net| net.checked_sub(opened));
    left.unwrap_or_default().max(Micros::ZERO)
}

/// How often a refund is opened anew when others change the account meanwhile.
const ATTEMPTS_MAX: usize = 4;
/// How often what is to be given back is planned.
const PLANS_MAX: usize = 2;

impl Shared {
    pub(crate) async fn refund(
        self: &Arc<Self>,
        what: Refundable,
        amount: Option<Money>,
    ) -> Result<Refunded, RefundError> {
        let (_, currency) = what.account();
        let mut refunded = Refunded { currency, parts: Vec::new() };
        for _ in 0..PLANS_MAX {
            match self.refund_as_planned(what, amount, &mut refunded).await {
                Ok(true) => break,
                // Others spent or gave back meanwhile: the rest may come from other charges.
                Ok(false) => {}
                Err(error) if refunded.parts.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a refund was made in part");
                    break;
                }
            }
        }
        match refunded.parts.is_empty() {
            true => Err(RefundError::Insufficient { unspent: Money::new(Micros::ZERO, currency) }),
            false => Ok(refunded),
        }
    }

    /// Plans what is not given back yet, and gives it back. Whether all of the plan was.
    async fn refund_as_planned(
        self: &Arc<Self>,
        what: Refundable,
        amount: Option<Money>,
        refunded: &mut Refunded,
    ) -> Result<bool, RefundError> {
        let (payer, currency) = what.account();
        let rest = amount.map(|amount| {
            let parts = refunded.parts.iter().map(|part| part.amount);
            let rest = |rest: Micros, part| rest.checked_sub(part).unwrap_or_default();
            Money::new(parts.fold(amount.micros(), rest), amount.currency())
        });
        for (number, _) in plan(&self.ledger.book(&payer).await?, what, rest)? {
            self.look_before(TopUpId { payer, currency, number }).await?;
        }
        let mut is_whole = true;
        for (number, planned) in plan(&self.ledger.book(&payer).await?, what, rest)? {
            let part = self.refund_charge(TopUpId { payer, currency, number }, planned).await?;
            is_whole &= part.is_some_and(|part| part.amount == planned);
            refunded.parts.extend(part);
        }
        Ok(is_whole)
    }

    /// Gives part of one charge back. `None`: there is nothing left to give.
    async fn refund_charge(
        self: &Arc<Self>,
        id: TopUpId,
        amount: Micros,
    ) -> Result<Option<RefundedPart>, StoreError> {
        let mut amount = amount;
        for _ in 0..ATTEMPTS_MAX {
            let Some(top_up) = self.ledger.top_up(&id).await? else { return Ok(None) };
            let TopUpState::Succeeded { intent } = &top_up.state else { return Ok(None) };
            let number = top_up.refunds + 1;
            let refund = Refund { top_up: id, number, intent, amount };
            let Ok(call) = serde_json::to_string(&self.stripe.refund(&refund)) else {
                tracing::error!(top_up = %id, "a refund cannot be written down");
                return Ok(None);
            };
            let open = Command::OpenRefund {
                currency: id.currency,
                number: id.number,
                refund: number,
                amount,
                call,
            };
            let before = top_up.totals.refunded;
            match self.ledger.apply(&id.payer, &open).await?.outcome {
                Outcome::Opened => {
                    let state = self.refund_ended(Opened { id, number, before }, true).await;
                    return Ok(Some(RefundedPart { top_up: id, amount, state }));
                }
                // Somebody else's comes first.
                Outcome::Joined { number } => {
                    let opened = Opened { id, number, before };
                    if self.refund_ended(opened, false).await == RefundState::Pending {
                        return Ok(None);
                    }
                }
                Outcome::Insufficient { missing } => {
                    let less = amount.checked_sub(missing).unwrap_or_default();
                    amount = id.currency.refundable(less);
                    if amount <= Micros::ZERO {
                        return Ok(None);
                    }
                }
                Outcome::Stale { .. } => {}
                outcome => {
                    tracing::error!(top_up = %id, ?outcome, "a refund is not open");
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Waits for the end of a refund that is open, as long as a caller waits.
    async fn refund_ended(self: &Arc<Self>, opened: Opened, fresh: bool) -> RefundState {
        let mut end = self.drive_refund(opened, fresh);
        let ended = tokio::time::timeout(ANSWER_WITHIN, end.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(end)) => (*end).unwrap_or(RefundState::Pending),
            _ => RefundState::Pending,
        }
    }

    /// Reads a charge before something of it is given back. A refund that has failed and was not
    /// heard of would hide the next one, for only the sum of both can be seen.
    async fn look_before(&self, id: TopUpId) -> Result<(), StoreError> {
        if let Some(TopUp { state: TopUpState::Succeeded { intent }, .. }) =
            self.ledger.top_up(&id).await?
            && let Err(error) = self.observe(&intent, Some(id)).await
        {
            tracing::warn!(top_up = %id, %error, "a charge is refunded that was not read before");
        }
        Ok(())
    }

    /// Starts the driver of an open refund, unless it has one. `fresh`: it was opened just now, so
    /// that Stripe has certainly not heard of it.
    pub(crate) fn drive_refund(
        self: &Arc<Self>,
        opened: Opened,
        fresh: bool,
    ) -> watch::Receiver<End> {
        match self.refunds.entry((opened.id, opened.number)) {
            Slot::Occupied(driver) => driver.get().clone(),
            Slot::Vacant(slot) => {
                let (end, watched) = watch::channel(None);
                slot.insert(watched.clone());
                let driver = Driver { shared: self.clone(), opened, end };
                self.tasks.spawn_on(driver.run(fresh), &self.runtime);
                watched
            }
        }
    }
}

/// One refund of one charge.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) id: TopUpId,
    /// Counts the refunds of the charge.
    pub(crate) number: u64,
    /// What had been given back of the charge when it was opened, or found.
    pub(crate) before: Micros,
}

impl Opened {
    /// How it ended, if somebody else ended it.
    fn ended_as(&self, top_up: &TopUp) -> RefundState {
        match top_up.totals.refunded > self.before {
            true => RefundState::Done,
            false => RefundState::Refused,
        }
    }
}

/// The task that drives one refund.
struct Driver {
    shared: Arc<Shared>,
    opened: Opened,
    end: watch::Sender<End>,
}

/// The server closes before the outcome is definite; the refund stays open in the ledger.
struct Stopped;

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.refunds.remove(&(self.opened.id, self.opened.number)); // also after a panic
    }
}

impl Driver {
    async fn run(self, fresh: bool) {
        let ended = self.finish(fresh).await;
        let end = self.end.clone();
        drop(self); // first: whoever is woken may open the next one
        if let Ok(state) = ended {
            end.send_replace(Some(state));
        }
    }

    /// Sends the stored call until its outcome is definite, and books it.
    async fn finish(&self, mut fresh: bool) -> Result<RefundState, Stopped> {
        let mut pause = PAUSE_MIN;
        loop {
            match self.round(fresh).await {
                Ok(Some(state)) => return Ok(state),
                Ok(None) => tracing::warn!(top_up = %self.opened.id, "a refund is not known yet"),
                Err(error) => tracing::warn!(top_up = %self.opened.id, %error, "a refund waits"),
            }
            fresh = false;
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = self.shared.closing.cancelled() => return Err(Stopped),
            }
        }
    }

    /// The refund in the ledger, while it is open.
    fn open<'a>(&self, top_up: &'a TopUp) -> Option<&'a book::Refund> {
        top_up.refund.as_ref().filter(|open| open.number == self.opened.number)
    }

    /// Asks Stripe once more. `None`: the outcome is still not known.
    async fn round(&self, fresh: bool) -> Result<Option<RefundState>, RoundError> {
        let Opened { id, number, .. } = self.opened;
        let Some(top_up) = self.shared.ledger.top_up(&id).await? else { return Ok(None) };
        let (TopUpState::Succeeded { intent }, Some(refund)) = (&top_up.state, self.open(&top_up))
        else {
            return Ok(Some(self.opened.ended_as(&top_up)));
        };
        let age = self.shared.clock.now().seconds() - refund.opened.seconds();
        let key = Refund { top_up: id, number, intent, amount: refund.left }.key();
        let given = match serde_json::from_str::<Call>(&refund.call) {
            // Stripe may have forgotten the key, and would give the money back a second time.
            _ if age >= REPEAT_FOR_SECONDS && !fresh => GiveBack::Unknown(Unknown::LookUp),
            Ok(call) => self.shared.stripe.give_back(&call, &key, CALL_BUDGET).await,
            Err(_) => {
                tracing::error!(top_up = %self.opened.id, "the stored call cannot be read");
                GiveBack::Unknown(Unknown::LookUp)
            }
        };
        match given {
            GiveBack::Unknown(Unknown::Repeat) | GiveBack::NotSent => Ok(None),
            given => self.close(intent, &given).await,
        }
    }

    /// Ends the refund with what Stripe says about its charge after it answered.
    async fn close(
        &self,
        intent: &str,
        given: &GiveBack,
    ) -> Result<Option<RefundState>, RoundError> {
        let Opened { id, number, .. } = self.opened;
        let TopUpId { payer, currency, number: top_up } = id;
        for _ in 0..ATTEMPTS_MAX {
            let Some(known) = self.shared.ledger.top_up(&id).await? else { return Ok(None) };
            let Some(open) = self.open(&known) else {
                return Ok(Some(self.opened.ended_as(&known)));
            };
            let totals = observe::totals(&self.shared.stripe.standing(intent).await?);
            let is_paid = open.left == Micros::ZERO || totals.refunded > known.totals.refunded;
            let state = match given {
                GiveBack::Accepted { refund } if !is_paid => {
                    if self.shared.stripe.refund_stands(refund).await? {
                        // Or the account would get back what the card gets too.
                        tracing::error!(top_up = %self.opened.id, refund, "a charge lacks its refund");
                        return Ok(None);
                    }
                    RefundState::Refused
                }
                GiveBack::Refused { code } => {
                    tracing::warn!(top_up = %self.opened.id, code, "Stripe refuses a refund");
                    RefundState::Refused
                }
                _ if is_paid => RefundState::Done,
                _ => RefundState::Refused,
            };
            let close = Command::CloseRefund {
                currency,
                number: top_up,
                refund: number,
                seen_version: known.version,
                totals,
            };
            match self.shared.ledger.apply(&payer, &close).await?.outcome {
                Outcome::Closed => {
                    tracing::info!(top_up = %self.opened.id, ?state, "a refund has ended");
                    return Ok(Some(state));
                }
                Outcome::Conflict => {} // somebody booked meanwhile: both are read again
                outcome => {
                    tracing::error!(top_up = %self.opened.id, ?outcome, "a refund cannot be ended");
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

/// Stripe or the ledger could not be asked.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Stripe(#[from] LookUpError),
    #[error(transparent)]
    Ledger(#[from] StoreError),
}
