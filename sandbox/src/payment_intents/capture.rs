//! Capturing: when held money is taken, or let go.
//!
//! What is held and not taken counts as refunded on its charge, though no money moves.
//!
//! Source: Stripe's page "Place a hold on a payment method".

use serde_json::Value;

use super::charges::{self, Charge};
use super::{PaymentIntent, from_path, show, wrong_status};
use crate::ChargeRecord;
use crate::api::{Context, Job};
use crate::balance::Movement;
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::intents::Status;
use crate::{network, refunds};

/// `POST /v1/payment_intents/{id}/capture`
pub(crate) fn capture(id: &str, params: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    let amount = params.amount("amount_to_capture")?;
    Ok(Box::new(move |context| {
        let intent = from_path(context, &id)?;
        let charge = held_charge(context, &intent).ok_or_else(|| {
            wrong_status(&intent, ("capture", "captured"), &[Status::RequiresCapture.name()])
        })?;
        let amount = amount.unwrap_or(intent.amount);
        if amount > intent.amount {
            let message = "The payment could not be captured because the requested capture \
                 amount is greater than the authorized amount.";
            return Err(ApiError::invalid(message)
                .code("amount_too_large")
                .param("amount_to_capture"));
        }
        Ok(take(context, intent, charge, ("charge.captured", amount)))
    }))
}

fn held_charge(context: &Context<'_>, intent: &PaymentIntent) -> Option<Charge> {
    let charge = context.state.charges.get(intent.latest_charge.as_deref()?)?;
    (intent.status == Status::RequiresCapture).then_some(charge)
}

/// The issuer said yes to `capture_method=manual`.
pub(super) fn hold(context: &mut Context<'_>, mut intent: PaymentIntent, charge: Charge) -> Value {
    intent.status = Status::RequiresCapture;
    let shown = show(&intent);
    context.happened("charge.succeeded", charges::show(&charge));
    context.state.charges.put(charge);
    context.state.payment_intents.put(intent);
    context.happened("payment_intent.amount_capturable_updated", shown.clone());
    shown
}

/// The money arrives. `event` is what happened to the charge.
pub(super) fn take(
    context: &mut Context<'_>,
    mut intent: PaymentIntent,
    mut charge: Charge,
    (event, amount): (&'static str, i64),
) -> Value {
    let booked = context.book(Movement::Charge, amount, intent.currency, &charge.id);
    charge.captured = Some(amount);
    charge.balance_transaction = Some(booked.id);
    intent.status = Status::Succeeded;
    intent.received = amount;
    context.state.paid.push(ChargeRecord {
        id: intent.id.clone(),
        amount,
        currency: intent.currency.code().to_owned(),
        customer: intent.customer.clone(),
        payment_method: intent.payment_method.clone().unwrap_or_default(),
        metadata: intent.options.metadata.clone(),
        created: intent.created,
    });
    let shown = show(&intent);
    let rest = intent.amount - amount;
    context.state.payment_intents.put(intent);
    context.state.charges.put(charge.clone());
    context.happened(event, charges::show(&charge));
    if rest > 0 {
        refunds::release(context, charge.clone(), rest);
    }
    context.happened("payment_intent.succeeded", shown.clone());
    network::follow_up(context, &charge.id);
    shown
}

/// Lets go of everything that is held.
pub(super) fn release(context: &mut Context<'_>, intent: &PaymentIntent) {
    if let Some(charge) = held_charge(context, intent) {
        let all = charge.unrefunded();
        refunds::release(context, charge, all);
    }
}
