//! Refunds: money that goes back to the card.
//!
//! ```text
//! create -> succeeded -> failed
//!        -> pending   -> succeeded, failed
//! ```
//!
//! Source: Stripe's API reference "Refunds", and its page "Refund and cancel payments".

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Context, Job};
use crate::balance::Movement;
use crate::cards::Later;
use crate::disputes;
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::lists::Page;
use crate::money::Currency;
use crate::network::Impossible;
use crate::payment_intents::charges::{self, Charge};
use crate::state::Stored;

#[derive(Clone)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) created: i64,
    /// In minor units.
    pub(crate) amount: i64,
    pub(crate) currency: Currency,
    charge: String,
    pub(crate) intent: String,
    pub(crate) reason: Option<&'static str>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) status: Status,
    /// None for money that was held and never taken.
    pub(crate) balance_transaction: Option<String>,
    failure_balance_transaction: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    Succeeded,
    Failed,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl Stored for Refund {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

/// What is to be refunded.
enum Of {
    Charge(String),
    Intent(String),
}

struct Create {
    of: Of,
    /// Everything that is left, if it is not said.
    amount: Option<i64>,
    reason: Option<&'static str>,
    metadata: BTreeMap<String, String>,
}

/// `POST /v1/refunds`
pub(crate) fn create(_: &str, params: &mut Params) -> ApiResult<Job> {
    let of = match (params.text("charge")?, params.text("payment_intent")?) {
        (Some(charge), None) => Of::Charge(charge),
        (None, Some(intent)) => Of::Intent(intent),
        (None, None) => {
            let message = "One of the following params should be provided for this request: \
                 payment_intent or charge.";
            return Err(ApiError::invalid(message));
        }
        (Some(_), Some(_)) => {
            let message = "You may only specify one of these parameters: charge, payment_intent.";
            return Err(ApiError::invalid(message).code("parameters_exclusive"));
        }
    };
    let reasons = ["duplicate", "fraudulent", "requested_by_customer"];
    let create = Create {
        of,
        amount: params.amount("amount")?,
        reason: params.choice("reason", &reasons)?,
        metadata: params.metadata()?,
    };
    Ok(Box::new(move |context| create.run(context)))
}

impl Create {
    fn run(self, context: &mut Context<'_>) -> ApiResult<Value> {
        let charge = self.of.charge(context)?;
        let amount = check_amount(context, &charge, self.amount)?;
        let later = charge.card().later();
        let mut refund = Refund::of(context, &charge, amount);
        let booked = context.book(Movement::Refund, -amount, charge.currency(), &refund.id);
        refund.balance_transaction = Some(booked.id);
        refund.reason = self.reason;
        refund.metadata = self.metadata;
        if later == Some(Later::RefundsPend) {
            refund.status = Status::Pending;
        }
        let shown = show(&refund);
        store(context, refund.clone(), charge);
        if later == Some(Later::RefundsFail) {
            pay_back_failed(context, refund);
        }
        Ok(shown)
    }
}

impl Of {
    /// The charge that took the money.
    fn charge(&self, context: &Context<'_>) -> ApiResult<Charge> {
        match self {
            Self::Charge(id) => {
                let charge = context.state.charges.get(id);
                let charge = charge.ok_or_else(|| ApiError::missing("charge", id, "charge"))?;
                charge.captured.map(|_| charge.clone()).ok_or_else(|| {
                    let message = format!("Charge {id} has taken no money that could be refunded.");
                    ApiError::invalid(message).code("charge_not_refundable").param("charge")
                })
            }
            Self::Intent(id) => {
                let intent = context.state.payment_intents.get(id);
                let intent = intent
                    .ok_or_else(|| ApiError::missing("payment_intent", id, "payment_intent"))?;
                intent.paid_charge(context.state).ok_or_else(|| {
                    ApiError::invalid(format!(
                        "This PaymentIntent ({id}) does not have a successful charge to refund."
                    ))
                })
            }
        }
    }
}

/// How much is refunded: never more than was taken, and nothing while the network has the money.
fn check_amount(context: &Context<'_>, charge: &Charge, wanted: Option<i64>) -> ApiResult<i64> {
    let id = &charge.id;
    if disputes::holds_money(context.state, id) {
        let message = format!("Charge {id} has been charged back; cannot issue a refund.");
        return Err(ApiError::invalid(message).code("charge_disputed"));
    }
    let left = charge.unrefunded();
    if left == 0 {
        let message = format!("Charge {id} has already been refunded.");
        return Err(ApiError::invalid(message).code("charge_already_refunded"));
    }
    let amount = wanted.unwrap_or(left);
    if amount > left {
        let display = |amount| charge.currency().display(amount);
        let message = format!(
            "Refund amount ({}) is greater than unrefunded amount on charge ({})",
            display(amount),
            display(left)
        );
        return Err(ApiError::invalid(message).param("amount"));
    }
    Ok(amount)
}

impl Refund {
    fn of(context: &mut Context<'_>, charge: &Charge, amount: i64) -> Self {
        Self {
            id: context.state.ids.next("re"),
            created: context.now,
            amount,
            currency: charge.currency(),
            charge: charge.id.clone(),
            intent: charge.intent().to_owned(),
            reason: None,
            metadata: BTreeMap::new(),
            status: Status::Succeeded,
            balance_transaction: None,
            failure_balance_transaction: None,
        }
    }
}

fn store(context: &mut Context<'_>, refund: Refund, mut charge: Charge) {
    charge.refunded += refund.amount;
    let shown = (show(&refund), charges::show(&charge));
    context.state.refunds.put(refund);
    context.state.charges.put(charge);
    context.happened("refund.created", shown.0);
    context.happened("charge.refunded", shown.1);
}

/// Lets go of money that was held and not taken. With Stripe, too, that is a refund.
pub(crate) fn release(context: &mut Context<'_>, charge: Charge, amount: i64) {
    let refund = Refund::of(context, &charge, amount);
    store(context, refund, charge);
}

/// The card took the money.
pub(crate) fn succeed(context: &mut Context<'_>, id: &str) -> Result<Refund, Impossible> {
    let mut refund = context.state.refunds.get(id).ok_or(Impossible::NotFound)?;
    if refund.status != Status::Pending {
        return Err(Impossible::WrongStatus(refund.status.name()));
    }
    refund.status = Status::Succeeded;
    context.state.refunds.put(refund.clone());
    context.happened("refund.updated", show(&refund));
    Ok(refund)
}

/// The card did not take the money: it is back with the account.
pub(crate) fn fail(context: &mut Context<'_>, id: &str) -> Result<Refund, Impossible> {
    let refund = context.state.refunds.get(id).ok_or(Impossible::NotFound)?;
    if refund.status == Status::Failed {
        return Err(Impossible::WrongStatus(refund.status.name()));
    }
    if refund.balance_transaction.is_none() {
        return Err(Impossible::NotPaid);
    }
    Ok(pay_back_failed(context, refund))
}

fn pay_back_failed(context: &mut Context<'_>, mut refund: Refund) -> Refund {
    let booked = context.book(Movement::RefundFailure, refund.amount, refund.currency, &refund.id);
    refund.status = Status::Failed;
    refund.failure_balance_transaction = Some(booked.id);
    context.state.refunds.put(refund.clone());
    if let Some(mut charge) = context.state.charges.get(&refund.charge) {
        charge.refunded -= refund.amount;
        context.state.charges.put(charge);
    }
    context.happened("refund.updated", show(&refund));
    context.happened("refund.failed", show(&refund));
    refund
}

/// `GET /v1/refunds/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| {
        let missing = || ApiError::missing("refund", &id, "id").status(StatusCode::NOT_FOUND);
        context.state.refunds.get(&id).map(|refund| show(&refund)).ok_or_else(missing)
    }))
}

/// `GET /v1/refunds`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let (charge, intent) = (params.text("charge")?, params.text("payment_intent")?);
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted = |refund: &Refund| {
            charge.as_ref().is_none_or(|charge| refund.charge == *charge)
                && intent.as_ref().is_none_or(|intent| refund.intent == *intent)
        };
        page.list(&context.state.refunds, ("refund", "/v1/refunds"), wanted, show)
    }))
}

pub(crate) fn show(refund: &Refund) -> Value {
    let released = refund.balance_transaction.is_none();
    let mut shown = json!({
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": refund.balance_transaction,
        "charge": refund.charge,
        "created": refund.created,
        "currency": refund.currency.code(),
        "destination_details": {
            "card": { "type": if released { "reversal" } else { "refund" } },
            "type": "card",
        },
        "metadata": refund.metadata,
        "payment_intent": refund.intent,
        "reason": refund.reason,
        "receipt_number": null,
        "source_transfer_reversal": null,
        "status": refund.status.name(),
        "transfer_reversal": null,
    });
    match refund.status {
        Status::Succeeded => {}
        Status::Pending => shown["pending_reason"] = json!("processing"),
        Status::Failed => {
            shown["failure_reason"] = json!("expired_or_canceled_card");
            shown["failure_balance_transaction"] = json!(refund.failure_balance_transaction);
        }
    }
    shown
}
