//! Charges: the attempts of a PaymentIntent.
//!
//! Source: Stripe's API reference "Charges".

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::PaymentIntent;
use crate::api::{Context, Job};
use crate::cards::{Card, Decline};
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::lists::Page;
use crate::money::Currency;
use crate::payment_methods::{self, PaymentMethod};
use crate::state::Stored;

#[derive(Clone)]
pub(crate) struct Charge {
    pub(crate) id: String,
    created: i64,
    /// The intent and the card as they were at the attempt.
    intent: PaymentIntent,
    method: PaymentMethod,
    decline: Option<&'static Decline>,
    /// What was taken; nothing while the money is only held, or was refused.
    pub(crate) captured: Option<i64>,
    /// What was given back, and what was held and never taken. A refund that failed is not in it.
    pub(crate) refunded: i64,
    /// Whether it was ever disputed or asked about.
    pub(crate) disputed: bool,
    pub(crate) balance_transaction: Option<String>,
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
            captured: None,
            refunded: 0,
            disputed: false,
            balance_transaction: None,
        }
    }

    pub(crate) fn intent(&self) -> &str {
        &self.intent.id
    }

    pub(crate) fn currency(&self) -> Currency {
        self.intent.currency
    }

    pub(crate) fn card(&self) -> &Card {
        &self.method.card
    }

    /// What was taken and not given back. A dispute does not count here.
    pub(crate) fn unrefunded(&self) -> i64 {
        self.intent.amount - self.refunded
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

/// `GET /v1/charges`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let (intent, customer) = (params.text("payment_intent")?, params.text("customer")?);
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted = |charge: &Charge| {
            intent.as_ref().is_none_or(|intent| charge.intent.id == *intent)
                && (customer.is_none() || charge.intent.customer == customer)
        };
        page.list(&context.state.charges, ("charge", "/v1/charges"), wanted, show)
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
        "amount_captured": charge.captured.unwrap_or(0),
        "amount_refunded": charge.refunded,
        "application": null,
        "application_fee": null,
        "application_fee_amount": null,
        "balance_transaction": charge.balance_transaction,
        "billing_details": charge.method.billing_details,
        "calculated_statement_descriptor": null,
        "captured": charge.captured.is_some(),
        "created": charge.created,
        "currency": intent.currency.code(),
        "customer": intent.customer,
        "description": options.description,
        "disputed": charge.disputed,
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
        "refunded": paid && charge.unrefunded() == 0,
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
