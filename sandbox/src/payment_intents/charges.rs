//! Charges: the attempts of a PaymentIntent.
//!
//! Source: Stripe's API reference "Charges".

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::PaymentIntent;
use crate::api::{Context, Job};
use crate::cards::Decline;
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::payment_methods::{self, PaymentMethod};
use crate::state::Stored;

#[derive(Clone)]
pub(crate) struct Charge {
    pub(super) id: String,
    created: i64,
    /// The intent and the card as they were at the attempt.
    intent: PaymentIntent,
    method: PaymentMethod,
    decline: Option<&'static Decline>,
}

impl Stored for Charge {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

impl Charge {
    pub(super) fn of(
        context: &mut Context<'_>,
        intent: &PaymentIntent,
        method: &PaymentMethod,
        decline: Option<&'static Decline>,
    ) -> Self {
        Self {
            id: context.state.ids.next("ch"),
            created: context.now,
            intent: intent.clone(),
            method: method.clone(),
            decline,
        }
    }
}

/// `GET /v1/charges/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| {
        let missing = || ApiError::missing("charge", &id, "id").status(StatusCode::NOT_FOUND);
        context.state.charges.get(&id).map(|charge| show(&charge)).ok_or_else(missing)
    }))
}

pub(crate) fn show(charge: &Charge) -> Value {
    let intent = &charge.intent;
    let options = &intent.options;
    let paid = charge.decline.is_none();
    json!({
        "id": charge.id,
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": if paid { intent.amount } else { 0 },
        "amount_refunded": 0,
        "application": null,
        "application_fee": null,
        "application_fee_amount": null,
        "balance_transaction": null,
        "billing_details": charge.method.billing_details,
        "calculated_statement_descriptor": null,
        "captured": paid,
        "created": charge.created,
        "currency": intent.currency.code(),
        "customer": intent.customer,
        "description": options.description,
        "disputed": false,
        "failure_balance_transaction": null,
        "failure_code": charge.decline.map(|decline| decline.code),
        "failure_message": charge.decline.map(|decline| decline.message),
        "fraud_details": {},
        "livemode": false,
        "metadata": options.metadata,
        "on_behalf_of": null,
        "outcome": show_outcome(charge.decline),
        "paid": paid,
        "payment_intent": intent.id,
        "payment_method": charge.method.id,
        "payment_method_details": { "card": show_card(charge), "type": "card" },
        "receipt_email": options.receipt_email,
        "receipt_number": null,
        "receipt_url": null,
        "refunded": false,
        "review": null,
        "shipping": null,
        "source": null,
        "source_transfer": null,
        "statement_descriptor": null,
        "statement_descriptor_suffix": options.statement_descriptor_suffix,
        "status": if paid { "succeeded" } else { "failed" },
        "transfer_data": null,
        "transfer_group": null,
    })
}

fn show_outcome(decline: Option<&'static Decline>) -> Value {
    let (network, kind, message) = match decline {
        None => ("approved_by_network", "authorized", "Payment complete."),
        Some(decline) if decline.blocked() => {
            ("not_sent_to_network", "blocked", "Stripe blocked this payment as too risky.")
        }
        Some(_) => (
            "declined_by_network",
            "issuer_declined",
            "The bank did not return any further details with this decline.",
        ),
    };
    json!({
        "advice_code": null,
        "network_advice_code": null,
        "network_decline_code": null,
        "network_status": network,
        "reason": decline.map(|decline| decline.decline_code.unwrap_or(decline.code)),
        "risk_level": "normal",
        "seller_message": message,
        "type": kind,
    })
}

fn show_card(charge: &Charge) -> Value {
    let card = &charge.method.card;
    json!({
        "amount_authorized": charge.decline.is_none().then_some(charge.intent.amount),
        "brand": card.brand,
        "checks": payment_methods::show_checks(&charge.method),
        "country": "US",
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "installments": null,
        "last4": card.last4,
        "mandate": null,
        "network": card.brand,
        "three_d_secure": null,
        "wallet": null,
    })
}
