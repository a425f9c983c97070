//! A request, one way through:
//!
//! ```text
//! request -> credential and last price known? -> policy(price) -> attach with maxAmount -> send
//!         -> 402? -> offer -> policy(price, top-up) -> hold -> journal -> pay -> close the hold
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farebox_policy::{Decision, Hold, Policy, Request as Asked, decide};
use farebox_protocol::header::PAYMENT;
use farebox_protocol::{ErrorCode, Micros, Money, Offer, Payment, PaymentResponse, TopUpId};
use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};
use tracing::{debug, info, warn};

use crate::agent::Clock;
use crate::answer::{self, Verdict};
use crate::books::{Glimpse, Unresolved};
use crate::call::Ended;
use crate::card::Card;
use crate::error::{PaymentError, Reason};
use crate::origin::Origin;
use crate::receipt::Receipt;
use crate::redirect;
use crate::state::State;
use crate::tokenizer::{Tokenizer, is_publishable_key};
use crate::visit::{Failure, Visit};

/// A server that is silent for longer has left the outcome unknown. Stripe's own answer takes
/// at most 80 seconds.
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct PaymentMiddleware {
    pub(crate) policy: Arc<Policy>,
    pub(crate) card: Option<Arc<Card>>,
    pub(crate) state: Arc<State>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) clock: Clock,
}

/// How the next send is paid.
enum Attempt {
    Unpaid,
    /// From credit, up to this price.
    Credit(Money),
    /// By going on with an unresolved payment, for a route of this price.
    Resume(Money),
}

/// An offer that the policy allows, or the last price of a route.
struct Quote {
    price: Money,
    offer: Option<Offer>,
}

enum Paid {
    Served(Response),
    /// Another call topped up in the meantime: there is credit.
    Elsewhere,
}

/// A payment that is in the journal and not answered yet.
struct Opened {
    unresolved: Unresolved,
    price: Money,
    /// Not a payment that was sent before.
    fresh: bool,
    /// The hold is for this send alone, so an answer to it decides about the hold.
    own_hold: bool,
}

impl Opened {
    /// Whether a refusal names the top-up that this payment went on with: it ended without money.
    fn is_about(&self, top_up: Option<TopUpId>) -> bool {
        top_up.is_some() && top_up == self.unresolved.top_up_id
    }
}

#[async_trait]
impl Middleware for PaymentMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        // A caller that brings its own payment pays for itself.
        let brought = request.headers().contains_key(&PAYMENT);
        let Some(origin) = Origin::of(request.url()).filter(|_| !brought) else {
            return redirect::scope(false, next.run(request, extensions)).await;
        };
        let mut visit = Visit::new(origin, &self.state, request, extensions, next);
        let served = self.run(&mut visit).await;
        if visit.learnt {
            self.keep().await;
        }
        served.map_err(|failure| match failure {
            Failure::Http(error) => error,
            Failure::Payment(error) => {
                info!(origin = visit.origin.key(), %error, "not served");
                reqwest_middleware::Error::middleware(error)
            }
        })
    }
}

impl PaymentMiddleware {
    async fn run(&self, visit: &mut Visit<'_>) -> Result<Response, Failure> {
        if let Some(ended) = visit.call.ended() {
            return Err(PaymentError::from(ended).into());
        }
        let mut attempt = self.opening(visit)?;
        loop {
            visit.seen = visit.gate.sent();
            let response = match self.attempt(visit, &attempt).await? {
                Paid::Served(response) => response,
                Paid::Elsewhere => {
                    attempt = self.opening(visit)?;
                    continue;
                }
            };
            if matches!(attempt, Attempt::Resume(_)) {
                return Ok(response);
            }
            if response.status() != StatusCode::PAYMENT_REQUIRED {
                if self.led_away(visit, &attempt, &response) {
                    attempt = Attempt::Unpaid;
                    continue;
                }
                return Ok(response);
            }
            let (response, required) = answer::payment_required(response).await;
            let Some(required) = required.filter(|required| !required.accepts.is_empty()) else {
                return Ok(response);
            };
            visit.arrive(response.url())?;
            let quote = self.choose(visit, required.accepts)?;
            attempt = match self.credit_again(visit, &attempt, quote.price, required.error) {
                Some(credit) => credit,
                None => match self.pay(visit, &quote).await? {
                    Paid::Served(response) => return Ok(response),
                    Paid::Elsewhere => Attempt::Credit(quote.price),
                },
            };
        }
    }

    /// What is known already decides how the first send is paid.
    fn opening(&self, visit: &mut Visit<'_>) -> Result<Attempt, PaymentError> {
        let origin = &visit.origin;
        if !origin.secure() || !self.policy.allows(origin.host(), origin.port()) {
            return Ok(Attempt::Unpaid);
        }
        if !visit.is_safe() {
            visit.key()?;
        }
        let known = self.glimpse(visit);
        let price = known.price.filter(|price| self.permit(visit, *price).is_ok());
        // While another call is about to pay, its payment is in flight rather than unresolved.
        if known.unresolved.is_some() && visit.gate.turn.try_lock().is_ok() {
            return Ok(price.map_or(Attempt::Unpaid, Attempt::Resume));
        }
        // A v1 server ignores `maxAmount`: without a price it is asked first.
        let cap = self.cap(visit).filter(|_| known.extended);
        let credit = price.or(cap).filter(|_| known.credential.is_some());
        Ok(credit.map_or(Attempt::Unpaid, Attempt::Credit))
    }

    async fn attempt(&self, visit: &mut Visit<'_>, attempt: &Attempt) -> Result<Paid, Failure> {
        match attempt {
            Attempt::Unpaid => visit.send(None).await.map(Paid::Served),
            Attempt::Credit(max) => {
                let payment = Payment {
                    client_id: self.glimpse(visit).credential,
                    max_amount: Some(max.micros().units_floor()),
                    currency: Some(max.currency()),
                    ..Payment::default()
                };
                let mut response = visit.send(Some(&payment)).await?;
                self.credited(visit, &mut response, *max);
                Ok(Paid::Served(response))
            }
            Attempt::Resume(price) => {
                let quote = Quote { price: *price, offer: None };
                self.pay(visit, &quote).await
            }
        }
    }

    /// Whether a route that was sent a credential only redirects. It took no payment, so the
    /// caller's redirect policy may have it without one.
    fn led_away(&self, visit: &mut Visit<'_>, attempt: &Attempt, response: &Response) -> bool {
        matches!(attempt, Attempt::Credit(_))
            && response.status().is_redirection()
            && visit.is_safe()
            && answer::payment_response(response).is_none()
            && visit.detour()
    }

    /// The first offer that the policy allows, or why it allows none.
    fn choose(&self, visit: &mut Visit<'_>, offers: Vec<Offer>) -> Result<Quote, Reason> {
        let mut first = None;
        for offer in offers {
            let price = Money::new(offer.amount.micros(), offer.currency);
            debug!(origin = visit.origin.key(), %price, "offer seen");
            match self.permit(visit, price) {
                Ok(()) => {
                    visit.learnt |= self.state.books().learn(&visit.origin, &visit.route, &offer);
                    return Ok(Quote { price, offer: Some(offer) });
                }
                Err(reason) => first = first.or(Some(reason)),
            }
        }
        Err(first.unwrap_or(Reason::NoOffer))
    }

    /// Another send from credit, if that may do: a credential that was not sent yet, or a price
    /// that rose within the limits.
    fn credit_again(
        &self,
        visit: &mut Visit<'_>,
        sent: &Attempt,
        price: Money,
        error: Option<ErrorCode>,
    ) -> Option<Attempt> {
        let known = self.glimpse(visit);
        let promising = match sent {
            Attempt::Unpaid => known.credential.is_some() && known.unresolved.is_none(),
            Attempt::Credit(_) => error == Some(ErrorCode::PriceAboveMaximum),
            Attempt::Resume(_) => false,
        };
        (promising && visit.detour()).then_some(Attempt::Credit(price))
    }

    /// Pays by card: the one payment of this call.
    async fn pay(&self, visit: &mut Visit<'_>, quote: &Quote) -> Result<Paid, Failure> {
        if !visit.can_send() {
            return Err(PaymentError::BodyNotReplayable.into());
        }
        visit.key()?;
        let gate = Arc::clone(&visit.gate);
        let _turn = gate.turn.lock().await;
        let known = self.glimpse(visit);
        if gate.sent() != visit.seen {
            // Another call paid while this one waited for its turn; its outcome is this one's.
            if known.unresolved.is_some() {
                return Err(PaymentError::Unknown.into());
            }
            if let Some(code) = gate.refused() {
                return Err(PaymentError::Declined(code).into());
            }
            if visit.detour() {
                return Ok(Paid::Elsewhere);
            }
        }
        let opened = match (known.unresolved.clone(), &quote.offer) {
            (Some(unresolved), _) => self.resume(visit, quote, &known, unresolved).await?,
            (None, Some(offer)) => self.open(visit, quote.price, offer, &known).await?,
            (None, None) => return Ok(Paid::Elsewhere),
        };
        let payment = Payment {
            client_id: known.credential,
            payment_method_id: Some(opened.unresolved.payment_method.clone()),
            top_up_amount: Some(opened.unresolved.hold.amount().micros().units_ceil()),
            max_amount: Some(quote.price.micros().units_floor()),
            currency: Some(quote.price.currency()),
            top_up_id: opened.unresolved.top_up_id,
            ..Payment::default()
        };
        gate.set_sent();
        visit.call.set_paid();
        let sent = tokio::time::timeout(PAYMENT_TIMEOUT, visit.send(Some(&payment))).await;
        let Ok(Ok(response)) = sent else {
            warn!(origin = visit.origin.key(), "no answer to a payment: its outcome is unknown");
            return Err(PaymentError::Unknown.into());
        };
        let (response, verdict) = answer::verdict(response).await;
        Ok(Paid::Served(self.close(visit, opened, response, verdict).await?))
    }

    /// A new top-up: held, tokenized and in the journal when this returns.
    async fn open(
        &self,
        visit: &Visit<'_>,
        price: Money,
        offer: &Offer,
        known: &Glimpse,
    ) -> Result<Opened, Failure> {
        if visit.call.paid() {
            return Err(visit.call.end(Ended::PaidButRefused).into());
        }
        same_key(known, offer)?;
        let held = self.hold(visit, price, top_up_amount(offer, price)?)?;
        let card = self.card.as_deref().ok_or(PaymentError::NoCard)?;
        let payment_method = self.tokenizer.payment_method(card, &offer.publishable_key).await?;
        let unresolved = Unresolved {
            payment_method,
            hold: held.hold.clone(),
            covers: rest(&held.hold, price),
            top_up_id: None,
            asked_again: false,
        };
        self.journal(visit, held, &unresolved, Some(&offer.publishable_key)).await?;
        Ok(Opened { unresolved, price, fresh: true, own_hold: true })
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
    ) -> Result<Opened, Failure> {
        if let Some(offer) = &quote.offer {
            same_key(known, offer)?;
        }
        let price = quote.price;
        debug!(origin = visit.origin.key(), "going on with an unresolved payment");
        if unresolved.top_up_id.is_some() {
            return Ok(Opened { unresolved, price, fresh: false, own_hold: false });
        }
        if known.extended
            && let Some(covers) = unresolved.covers_after(price)
        {
            self.amend(visit, |unresolved| unresolved.covers = covers);
            self.state.save().await.map_err(PaymentError::State)?;
            return Ok(Opened { unresolved, price, fresh: false, own_hold: false });
        }
        if unresolved.asked_again && !known.extended {
            return Err(visit.call.end(Ended::PaidButRefused).into());
        }
        if visit.call.paid() {
            return Err(PaymentError::Unknown.into());
        }
        let held = self.hold(visit, price, unresolved.hold.amount())?;
        unresolved.hold = held.hold.clone();
        unresolved.covers = rest(&held.hold, price);
        self.journal(visit, held, &unresolved, None).await?;
        Ok(Opened { unresolved, price, fresh: false, own_hold: true })
    }

    /// What the answer to a payment means for its hold, its journal entry and the caller.
    async fn close(
        &self,
        visit: &Visit<'_>,
        opened: Opened,
        mut response: Response,
        verdict: Verdict,
    ) -> Result<Response, PaymentError> {
        let origin = visit.origin.key();
        visit.gate.set_sent(); // also whoever began after the payment was sent looks again
        match verdict {
            Verdict::Accepted(told) => {
                self.accept(visit, &opened, &mut response, &told);
                self.keep().await;
                Ok(response)
            }
            Verdict::Refused(code, about)
                if opened.fresh || ends_top_up(code) || opened.is_about(about) =>
            {
                self.refuse(visit, &opened, code, about);
                self.keep().await;
                Err(visit.call.end(Ended::Declined(code)))
            }
            Verdict::AskedAgain => {
                warn!(origin, "paid, and asked to pay again");
                self.amend(visit, |unresolved| unresolved.asked_again = true);
                self.keep().await;
                Err(visit.call.end(Ended::PaidButRefused))
            }
            Verdict::Pending(id) => {
                info!(origin, "the charge is pending");
                self.amend(visit, |unresolved| {
                    unresolved.top_up_id = id.or(unresolved.top_up_id);
                    unresolved.asked_again = false;
                });
                if let Some(known) = self.state.books().entry(&visit.origin) {
                    known.extended = true;
                }
                self.keep().await;
                Err(PaymentError::Unknown)
            }
            Verdict::Untold => {
                warn!(origin, "served without a word about the payment: its outcome is unknown");
                Ok(response)
            }
            // A refusal of the repeat says nothing about the payment that it repeats.
            Verdict::Refused(..) | Verdict::Unknown => {
                warn!(origin, "the outcome of a payment is unknown");
                Err(PaymentError::Unknown)
            }
        }
    }

    fn accept(
        &self,
        visit: &Visit<'_>,
        opened: &Opened,
        response: &mut Response,
        told: &PaymentResponse,
    ) {
        let hold = &opened.unresolved.hold;
        let topped_up = told.charge_id.is_some() || told.top_up_id.is_some();
        {
            let mut books = self.state.books();
            books.resolve(&visit.origin);
            if opened.own_hold && !topped_up {
                // Credit that was there already paid for it.
                books.release(hold);
            }
        }
        self.remember(visit, told);
        let receipt = receipt(told, opened.price, topped_up.then(|| hold.amount()));
        info!(
            origin = visit.origin.key(),
            top_up = receipt.top_up.map(tracing::field::display),
            remaining = %receipt.remaining,
            "paid by card"
        );
        overcharged(visit, &receipt, opened.price);
        response.extensions_mut().insert(receipt);
    }

    fn refuse(&self, visit: &Visit<'_>, opened: &Opened, code: ErrorCode, about: Option<TopUpId>) {
        let refused_card =
            matches!(code, ErrorCode::CardDeclined | ErrorCode::AuthenticationRequired);
        let mut books = self.state.books();
        books.resolve(&visit.origin);
        // A repeat that was refused otherwise leaves open what became of the first payment.
        if opened.own_hold || refused_card || opened.is_about(about) {
            books.release(&opened.unresolved.hold);
        }
        if let (ErrorCode::PriceAboveMaximum, Some(known)) = (code, books.entry(&visit.origin)) {
            known.forget_price(&visit.route);
        }
        if refused_card {
            visit.gate.set_refused(code);
        }
    }

    /// The answer to a payment from credit.
    fn credited(&self, visit: &mut Visit<'_>, response: &mut Response, max: Money) {
        if response.status() == StatusCode::PAYMENT_REQUIRED {
            return;
        }
        let told = answer::payment_response(response).filter(|told| told.success);
        let Some(told) = told else { return };
        visit.learnt |= self.remember(visit, &told);
        let receipt = receipt(&told, max, None);
        debug!(origin = visit.origin.key(), remaining = %receipt.remaining, "paid from credit");
        overcharged(visit, &receipt, max);
        response.extensions_mut().insert(receipt);
    }

    /// Keeps the credential of an accepted payment; true if anything is news.
    fn remember(&self, visit: &Visit<'_>, told: &PaymentResponse) -> bool {
        let mut books = self.state.books();
        let Some(known) = books.entry(&visit.origin) else { return false };
        let credential = told.client_id.parse().ok();
        let news = credential.is_some() && credential != known.credential
            || told.charged.is_some() && !known.extended;
        known.credential = credential.or_else(|| known.credential.take());
        known.extended |= told.charged.is_some();
        news
    }

    fn amend(&self, visit: &Visit<'_>, change: impl FnOnce(&mut Unresolved)) {
        let mut books = self.state.books();
        if let Some(unresolved) = books.entry(&visit.origin).and_then(|k| k.unresolved.as_mut()) {
            change(unresolved);
        }
    }

    /// Whether the owner and the caller allow this price at this origin.
    fn permit(&self, visit: &Visit<'_>, price: Money) -> Result<(), Reason> {
        if !visit.origin.secure() {
            return Err(Reason::Insecure);
        }
        if let Some(max) = visit.max_price
            && (max.currency() != price.currency() || price.micros() > max.micros())
        {
            return Err(Reason::MaxPrice { price, max });
        }
        let asked = Asked::new(visit.origin.host(), visit.origin.port(), price);
        let books = self.state.books();
        match decide(&self.policy, &books.usage, &asked, (self.clock)()).0 {
            Decision::Allow => Ok(()),
            Decision::Refuse(refusal) => Err(Reason::Policy(refusal)),
            Decision::Escalate(_) => Err(Reason::NoOffer),
        }
    }

    /// Sets `amount` aside in one step with the decision about it.
    fn hold(&self, visit: &Visit<'_>, price: Money, amount: Money) -> Result<Held<'_>, Reason> {
        let asked = Asked::new(visit.origin.host(), visit.origin.port(), price).top_up(amount);
        let now = (self.clock)();
        let mut books = self.state.books();
        let (decision, usage) = decide(&self.policy, &books.usage, &asked, now);
        match (decision, asked.hold(now).zip(usage)) {
            (Decision::Refuse(refusal), _) => Err(Reason::Policy(refusal)),
            (Decision::Allow, None) | (Decision::Escalate(_), _) => Err(Reason::NoOffer),
            (Decision::Allow, Some((hold, usage))) => {
                books.usage = usage;
                Ok(Held { state: &self.state, hold, kept: false })
            }
        }
    }

    /// Writes a payment down; it may be sent when this returns. If it cannot be written, the
    /// entry that was there before stands again.
    async fn journal(
        &self,
        visit: &Visit<'_>,
        mut held: Held<'_>,
        unresolved: &Unresolved,
        publishable_key: Option<&str>,
    ) -> Result<(), Failure> {
        let before = {
            let mut books = self.state.books();
            let known = books.entry(&visit.origin).ok_or(Reason::TooManyOrigins)?;
            if known.publishable_key.is_none() {
                known.publishable_key = publishable_key.map(str::to_owned);
            }
            known.unresolved.replace(unresolved.clone())
        };
        // From here on the entry owns the hold, also if this future is dropped.
        held.kept = true;
        let Err(error) = self.state.save().await else { return Ok(()) };
        held.kept = false;
        if let Some(known) = self.state.books().entry(&visit.origin) {
            known.unresolved = before;
        }
        Err(PaymentError::State(error).into())
    }

    /// Writes what an answer changed. The money is where it is: a failure is told to the log.
    async fn keep(&self) {
        if let Err(error) = self.state.save().await {
            warn!(%error, "the state was not written");
        }
    }

    /// The highest price that is allowed without asking.
    fn cap(&self, visit: &Visit<'_>) -> Option<Money> {
        let limit = self.policy.limits().per_request?;
        match visit.max_price {
            None => Some(limit),
            Some(max) if max.currency() != limit.currency() => None,
            Some(max) => Some(if max.micros() < limit.micros() { max } else { limit }),
        }
    }

    fn glimpse(&self, visit: &Visit<'_>) -> Glimpse {
        self.state.books().glimpse(&visit.origin, &visit.route)
    }
}

/// A hold that goes back when it is dropped, unless the journal keeps it.
struct Held<'a> {
    state: &'a State,
    hold: Hold,
    kept: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.state.books().release(&self.hold);
        }
    }
}

/// What a hold pays for beyond a price.
fn rest(hold: &Hold, price: Money) -> Micros {
    hold.amount().micros().checked_sub(price.micros()).unwrap_or_default()
}

fn same_key(known: &Glimpse, offer: &Offer) -> Result<(), Reason> {
    if !is_publishable_key(&offer.publishable_key) {
        return Err(Reason::PublishableKey);
    }
    match &known.publishable_key {
        Some(pinned) if *pinned != offer.publishable_key => Err(Reason::PublishableKeyChanged),
        _ => Ok(()),
    }
}

/// The smallest top-up that the server takes and that pays for this request, in what a card can
/// be charged.
fn top_up_amount(offer: &Offer, price: Money) -> Result<Money, Reason> {
    let least = offer.min_top_up.micros().max(price.micros());
    let needed = offer.currency.chargeable(least).unwrap_or(least);
    match offer.max_top_up.map(|max| max.micros()) {
        Some(max) if needed > max => Err(Reason::TopUpBounds {
            needed: Money::new(needed, offer.currency),
            max: Money::new(max, offer.currency),
        }),
        _ => Ok(Money::new(needed, offer.currency)),
    }
}

/// Codes that end a top-up that was sent before.
fn ends_top_up(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CardDeclined
            | ErrorCode::AuthenticationRequired
            | ErrorCode::InvalidPayment
            | ErrorCode::TopUpBelowMinimum
            | ErrorCode::TopUpAboveMaximum
    )
}

fn receipt(told: &PaymentResponse, price: Money, top_up: Option<Money>) -> Receipt {
    let currency = told.currency.unwrap_or(price.currency());
    Receipt {
        charged: told.charged.map(|units| Money::new(units.micros(), currency)),
        remaining: Money::new(told.credits_remaining.micros(), currency),
        top_up,
        charge_id: told.charge_id.clone(),
        top_up_id: told.top_up_id,
    }
}

/// A server that takes more than `maxAmount` breaks the protocol; its owner should hear of it.
fn overcharged(visit: &Visit<'_>, receipt: &Receipt, max: Money) {
    if let Some(charged) = receipt.charged
        && (charged.currency() != max.currency() || charged.micros() > max.micros())
    {
        warn!(origin = visit.origin.key(), %charged, %max, "charged more than was allowed");
    }
}
