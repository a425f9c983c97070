//! How a charge stands: what was received, given back and disputed, as absolute totals.

use farebox_protocol::{Currency, Micros};
use serde::Deserialize;
use stripe_client_core::StripeRequest as _;
use stripe_core::charge::RetrieveCharge;
use stripe_core::dispute::ListDispute;
use stripe_core::payment_intent::RetrievePaymentIntent;
use stripe_core::refund::ListRefund;
use stripe_types::RangeQueryTs;

use crate::answer::{Intent, IntentObject, Reference, lenient};
use crate::error::LookUpError;
use crate::list::Listed;
use crate::lookup::LOOK_UP_BUDGET;
use crate::stripe::{Stripe, check_id, fetch};

/// How a charge stands at Stripe: absolute totals, in the intent's currency.
///
/// # Example
///
/// ```no_run
/// # async fn left(stripe: farebox_processor::Stripe) -> Result<(), farebox_processor::LookUpError> {
/// let standing = stripe.standing("pi_1").await?;
/// let taken_back = standing.refunded.get() + standing.withdrawn.get();
/// assert!(taken_back <= standing.intent.received.get());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The PaymentIntent, with what was received.
    pub intent: Intent,
    /// What was given back of it so far.
    pub refunded: Micros,
    /// What disputes have taken of it. With `refunded` it is never more than was received.
    pub withdrawn: Micros,
    /// All disputes of the charge, newest first.
    pub disputes: Vec<Dispute>,
    /// The customer that was charged.
    pub customer: Option<String>,
}

/// A dispute: a card's holder wants money back through the bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// `du_...`
    pub id: String,
    /// The PaymentIntent that is disputed.
    pub intent: Option<String>,
    /// Whether it is decided.
    pub state: DisputeState,
    /// What it has taken so far, in the currency of the charge, without Stripe's fee for it.
    pub withdrawn: Micros,
}

/// How far a dispute is (docs.stripe.com/api/disputes/object).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisputeState {
    /// It is not decided: inquiries too, and states that this version does not know.
    Open,
    /// The charge stands: `won`, `warning_closed` or `prevented`.
    Won,
    /// The card's holder has the money: `lost`.
    Lost,
}

impl DisputeState {
    fn parse(text: &str) -> DisputeState {
        match text {
            "won" | "warning_closed" | "prevented" => DisputeState::Won,
            "lost" => DisputeState::Lost,
            _ => DisputeState::Open,
        }
    }
}

#[derive(Deserialize)]
struct StandingObject {
    #[serde(flatten)]
    intent: IntentObject,
    #[serde(default, deserialize_with = "lenient")]
    customer: Option<Reference>,
    latest_charge: Option<Expandable>,
}

/// A stand-in may not expand.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expandable {
    Id(String),
    Charge(ChargeObject),
}

#[derive(Deserialize)]
struct ChargeObject {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    amount_refunded: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    disputed: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    livemode: Option<bool>,
}

#[derive(Deserialize)]
struct DisputeObject {
    id: String,
    status: String,
    #[serde(default, deserialize_with = "lenient")]
    amount: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    currency: Option<Currency>,
    #[serde(default, deserialize_with = "lenient")]
    payment_intent: Option<Reference>,
    #[serde(default, deserialize_with = "lenient")]
    balance_transactions: Option<Vec<BalanceTransaction>>,
    #[serde(default, deserialize_with = "lenient")]
    livemode: Option<bool>,
}

#[derive(Deserialize)]
struct BalanceTransaction {
    /// Minor units; negative where money was withdrawn.
    amount: i64,
    /// The currency of settlement, which Farebox need not know.
    currency: String,
}

#[derive(Deserialize)]
struct RefundOf {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    payment_intent: Option<Reference>,
}

impl Listed for DisputeObject {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for RefundOf {
    fn id(&self) -> &str {
        &self.id
    }
}

impl DisputeObject {
    fn read(self, currency: Currency) -> Option<Dispute> {
        let withdrawn = self.withdrawn(currency)?;
        Some(Dispute {
            state: DisputeState::parse(&self.status),
            intent: self.payment_intent.map(Reference::into_id),
            id: self.id,
            withdrawn,
        })
    }

    /// What it has taken of a charge in `currency`, if it can be told.
    fn withdrawn(&self, currency: Currency) -> Option<Micros> {
        let moved = self.balance_transactions.as_ref()?;
        let sum = moved.iter().try_fold(0_i64, |sum, one| sum.checked_add(one.amount))?;
        let taken = sum.checked_neg()?.max(0);
        if moved.iter().all(|one| one.currency == currency.code()) {
            return currency.from_minor(taken);
        }
        // Settled in another currency, whose rate may have changed between the ways out and back.
        let came_back = DisputeState::parse(&self.status) == DisputeState::Won
            && moved.iter().any(|one| one.amount > 0);
        if taken == 0 || came_back {
            return Some(Micros::ZERO);
        }
        let amount = self.amount.filter(|_| self.currency == Some(currency))?;
        currency.from_minor(amount).filter(|amount| *amount >= Micros::ZERO)
    }
}

impl Stripe {
    /// How the charge of a PaymentIntent stands.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]; `NotFound` also for an intent that is no top-up's, in a currency that
    /// Farebox does not charge in; `Unavailable` also when something that decides about money
    /// cannot be read; `Operator` also when it is of the other mode than our keys.
    pub async fn standing(&self, intent: &str) -> Result<Standing, LookUpError> {
        check_id(intent)?;
        let expand = ["latest_charge".to_owned()];
        let request = self.get(&RetrievePaymentIntent::new(intent).expand(expand).build())?;
        let object: StandingObject = fetch(&request, LOOK_UP_BUDGET, "payment intent").await?;
        let ours = object.intent.names_top_up().is_some();
        let intent = match object.intent.read(self.mode().is_live()) {
            Some(intent) => intent,
            None if ours => return Err(unreadable("intent", intent)),
            None => return Err(LookUpError::NotFound),
        };
        self.same_mode(Some(intent.livemode), &intent.id)?;
        let mut standing = Standing {
            refunded: Micros::ZERO,
            withdrawn: Micros::ZERO,
            disputes: Vec::new(),
            customer: object.customer.map(Reference::into_id),
            intent,
        };
        match object.latest_charge {
            Some(charge) => match self.add_charge(&mut standing, charge).await {
                // The intent is known.
                Err(LookUpError::NotFound) => Err(unreadable("charge of", &standing.intent.id)),
                added => added.map(|()| standing),
            },
            None if standing.intent.received == Micros::ZERO => Ok(standing),
            None => Err(unreadable("charge of", &standing.intent.id)),
        }
    }

    async fn charge_object(&self, id: &str) -> Result<ChargeObject, LookUpError> {
        check_id(id)?;
        let request = self.get(&RetrieveCharge::new(id).build())?;
        fetch(&request, LOOK_UP_BUDGET, "charge").await
    }

    async fn add_charge(
        &self,
        standing: &mut Standing,
        charge: Expandable,
    ) -> Result<(), LookUpError> {
        let charge = match charge {
            Expandable::Id(id) => self.charge_object(&id).await?,
            Expandable::Charge(charge) => charge,
        };
        self.same_mode(charge.livemode, &charge.id)?;
        let (currency, received) = (standing.intent.currency, standing.intent.received);
        let refunded = charge.amount_refunded.and_then(|minor| currency.from_minor(minor));
        let refunded = refunded.filter(|refunded| *refunded >= Micros::ZERO);
        let refunded = refunded.ok_or_else(|| unreadable("charge", &charge.id))?;
        let mut withdrawn = Micros::ZERO;
        if charge.disputed == Some(true) {
            let intent = standing.intent.id.as_str();
            let list = ListDispute::new().payment_intent(intent).limit(100).build();
            for object in self.list::<DisputeObject>(list, "disputes").await? {
                let dispute = self.read_dispute(object, currency)?;
                withdrawn = withdrawn.checked_add(dispute.withdrawn).unwrap_or(Micros::MAX);
                standing.disputes.push(dispute);
            }
        }
        standing.refunded = refunded.min(received);
        let rest = received.checked_sub(standing.refunded).unwrap_or_default();
        standing.withdrawn = withdrawn.min(rest);
        if (standing.refunded, standing.withdrawn) != (refunded, withdrawn) {
            let (charge, received) = (&charge.id, received.get());
            let (refunded, withdrawn) = (refunded.get(), withdrawn.get());
            tracing::error!(
                charge,
                received,
                refunded,
                withdrawn,
                "more was taken back than received: the operator must look at the charge"
            );
        }
        Ok(())
    }

    fn read_dispute(
        &self,
        object: DisputeObject,
        currency: Currency,
    ) -> Result<Dispute, LookUpError> {
        let id = object.id.clone();
        self.same_mode(object.livemode, &id)?;
        object.read(currency).ok_or_else(|| unreadable("dispute", &id))
    }

    /// Every dispute of the account that was opened at `created` (Unix seconds) or later, newest
    /// first. Those in currencies that Farebox does not charge in are left out.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]. A list that could be read only in part is an error.
    pub async fn disputes_since(&self, created: i64) -> Result<Vec<Dispute>, LookUpError> {
        let list = ListDispute::new().created(RangeQueryTs::gte(created)).limit(100).build();
        let mut disputes = Vec::new();
        for object in self.list::<DisputeObject>(list, "disputes").await? {
            if let Some(currency) = object.currency {
                disputes.push(self.read_dispute(object, currency)?);
            }
        }
        Ok(disputes)
    }

    /// Every PaymentIntent of which something was given back, by a refund that was made at
    /// `created` (Unix seconds) or later: each once, newest refund first.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]. A list that could be read only in part is an error.
    pub async fn refunded_since(&self, created: i64) -> Result<Vec<String>, LookUpError> {
        let list = ListRefund::new().created(RangeQueryTs::gte(created)).limit(100).build();
        let refunds = self.list::<RefundOf>(list, "refunds").await?;
        let mut seen = std::collections::HashSet::new();
        let intents = refunds.into_iter().filter_map(|refund| refund.payment_intent);
        let intents = intents.map(Reference::into_id);
        Ok(intents.filter(|intent| seen.insert(intent.clone())).collect())
    }
}

fn unreadable(what: &'static str, id: &str) -> LookUpError {
    tracing::error!(what, id, "Stripe's object cannot be read");
    LookUpError::Unavailable
}
