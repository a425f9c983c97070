//! A request, one way through:
//!
//! ```text
//! request -> credential and last price known? -> policy(price) -> attach with maxAmount -> send
//!         -> 402? -> offer -> policy(price) -> credit, or a payment by card
//! ```
//!
//! A payment by card is in [`pay`](crate::pay), what its answer means in
//! [`outcome`](crate::outcome).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use farebox_policy::{Decision, Escalation, Policy, Request as Asked, Usage, decide};
use farebox_protocol::header::PAYMENT;
use farebox_protocol::{ErrorCode, Micros, Money, Offer, Payment};
use futures_util::future::BoxFuture;
use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};
use tracing::{debug, info};

use crate::agent::Clock;
use crate::answer;
use crate::approval::DynApprover;
use crate::books::{Books, Glimpse};
use crate::call::Call;
use crate::error::{PaymentError, Reason};
use crate::event::{Event, Events, Notice};
use crate::hold::Purse;
use crate::origin::Origin;
use crate::outgoing::{Outgoing, Template};
use crate::pay::Terms;
use crate::redirect;
use crate::source::DynPaymentSource;
use crate::spending::Tally;
use crate::visit::{Failure, Visit};

/// After a top-up ahead of need came to nothing, credit is spent for this long (seconds) before
/// the next one is tried.
const AHEAD_PAUSE: i64 = 60;

pub(crate) struct PaymentMiddleware {
    pub(crate) policy: Arc<Policy>,
    pub(crate) source: Option<Arc<dyn DynPaymentSource>>,
    pub(crate) purse: Purse,
    pub(crate) approver: Option<Arc<dyn DynApprover>>,
    pub(crate) approval_timeout: Duration,
    pub(crate) keep_credit: Option<Money>,
    /// The longest streamed body, in bytes, that is kept in memory.
    pub(crate) body_limit: usize,
    pub(crate) events: Events,
    pub(crate) tally: Arc<Tally>,
    pub(crate) clock: Clock,
    /// Whether what a crash left of holds was looked for.
    pub(crate) recovered: AtomicBool,
}

/// The answer to a first send without a payment, and how many payments there were before it.
struct FirstAnswer {
    seen: u64,
    response: Response,
}

/// How the next send is paid.
enum Attempt {
    Unpaid,
    /// From credit, up to this price.
    Credit(Money),
    /// By going on with an unresolved payment, for a route of this price.
    Resume(Money),
    /// By card although there is credit, so that it does not run out.
    Ahead(Money, Terms),
}

/// An offer that the policy allows, or the last price of a route.
pub(crate) struct Quote {
    pub(crate) price: Money,
    pub(crate) terms: Option<Terms>,
}

pub(crate) enum Paid {
    Served(Response),
    /// Another call topped up in the meantime: there is credit.
    Elsewhere,
}

/// Whether a price may be paid.
enum Permit {
    Allowed,
    Ask(Escalation),
    Refused(Reason),
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
        let may_pay = self.may_pay(&origin);
        if may_pay && !self.recovered.load(Ordering::Acquire) {
            self.recovered.store(true, Ordering::Release);
            Box::pin(self.purse.recover_all()).await;
        }
        if self.is_at_stake(&origin, may_pay, &request, extensions) {
            return self.run(origin, may_pay, Outgoing::new(request, extensions, next), None).await;
        }
        // Most calls are one send. What a payment needs is made once one is asked for.
        let (seen, template) = (self.purse.state.sent(), Template::of(&request));
        let response = redirect::scope(true, next.clone().run(request, extensions)).await?;
        if response.status() != StatusCode::PAYMENT_REQUIRED {
            return Ok(response);
        }
        let again = Outgoing::new(template.at(response.url().clone()), extensions, next);
        self.run(origin, may_pay, again, Some(FirstAnswer { seen, response })).await
    }
}

impl PaymentMiddleware {
    fn may_pay(&self, origin: &Origin) -> bool {
        origin.secure() && self.policy.allows(origin.host(), origin.port())
    }

    /// Whether a call has more to do than to send its request once as it is, or its request cannot
    /// be made again from its [`Template`].
    fn is_at_stake(
        &self,
        origin: &Origin,
        may_pay: bool,
        request: &Request,
        extensions: &Extensions,
    ) -> bool {
        !Template::suffices(request)
            || Call::is_under_way(extensions)
            || may_pay && self.purse.state.with(|books| books.is_customer(origin))
    }

    /// Brings a call to its end. In a box of its own, because most calls never come to it.
    fn run<'a>(
        &'a self,
        origin: Origin,
        may_pay: bool,
        request: Outgoing<'a>,
        first: Option<FirstAnswer>,
    ) -> BoxFuture<'a, reqwest_middleware::Result<Response>> {
        Box::pin(async move {
            let mut visit = Visit::new(origin, may_pay, &self.purse.state, request);
            let failure = match self.go(&mut visit, first).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            if let Failure::Payment(error) = &failure {
                info!(origin = visit.origin.key(), %error, "not served");
                if let PaymentError::Refused(reason) = error {
                    self.tell(&visit, || Event::refused(reason));
                }
            }
            Err(failure.into())
        })
    }

    /// From one send to the next, until there is an answer for the caller.
    async fn go(
        &self,
        visit: &mut Visit<'_>,
        mut first: Option<FirstAnswer>,
    ) -> Result<Response, Failure> {
        let mut attempt = match first {
            Some(_) => Attempt::Unpaid,
            None => self.begin(visit).await?,
        };
        loop {
            let response = match first.take() {
                Some(FirstAnswer { seen, response }) => {
                    visit.seen = seen;
                    response
                }
                None => match self.attempt(visit, &attempt).await? {
                    Paid::Served(response) => response,
                    Paid::Elsewhere => {
                        attempt = self.opening(visit)?;
                        continue;
                    }
                },
            };
            if matches!(attempt, Attempt::Resume(_) | Attempt::Ahead(..)) {
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
            let quote = self.choose(visit, required.accepts).await?;
            attempt = match self.credit_again(visit, &attempt, quote.price, required.error) {
                Some(credit) => credit,
                None => match self.pay(visit, &quote).await? {
                    Paid::Served(response) => return Ok(response),
                    Paid::Elsewhere => Attempt::Credit(quote.price),
                },
            };
        }
    }

    async fn begin(&self, visit: &mut Visit<'_>) -> Result<Attempt, Failure> {
        if let Some(ended) = visit.call.ended() {
            return Err(PaymentError::from(ended).into());
        }
        if visit.may_pay && visit.request.is_streamed() {
            visit.request.keep_body(self.body_limit).await?;
        }
        Ok(self.opening(visit)?)
    }

    /// Whether the server's word that it took nothing is believed.
    pub(crate) fn trusts(&self, visit: &Visit<'_>) -> bool {
        self.policy.trusts(visit.origin.host(), visit.origin.port())
    }

    /// What is known already decides how the first send is paid.
    fn opening(&self, visit: &mut Visit<'_>) -> Result<Attempt, PaymentError> {
        if !visit.may_pay {
            return Ok(Attempt::Unpaid);
        }
        if !visit.request.is_safe() {
            visit.key()?;
        }
        let known = self.glimpse(visit);
        let permitted = |price: &Money| matches!(self.permit(visit, *price), Permit::Allowed);
        let price = known.price.filter(permitted);
        // While another call is about to pay, its payment is in flight rather than unresolved.
        if let Some(unresolved) = &known.unresolved
            && !visit.gate.is_busy()
            && self.may_go_on(visit, unresolved)
        {
            return Ok(price.map_or(Attempt::Unpaid, Attempt::Resume));
        }
        // A v1 server ignores `maxAmount`: without a price it is asked first.
        let cap = || if known.extended { self.cap(visit) } else { None };
        let credit = known.credential.as_ref().and_then(|_| price.or_else(cap));
        Ok(match (credit, price) {
            (None, _) => Attempt::Unpaid,
            (Some(max), None) => Attempt::Credit(max),
            (Some(_), Some(price)) => match self.ahead(visit, &known, price) {
                Some(terms) => Attempt::Ahead(price, terms),
                None => Attempt::Credit(price),
            },
        })
    }

    /// How to top up ahead of need, if this request would leave less credit than the owner wants
    /// to have.
    fn ahead(&self, visit: &Visit<'_>, known: &Glimpse, price: Money) -> Option<Terms> {
        let mark = self.keep_credit.filter(|mark| mark.currency() == price.currency())?;
        let left = visit.gate.remaining().filter(|left| left.currency() == price.currency())?;
        let after = left.micros().checked_sub(price.micros()).unwrap_or(Micros::ZERO);
        let paused = visit.gate.unwanted_at();
        let soon = paused.is_some_and(|at| (self.clock)().saturating_sub(at) < AHEAD_PAUSE);
        // A v1 server would not know what is wanted.
        if after >= mark.micros() || soon || !known.extended || !visit.request.can_send() {
            return None;
        }
        // One payment by card per call, and one call at a time that waits for it.
        if self.paid_under(visit).is_some() || visit.gate.is_busy() {
            return None;
        }
        let bounds = known.bounds.as_ref().filter(|b| b.currency == price.currency())?;
        let publishable_key = known.publishable_key.clone()?;
        Some(Terms { publishable_key, min: bounds.min, max: bounds.max, min_credit: Some(mark) })
    }

    async fn attempt(&self, visit: &mut Visit<'_>, attempt: &Attempt) -> Result<Paid, Failure> {
        visit.seen = self.purse.state.sent();
        match attempt {
            Attempt::Unpaid => self.send_unpaid(visit).await.map(Paid::Served),
            Attempt::Credit(max) => self.spend(visit, *max).await.map(Paid::Served),
            Attempt::Resume(price) => self.pay(visit, &Quote { price: *price, terms: None }).await,
            Attempt::Ahead(price, terms) => {
                let quote = Quote { price: *price, terms: Some(terms.clone()) };
                let paid = self.pay(visit, &quote).await;
                let Err(Failure::Payment(error)) = paid else { return paid };
                // Nothing was taken, and there is credit.
                visit.gate.set_unwanted((self.clock)());
                if error.is_unknown() || !visit.detour() {
                    return Err(error.into());
                }
                debug!(origin = visit.origin.key(), %error, "not topped up ahead of need");
                self.spend(visit, *price).await.map(Paid::Served)
            }
        }
    }

    /// Sends the request as its caller made it, unless its price must be asked without its body.
    async fn send_unpaid(&self, visit: &mut Visit<'_>) -> Result<Response, Failure> {
        if visit.may_pay && visit.request.asks_first() {
            let answer = visit.request.ask().await?;
            if answer.status() == StatusCode::PAYMENT_REQUIRED {
                return Ok(answer);
            }
        }
        visit.request.send(None).await
    }

    /// Sends the request with the credential, up to a price.
    async fn spend(&self, visit: &mut Visit<'_>, max: Money) -> Result<Response, Failure> {
        let known = self.glimpse(visit);
        visit.tried = known.credential.clone().map(|credential| (credential, known.payments));
        let payment = Payment {
            client_id: known.credential,
            max_amount: Some(max.micros().units_floor()),
            currency: Some(max.currency()),
            ..Payment::default()
        };
        let flight = visit.gate.depart();
        let mut response = visit.request.send(Some(&payment)).await?;
        self.credited(visit, &mut response, max, &flight).await;
        Ok(response)
    }

    /// Whether a route that was sent a credential only redirects. It took no payment, so the
    /// caller's redirect policy may have it without one.
    fn led_away(&self, visit: &mut Visit<'_>, attempt: &Attempt, response: &Response) -> bool {
        matches!(attempt, Attempt::Credit(_))
            && response.status().is_redirection()
            && visit.request.is_safe()
            && answer::payment_response(response).is_none()
            && visit.detour()
    }

    /// The cheapest offer that the policy allows, or the first one that its owner does, or why
    /// there is none.
    async fn choose(&self, visit: &mut Visit<'_>, offers: Vec<Offer>) -> Result<Quote, Failure> {
        let (mut best, mut refused, mut asks) = (None, None, None);
        for offer in offers {
            let price = Money::new(offer.amount.micros(), offer.currency);
            let min_top_up = Money::new(offer.min_top_up.micros(), offer.currency);
            debug!(origin = visit.origin.key(), %price, "offer seen");
            self.tell(visit, || Event::OfferSeen { price, min_top_up });
            match self.permit(visit, price) {
                Permit::Allowed if best.as_ref().is_none_or(|(_, b)| cheaper(price, *b)) => {
                    best = Some((offer, price));
                }
                Permit::Allowed => {}
                Permit::Ask(escalation) => asks = asks.or(Some((offer, price, escalation))),
                Permit::Refused(reason) => refused = refused.or(Some(reason)),
            }
        }
        if let Some((offer, price)) = best {
            return Ok(self.take(visit, &offer, price).await);
        }
        let Some((offer, price, escalation)) = asks else {
            return Err(refused.unwrap_or(Reason::NoOffer).into());
        };
        // Without credit the price is part of the question about the top-up.
        if self.glimpse(visit).credential.is_some() {
            self.approve(visit, price, None, escalation).await?;
        }
        Ok(self.take(visit, &offer, price).await)
    }

    async fn take(&self, visit: &Visit<'_>, offer: &Offer, price: Money) -> Quote {
        let state = &self.purse.state;
        if state.with(|books| books.is_news(&visit.origin, &visit.route, offer)) {
            let (at, route, said) = (visit.origin.clone(), visit.route.clone(), offer.clone());
            state.keep(move |books: &mut Books| books.learn(&at, &route, &said)).await;
        }
        Quote { price, terms: Some(Terms::of(offer)) }
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
            Attempt::Resume(_) | Attempt::Ahead(..) => false,
        };
        (promising && visit.detour()).then_some(Attempt::Credit(price))
    }

    /// Whether the owner and the caller allow this price at this origin.
    fn permit(&self, visit: &Visit<'_>, price: Money) -> Permit {
        if !visit.origin.secure() {
            return Permit::Refused(Reason::Insecure);
        }
        if let Some(max) = visit.max_price
            && (max.currency() != price.currency() || price.micros() > max.micros())
        {
            return Permit::Refused(Reason::MaxPrice { price, max });
        }
        let asked = Asked::new(visit.origin.host(), visit.origin.port(), price);
        match self.purse.budget.with_last_usage(|usage| self.decide(usage, &asked)) {
            Decision::Allow => Permit::Allowed,
            Decision::Escalate(_) if self.was_approved(visit, price, None) => Permit::Allowed,
            Decision::Escalate(escalation) => Permit::Ask(escalation),
            Decision::Refuse(refusal) => Permit::Refused(Reason::Policy(refusal)),
        }
    }

    pub(crate) fn decide(&self, usage: &Usage, asked: &Asked<'_>) -> Decision {
        decide(&self.policy, usage, asked, (self.clock)()).0
    }

    /// The highest price that is allowed without asking.
    fn cap(&self, visit: &Visit<'_>) -> Option<Money> {
        let limit = self.policy.max_price(visit.origin.host(), visit.origin.port())?;
        let cap = match visit.max_price {
            None => limit,
            Some(max) if max.currency() != limit.currency() => return None,
            Some(max) => {
                if max.micros() < limit.micros() {
                    max
                } else {
                    limit
                }
            }
        };
        matches!(self.permit(visit, cap), Permit::Allowed).then_some(cap)
    }

    pub(crate) fn glimpse(&self, visit: &Visit<'_>) -> Glimpse {
        self.purse.state.glimpse(&visit.origin, &visit.route)
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, visit: &Visit<'_>, event: impl FnOnce() -> Event) {
        if self.events.heard() {
            self.events.tell(Notice {
                at: (self.clock)(),
                origin: visit.origin.key().to_owned(),
                route: visit.route.clone(),
                event: event(),
            });
        }
    }
}

/// Prices in two currencies are not compared: the server's order decides.
fn cheaper(price: Money, than: Money) -> bool {
    price.currency() == than.currency() && price.micros() < than.micros()
}
