//! What happened at Stripe, as webhooks and the list of events tell it
//! (docs.stripe.com/api/events).
//!
//! An event is a hint and never a fact about money: it comes late, twice, out of order or not at
//! all, and shows its object as it was. It says which object to read again.

use farebox_protocol::TopUpId;
use serde::Deserialize;
use stripe_client_core::StripeRequest as _;
use stripe_core::event::ListEvent;
use stripe_types::RangeQueryTs;

use crate::answer::{Metadata, Reference, lenient, named_top_up};
use crate::error::LookUpError;
use crate::list::Listed;
use crate::stripe::Stripe;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `payment_intent.succeeded`: a card was charged.
    IntentSucceeded,
    /// `payment_intent.payment_failed`: an attempt to charge failed.
    IntentFailed,
    /// `payment_intent.canceled`: it can no longer take anything.
    IntentCanceled,
    /// `charge.refunded`: some or all of a charge was given back.
    ChargeRefunded,
    /// `refund.failed`: what was given back came back.
    RefundFailed,
    /// `charge.dispute.created`: a card's holder disputes a charge, or a bank inquires.
    DisputeCreated,
    /// `charge.dispute.funds_withdrawn`: a dispute took money.
    FundsWithdrawn,
    /// `charge.dispute.funds_reinstated`: a dispute gave money back.
    FundsReinstated,
    /// `charge.dispute.closed`: a dispute ended.
    DisputeClosed,
    /// `radar.early_fraud_warning.created`: a bank suspects fraud.
    FraudWarning,
    /// Anything else. Nothing follows from it.
    Other,
}

/// The kinds that something follows from, by Stripe's names for them.
const KINDS: [(&str, EventKind); 10] = [
    ("payment_intent.succeeded", EventKind::IntentSucceeded),
    ("payment_intent.payment_failed", EventKind::IntentFailed),
    ("payment_intent.canceled", EventKind::IntentCanceled),
    ("charge.refunded", EventKind::ChargeRefunded),
    ("refund.failed", EventKind::RefundFailed),
    ("charge.dispute.created", EventKind::DisputeCreated),
    ("charge.dispute.funds_withdrawn", EventKind::FundsWithdrawn),
    ("charge.dispute.funds_reinstated", EventKind::FundsReinstated),
    ("charge.dispute.closed", EventKind::DisputeClosed),
    ("radar.early_fraud_warning.created", EventKind::FraudWarning),
];

impl EventKind {
    fn parse(text: &str) -> EventKind {
        let known = KINDS.iter().find(|(name, _)| *name == text);
        known.map_or(EventKind::Other, |(_, kind)| *kind)
    }

    /// Whether the object of the event is a PaymentIntent itself.
    fn is_of_intent(self) -> bool {
        matches!(
            self,
            EventKind::IntentSucceeded | EventKind::IntentFailed | EventKind::IntentCanceled
        )
    }
}

/// Something that happened at Stripe.
///
/// # Example
///
/// ```no_run
/// # async fn repair(stripe: farebox_processor::Stripe) -> Result<(), farebox_processor::LookUpError> {
/// for event in stripe.events_since(1_700_000_000).await?.unwrap_or_default() {
///     if let Some(intent) = &event.intent {
///         println!("{:?}: {:?}", event.kind, stripe.standing(intent).await?);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `evt_...`, the same each time the event is delivered.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// When, in Unix seconds.
    pub created: i64,
    /// Whether it is about real money. One of the other mode than our keys is not about us.
    pub livemode: bool,
    /// The PaymentIntent that it is about, `pi_...`, if its object names one.
    pub intent: Option<String>,
    /// The top-up that its object names, if any. A dispute and a warning name none.
    pub top_up: Option<TopUpId>,
    /// The id of the object that it happened to; empty for an [`EventKind::Other`] whose object
    /// has none.
    pub object: String,
}

#[derive(Deserialize)]
pub(crate) struct EventObject {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    #[serde(default, deserialize_with = "lenient")]
    livemode: Option<bool>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: About,
}

#[derive(Deserialize)]
struct About {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    payment_intent: Option<Reference>,
    #[serde(default, deserialize_with = "lenient")]
    metadata: Option<Metadata>,
}

impl Listed for EventObject {
    fn id(&self) -> &str {
        &self.id
    }
}

impl EventObject {
    /// `None` when it does not say in which mode it happened, or an event of a known kind does
    /// not say to which object.
    pub(crate) fn read(self, live: Option<bool>) -> Option<Event> {
        let kind = EventKind::parse(&self.kind);
        let About { id, payment_intent, metadata } = self.data.object;
        let object = id.or_else(|| (kind == EventKind::Other).then(String::new))?;
        let intent = match payment_intent {
            _ if kind.is_of_intent() => Some(object.clone()),
            named => named.map(Reference::into_id),
        };
        Some(Event {
            id: self.id,
            kind,
            created: self.created,
            livemode: self.livemode.or(live)?,
            intent,
            top_up: named_top_up(metadata.as_ref()).and_then(|id| id.parse().ok()),
            object,
        })
    }
}

impl Stripe {
    /// Every event of a kind that something follows from, that happened at `created` (Unix
    /// seconds) or later, oldest first. `None` where a stand-in has no events. Stripe keeps them
    /// for 30 days (docs.stripe.com/api/events/list).
    ///
    /// # Errors
    ///
    /// [`LookUpError`]. A list that could be read only in part is an error.
    pub async fn events_since(&self, created: i64) -> Result<Option<Vec<Event>>, LookUpError> {
        let kinds: Vec<String> = KINDS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let list = ListEvent::new().created(RangeQueryTs::gte(created)).limit(100).types(kinds);
        let Some(objects) = self.list_if_known::<EventObject>(list.build(), "events").await? else {
            return Ok(None);
        };
        let live = self.mode().is_live();
        let mut events = Vec::with_capacity(objects.len());
        // A stand-in may list all kinds.
        let acted_on = |object: &EventObject| EventKind::parse(&object.kind) != EventKind::Other;
        for object in objects.into_iter().rev().filter(acted_on) {
            let id = object.id.clone();
            let event = object.read(Some(live)).ok_or_else(|| {
                tracing::error!(event = id, "Stripe's event cannot be read");
                LookUpError::Unavailable
            })?;
            self.same_mode(Some(event.livemode), &event.id)?;
            events.push(event);
        }
        Ok(Some(events))
    }
}
