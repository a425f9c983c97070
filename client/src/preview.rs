//! What a request would cost, and what the policy would say to it, without paying.
//!
//! A request that changes nothing (GET, HEAD, OPTIONS, TRACE) is sent once, without a payment:
//! the answer is the price, or whatever a free route answers. Any other is not sent, because a
//! free route would carry it out; its price is the last one that its server named, if there is
//! one. Nothing is held, and nothing is written down.
//!
//! ```no_run
//! use farebox_client::{Agent, Policy, usd};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let agent = Agent::new(Policy::new().allow("api.example.com").per_request(usd!("0.05")));
//! let url = "https://api.example.com/joke".parse()?;
//! let request = reqwest::Request::new(reqwest::Method::GET, url);
//! let preview = agent.preview(reqwest::Client::builder(), request, None).await?;
//! for proposal in &preview.proposals {
//!     println!("{}", proposal.explanation);
//! }
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use farebox_policy::{Decision, Explanation, Policy, Request as Asked, explain};
use farebox_protocol::{Money, Offer, Units};
use http::{Method, StatusCode};
use reqwest::Request;
use reqwest_middleware::ClientWithMiddleware;
use serde::{Serialize, Serializer};

use crate::answer;
use crate::books::Glimpse;
use crate::budget::BudgetError;
use crate::error::{ConfigError, PaymentError, Reason, StateError};
use crate::hold::Purse;
use crate::origin::{Origin, route};
use crate::pay::{Terms, same_key};
use crate::receipt::MaxPrice;
use crate::redirect;
use crate::spending::{Spending, Tally};

/// What a request would cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Preview {
    /// Scheme, host and port: `https://api.example.com`.
    pub origin: String,
    /// Method and path: `GET /joke`.
    pub route: String,
    /// The status of the answer to the unpaid request; `None` if it was not sent.
    pub status: Option<u16>,
    /// Whether there is a credential for credit at this server.
    pub credential: bool,
    /// What could be spent there when it was last heard of.
    pub credit: Vec<Money>,
    /// A payment by card is open there: it would be gone on with, instead of another one.
    pub unresolved: Option<Money>,
    /// What the server offers, in its order. Empty: it asks for nothing that can be paid.
    pub proposals: Vec<Proposal>,
}

/// One offer, and what would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Proposal {
    /// What one request costs.
    pub price: Money,
    /// The smallest top-up that the server takes.
    pub min_top_up: Option<Money>,
    /// The largest.
    pub max_top_up: Option<Money>,
    /// What the policy says: about the price alone where there is credit for it, and about the
    /// price and a top-up where there is none.
    pub explanation: Explanation,
    /// Another rule, of this client, that forbids it.
    #[serde(serialize_with = "in_words")]
    pub refused: Option<Reason>,
}

/// Why there is no preview. Nothing was paid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreviewError {
    /// The request may change something, so it is not sent unpaid, and its server named no price
    /// for it before. The program must pay for it or do without a preview.
    #[error(
        "{0} may change something, so it is not sent only to ask for its price, and no price is \
         known yet"
    )]
    Unsafe(Method),
    /// The URL, or the settings of the client.
    #[error(transparent)]
    Config(ConfigError),
    /// The request failed.
    #[error(transparent)]
    Http(reqwest_middleware::Error),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The budget cannot be read.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

impl PreviewError {
    /// The payment's error, if one is the reason: a guarded address.
    pub fn payment(&self) -> Option<&PaymentError> {
        match self {
            PreviewError::Http(error) => crate::error::PaymentErrorExt::payment(error),
            _ => None,
        }
    }
}

impl Proposal {
    /// Whether it would be paid without asking anybody.
    pub fn is_allowed(&self) -> bool {
        self.refused.is_none() && self.explanation.decision == Decision::Allow
    }
}

fn in_words<S: Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    match reason {
        Some(reason) => serializer.collect_str(reason),
        None => serializer.serialize_none(),
    }
}

/// What a preview looks at.
pub(crate) struct Look<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) purse: Purse,
    pub(crate) tally: &'a Arc<Tally>,
    pub(crate) http: ClientWithMiddleware,
    pub(crate) now: i64,
}

/// An offer of a server, or what is remembered of one.
struct Terse {
    price: Money,
    min: Option<Units>,
    max: Option<Units>,
    top_up: Result<Option<Money>, Reason>,
}

impl Look<'_> {
    pub(crate) async fn at(
        self,
        request: Request,
        max: Option<MaxPrice>,
    ) -> Result<Preview, PreviewError> {
        let at = Origin::of(request.url()).ok_or(PreviewError::Config(ConfigError::Url))?;
        let route = route(request.method(), request.url());
        self.purse.state.refresh().await?;
        let known = self.purse.state.glimpse(&at, &route);
        let spending = self.tally.read().await?;
        let credit = credit(&spending, &at);
        let (status, mut elsewhere, terms) = match request.method().is_safe() {
            true => self.ask(request, &at, &known).await?,
            false => (
                None,
                false,
                vec![
                    remembered(&known)
                        .ok_or_else(|| PreviewError::Unsafe(request.method().clone()))?,
                ],
            ),
        };
        elsewhere &= !terms.is_empty();
        let usage = self.purse.budget.usage().await?;
        let propose = |terse: Terse| {
            let Terse { price, min, max: most, top_up } = terse;
            let in_currency = |units: Units| Money::new(units.micros(), price.currency());
            let enough = |credit: &Money| credit.micros() >= price.micros();
            let left = credit.iter().find(|left| left.currency() == price.currency());
            let from_credit = known.credential.is_some() && left.is_none_or(enough);
            let asked = Asked::new(at.host(), at.port(), price);
            let (asked, bounds) = match top_up {
                _ if from_credit => (asked, None),
                Ok(Some(amount)) => (asked.top_up(amount), None),
                Ok(None) => (asked, None),
                Err(reason) => (asked, Some(reason)),
            };
            let refused = match max {
                _ if !at.secure() => Some(Reason::Insecure),
                _ if elsewhere => Some(Reason::Redirected),
                Some(MaxPrice(max)) if above(price, max) => Some(Reason::MaxPrice { price, max }),
                _ => bounds,
            };
            let explanation = explain(self.policy, &usage, &asked, self.now);
            let (min_top_up, max_top_up) = (min.map(in_currency), most.map(in_currency));
            Proposal { price, min_top_up, max_top_up, explanation, refused }
        };
        let proposals = terms.into_iter().map(propose).collect();
        let unresolved = known.unresolved.as_ref().map(|unresolved| unresolved.hold.amount());
        let credential = known.credential.is_some();
        let origin = at.key().to_owned();
        Ok(Preview { origin, route, status, credential, credit, unresolved, proposals })
    }

    /// Sends the request unpaid: the status, whether another origin answered, and the offers.
    async fn ask(
        &self,
        request: Request,
        at: &Origin,
        known: &Glimpse,
    ) -> Result<(Option<u16>, bool, Vec<Terse>), PreviewError> {
        let sent = redirect::scope(true, self.http.execute(request)).await;
        let response = sent.map_err(PreviewError::Http)?;
        let status = response.status();
        let elsewhere = Origin::of(response.url()).as_ref() != Some(at);
        let offers = match status {
            StatusCode::PAYMENT_REQUIRED => answer::payment_required(response).await.1,
            _ => None,
        };
        let offers = offers.map(|required| required.accepts).unwrap_or_default();
        let terms = offers.iter().map(|offer| offered(offer, known)).collect();
        Ok((Some(status.as_u16()), elsewhere, terms))
    }
}

fn above(price: Money, max: Money) -> bool {
    price.currency() != max.currency() || price.micros() > max.micros()
}

fn offered(offer: &Offer, known: &Glimpse) -> Terse {
    let price = Money::new(offer.amount.micros(), offer.currency);
    let terms = Terms::of(offer);
    let key = same_key(known, &offer.publishable_key);
    let top_up = key.and_then(|()| terms.amount(price)).map(Some);
    Terse { price, min: Some(offer.min_top_up), max: offer.max_top_up, top_up }
}

fn remembered(known: &Glimpse) -> Option<Terse> {
    let price = known.price?;
    let bounds = known.bounds.as_ref().filter(|bounds| bounds.currency == price.currency());
    let (min, max) = (bounds.map(|bounds| bounds.min), bounds.and_then(|bounds| bounds.max));
    let terms = min.map(|min| Terms {
        publishable_key: known.publishable_key.clone().unwrap_or_default(),
        min,
        max,
        min_credit: None,
    });
    let top_up = terms.map(|terms| terms.amount(price)).transpose();
    Some(Terse { price, min, max, top_up })
}

/// What could be spent at `origin` when it was last heard of.
fn credit(spending: &Spending, origin: &Origin) -> Vec<Money> {
    let sums = spending.by_origin();
    let here = sums.rows().iter().filter(|row| row.origin.as_deref() == Some(origin.key()));
    here.filter_map(|row| row.remaining).collect()
}
