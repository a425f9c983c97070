//! A payment by card, up to its answer:
//!
//! ```text
//! policy(price, top-up) -> the owner, if the policy says so -> the origin's turn
//!     -> hold -> PaymentMethod -> journal -> send
//! ```
//!
//! What the answer means is in [`outcome`](crate::outcome).

use std::sync::Arc;
use std::time::Duration;

use farebox_policy::{Decision, Hold};
use farebox_protocol::{Micros, Money, Offer, Payment, TopUpId, Units};
use tracing::{debug, info, warn};

use crate::answer;
use crate::books::{Books, Glimpse, Unresolved};
use crate::budget::{Asked, HoldId};
use crate::call::Ended;
use crate::error::{PaymentError, Reason};
use crate::event::Event;
use crate::hold::{Answer, Held};
use crate::middleware::{Paid, PaymentMiddleware, Quote};
use crate::origin::Origin;
use crate::source::TopUp;
use crate::state::Turn;
use crate::tokenizer::is_publishable_key;
use crate::visit::{Failure, Visit};

/// A server that is silent for longer has left the outcome unknown. Stripe's own answer takes
/// at most 80 seconds.
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// What a server says about top-ups, in an offer or before.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) publishable_key: String,
    pub(crate) min: Units,
    pub(crate) max: Option<Units>,
    /// Top up now if less than this would be left: nothing, if only to pay for the request.
    pub(crate) min_credit: Option<Money>,
}

/// A payment that is in the journal and not answered yet.
pub(crate) struct Opened {
    pub(crate) unresolved: Unresolved,
    pub(crate) price: Money,
    /// Not a payment that was sent before.
    pub(crate) fresh: bool,
    /// The hold is for this send alone, so an answer to it decides about the hold.
    pub(crate) own_hold: bool,
    /// Credit would have paid for the request.
    pub(crate) ahead: bool,
    /// There was no credit at this server before.
    pub(crate) first: bool,
    /// Nobody else pays this origin until the answer is understood, and written down.
    turn: Arc<Turn>,
}

impl Terms {
    pub(crate) fn of(offer: &Offer) -> Terms {
        Terms {
            publishable_key: offer.publishable_key.clone(),
            min: offer.min_top_up,
            max: offer.max_top_up,
            min_credit: None,
        }
    }

    /// The smallest top-up that the server takes and that pays for this request, in what a card
    /// can be charged.
    pub(crate) fn amount(&self, price: Money) -> Result<Money, Reason> {
        let currency = price.currency();
        let least = self.min.micros().max(price.micros());
        let needed = currency.chargeable(least).unwrap_or(least);
        match self.max.map(Units::micros) {
            Some(max) if needed > max => Err(Reason::TopUpBounds {
                needed: Money::new(needed, currency),
                max: Money::new(max, currency),
            }),
            _ => Ok(Money::new(needed, currency)),
        }
    }

    /// What the server is asked to leave, once this top-up was made.
    fn min_credit(&self, amount: Money) -> Option<Units> {
        let wanted = self.min_credit.filter(|wanted| wanted.currency() == amount.currency())?;
        Some(wanted.micros().min(amount.micros()).units_floor())
    }
}

impl Opened {
    /// What an answer means is written down to the end, also when the call is given up, and with
    /// the origin's turn: a later write would undo what others did meanwhile.
    pub(crate) async fn finish(&self, work: impl Future<Output = ()> + Send + 'static) {
        let turn = Arc::clone(&self.turn);
        let task = tokio::spawn(async move {
            work.await;
            drop(turn);
        });
        // When it panicked or the runtime ends, it is as if the process had died.
        let _ = task.await;
    }

    /// Whether a refusal names the top-up that this payment went on with: it ended without money.
    pub(crate) fn is_about(&self, top_up: Option<TopUpId>) -> bool {
        top_up.is_some() && top_up == self.unresolved.top_up_id
    }
}

impl PaymentMiddleware {
    /// Pays by card: the one payment of this call.
    pub(crate) async fn pay(&self, visit: &mut Visit<'_>, quote: &Quote) -> Result<Paid, Failure> {
        if !visit.request.can_send() {
            return Err(PaymentError::BodyNotReplayable.into());
        }
        visit.key()?;
        // What an earlier payment could not return is missing in the budget.
        self.purse.recover_all().await;
        let before = self.glimpse(visit);
        if before.unresolved.is_none()
            && let Some(terms) = &quote.terms
        {
            self.consent(visit, quote.price, terms).await?;
        }
        let turn = self.purse.state.turn(&visit.origin, &visit.gate).await;
        let turn = turn.map_err(PaymentError::State)?;
        self.purse.state.refresh().await.map_err(PaymentError::State)?;
        let known = self.glimpse(visit);
        let ahead = quote.terms.as_ref().is_some_and(|terms| terms.min_credit.is_some());
        let elsewhere = match ahead {
            // What another call topped up will do.
            true => (visit.gate.sent_since(visit.seen)).then_some(Paid::Elsewhere),
            false => elsewhere(visit, &known)?,
        };
        if let Some(paid) = elsewhere {
            return Ok(paid);
        }
        let opened = match (known.unresolved.clone(), &quote.terms) {
            (Some(unresolved), _) => self.resume(visit, quote, &known, unresolved, turn).await?,
            (None, Some(terms)) => self.open(visit, quote.price, terms, &known, turn).await?,
            (None, None) => return Ok(Paid::Elsewhere),
        };
        self.send_payment(visit, quote, known, opened).await
    }

    async fn send_payment(
        &self,
        visit: &mut Visit<'_>,
        quote: &Quote,
        known: Glimpse,
        opened: Opened,
    ) -> Result<Paid, Failure> {
        let amount = opened.unresolved.hold.amount();
        let payment = Payment {
            client_id: known.credential,
            payment_method_id: Some(opened.unresolved.payment_method.clone()),
            top_up_amount: Some(amount.micros().units_ceil()),
            max_amount: Some(quote.price.micros().units_floor()),
            currency: Some(quote.price.currency()),
            top_up_id: opened.unresolved.top_up_id,
            min_credit: quote.terms.as_ref().and_then(|terms| terms.min_credit(amount)),
            ..Payment::default()
        };
        info!(origin = visit.origin.key(), %amount, resumed = !opened.fresh, "paying by card");
        self.tell(visit, || Event::Paying { amount, resumed: !opened.fresh });
        self.purse.state.set_sent(&visit.gate);
        visit.call.set_paid(opened.unresolved.id);
        let sent = tokio::time::timeout(PAYMENT_TIMEOUT, visit.request.send(Some(&payment))).await;
        self.purse.steps.at("sent");
        let Ok(Ok(response)) = sent else {
            warn!(origin = visit.origin.key(), "no answer to a payment: its outcome is unknown");
            self.tell(visit, || Event::Unknown { amount });
            return Err(PaymentError::Unknown.into());
        };
        let (response, verdict) = answer::verdict(response).await;
        Ok(Paid::Served(self.close(visit, opened, response, verdict).await?))
    }

    /// Whether policy and owner agree to a top-up, before anything waits for it.
    async fn consent(&self, visit: &Visit<'_>, price: Money, terms: &Terms) -> Result<(), Failure> {
        let amount = terms.amount(price)?;
        let usage = self.purse.budget.usage().await.map_err(PaymentError::Budget)?;
        let asked = self.asked(visit, price, Some(amount));
        match self.decide(&usage, &asked.request()) {
            Decision::Allow => Ok(()),
            Decision::Refuse(refusal) => Err(Reason::Policy(refusal).into()),
            // Nobody is asked for what may wait.
            Decision::Escalate(escalation) if terms.min_credit.is_some() => {
                Err(Reason::NobodyToAsk(escalation).into())
            }
            Decision::Escalate(escalation) => {
                self.approve(visit, price, Some(amount), escalation).await
            }
        }
    }

    /// A new top-up: held, with a PaymentMethod, and in the journal when this returns.
    async fn open(
        &self,
        visit: &Visit<'_>,
        price: Money,
        terms: &Terms,
        known: &Glimpse,
        turn: Turn,
    ) -> Result<Opened, Failure> {
        if self.paid_under(visit).is_some() {
            return Err(visit.call.end(Ended::PaidButRefused).into());
        }
        same_key(known, &terms.publishable_key)?;
        let source = self.source.as_deref().ok_or(PaymentError::NoCard)?;
        let amount = terms.amount(price)?;
        let held = self.hold(visit, price, amount, turn).await?;
        let top_up = TopUp::new(visit.origin.key(), &terms.publishable_key, amount);
        let payment_method = match source.payment_method_boxed(&top_up).await {
            Ok(payment_method) => payment_method,
            Err(error) => {
                held.give_back().await;
                return Err(error.into());
            }
        };
        self.purse.steps.at("payment method");
        let unresolved = Unresolved {
            id: held.id(),
            payment_method,
            hold: held.hold().clone(),
            covers: rest(held.hold(), price),
            top_up_id: None,
            asked_again: false,
        };
        let turn = self.journal(visit, held, &unresolved, price, Some(top_up)).await?;
        let (ahead, first) = (terms.min_credit.is_some(), known.credential.is_none());
        Ok(Opened {
            unresolved,
            price,
            fresh: true,
            own_hold: true,
            ahead,
            first,
            turn: Arc::new(turn),
        })
    }

    /// The unresolved payment of this origin once more. Under the name of its top-up it charges
    /// nothing again. Without one, a server that is known to join repeats charges again only for
    /// more than the first top-up paid for; a v1 server may always. Whatever may be charged again
    /// is held again, and never within the call that made the payment.
    async fn resume(
        &self,
        visit: &Visit<'_>,
        quote: &Quote,
        known: &Glimpse,
        mut unresolved: Unresolved,
        turn: Turn,
    ) -> Result<Opened, Failure> {
        if let Some(terms) = &quote.terms {
            same_key(known, &terms.publishable_key)?;
        }
        let price = quote.price;
        debug!(origin = visit.origin.key(), "going on with an unresolved payment");
        let repeat = |unresolved, own_hold, turn: Turn| Opened {
            unresolved,
            price,
            fresh: false,
            own_hold,
            ahead: false,
            first: false,
            turn: Arc::new(turn),
        };
        if !self.may_go_on(visit, &unresolved) {
            return Err(PaymentError::Unknown.into());
        }
        let covers = unresolved.covers_after(price).filter(|_| known.extended);
        if unresolved.top_up_id.is_some() || covers.is_some() {
            self.take_on(visit, covers.filter(|_| unresolved.top_up_id.is_none())).await?;
            return Ok(repeat(unresolved, false, turn));
        }
        if unresolved.asked_again && !known.extended {
            return Err(visit.call.end(Ended::PaidButRefused).into());
        }
        if self.paid_under(visit).is_some() {
            return Err(PaymentError::Unknown.into());
        }
        let held = self.hold(visit, price, unresolved.hold.amount(), turn).await?;
        let before = std::mem::replace(&mut unresolved.id, held.id());
        unresolved.hold = held.hold().clone();
        unresolved.covers = rest(held.hold(), price);
        let turn = self.journal(visit, held, &unresolved, price, None).await?;
        // The first charge may have been made: its money stays counted.
        if let Err(error) = self.purse.budget.close(before).await {
            warn!(%error, "a hold that counts as spent is still open");
        }
        Ok(repeat(unresolved, true, turn))
    }

    /// Writes down that this call goes on with the unresolved payment: the card may be charged in
    /// its name.
    async fn take_on(&self, visit: &Visit<'_>, covers: Option<Micros>) -> Result<(), PaymentError> {
        let (at, name) = (visit.origin.clone(), visit.call.name().cloned());
        let take_on = move |books: &mut Books| {
            let unresolved = books.known(&at).and_then(|known| known.unresolved.as_mut());
            let Some(unresolved) = unresolved else { return };
            unresolved.covers = covers.unwrap_or(unresolved.covers);
            let payment = unresolved.id;
            if let Some(name) = name {
                books.set_paid(name, payment);
            }
        };
        self.purse.state.update(take_on).await.map_err(PaymentError::State)
    }

    /// Sets `amount` aside in one step with the decision about it.
    async fn hold(
        &self,
        visit: &Visit<'_>,
        price: Money,
        amount: Money,
        turn: Turn,
    ) -> Result<Box<Held>, Failure> {
        let asked = self.asked(visit, price, Some(amount));
        let policy = self.policy.clone();
        let hold = self.purse.hold(turn, &visit.origin, policy, asked, (self.clock)());
        match hold.await? {
            Answer::Held(held) => {
                self.purse.steps.at("held");
                Ok(held)
            }
            Answer::Not(Decision::Refuse(refusal)) => Err(Reason::Policy(refusal).into()),
            Answer::Not(Decision::Escalate(escalation)) => {
                Err(Reason::NobodyToAsk(escalation).into())
            }
            Answer::Not(Decision::Allow) => Err(Reason::NoOffer.into()),
        }
    }

    /// Writes a payment down; it may be sent when this returns. If it cannot be written, what
    /// stood there before stands again.
    async fn journal(
        &self,
        visit: &Visit<'_>,
        held: Box<Held>,
        unresolved: &Unresolved,
        price: Money,
        top_up: Option<TopUp>,
    ) -> Result<Turn, Failure> {
        let (name, payment) = (visit.call.name().cloned(), unresolved.id);
        let question = self.question_id(visit, price, Some(unresolved.hold.amount()));
        let change = move |books: &mut Books, origin: &Origin| {
            if let (Some(known), Some(top_up)) = (books.known(origin), top_up) {
                known.publishable_key.get_or_insert(top_up.publishable_key);
            }
            if let Some(name) = name {
                books.set_paid(name, payment);
            }
            if let Some(id) = question {
                books.unask(&id); // a yes is for one payment
            }
        };
        let turn = held.journal(change, unresolved.clone()).await?;
        self.purse.steps.at("journal");
        Ok(turn)
    }

    /// What is about to be paid by card, with the owner's yes if there is one.
    fn asked(&self, visit: &Visit<'_>, price: Money, top_up: Option<Money>) -> Asked {
        Asked {
            host: visit.origin.host().to_owned(),
            port: visit.origin.port(),
            price,
            top_up,
            approved: self.was_approved(visit, price, top_up),
        }
    }

    /// The payment under which a card was offered for this call before, also by another process.
    pub(crate) fn paid_under(&self, visit: &Visit<'_>) -> Option<HoldId> {
        let before = |name| self.purse.state.with(|books| books.paid_under(name));
        visit.call.paid_under().or_else(|| visit.call.name().and_then(before))
    }

    /// Whether this call may go on with that payment: one call is paid for once.
    pub(crate) fn may_go_on(&self, visit: &Visit<'_>, unresolved: &Unresolved) -> bool {
        self.paid_under(visit).is_none_or(|payment| payment == unresolved.id)
    }
}

/// Whether another call or process paid while this one waited for its turn; its outcome is this
/// one's.
fn elsewhere(visit: &mut Visit<'_>, known: &Glimpse) -> Result<Option<Paid>, PaymentError> {
    if visit.gate.sent_since(visit.seen) {
        if known.unresolved.is_some() {
            return Err(PaymentError::Unknown);
        }
        if let Some(code) = visit.gate.refused() {
            return Err(PaymentError::Declined(code));
        }
        return Ok(visit.detour().then_some(Paid::Elsewhere));
    }
    // Credit that was not tried yet.
    let tried = visit.tried.as_ref().map(|(credential, payments)| (Some(credential), *payments));
    let news = tried != Some((known.credential.as_ref(), known.payments));
    let credit = known.unresolved.is_none() && known.credential.is_some();
    Ok((news && credit && visit.detour()).then_some(Paid::Elsewhere))
}

/// What a hold pays for beyond a price.
fn rest(hold: &Hold, price: Money) -> Micros {
    hold.amount().micros().checked_sub(price.micros()).unwrap_or_default()
}

pub(crate) fn same_key(known: &Glimpse, publishable_key: &str) -> Result<(), Reason> {
    if !is_publishable_key(publishable_key) {
        return Err(Reason::PublishableKey);
    }
    match &known.publishable_key {
        Some(pinned) if pinned != publishable_key => Err(Reason::PublishableKeyChanged),
        _ => Ok(()),
    }
}
