//! PaymentIntents: one payment, from its creation to its end.
//!
//! ```text
//! create -> requires_payment_method -> requires_confirmation -> confirm
//!           ^                                                   |-> succeeded
//!           |-- declined (HTTP 402) ----------------------------|-> requires_action (3D Secure)
//!                                                               |-> requires_capture
//!                                                                   capture -> succeeded
//! ```
//!
//! Source: Stripe's API reference "PaymentIntents", and its page "How PaymentIntents work".

mod capture;
pub(crate) mod charges;
mod confirm;
mod create;

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

pub(crate) use self::capture::capture;
use self::charges::Charge;
pub(crate) use self::confirm::confirm;
pub(crate) use self::create::create;
use crate::api::{Context, Job};
use crate::customers;
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::intents::{self, Accepts, Status};
use crate::lists::Page;
use crate::money::Currency;
use crate::state::{State, Stored};

const NOUN: &str = "PaymentIntent";
const CANCELLATION_REASONS: [&str; 4] =
    ["abandoned", "duplicate", "fraudulent", "requested_by_customer"];
const UNEXPECTED_STATE: &str = "payment_intent_unexpected_state";

#[derive(Clone)]
pub(crate) struct PaymentIntent {
    id: String,
    client_secret: String,
    created: i64,
    /// In minor units.
    amount: i64,
    /// What was taken of it.
    received: i64,
    currency: Currency,
    customer: Option<String>,
    payment_method: Option<String>,
    options: Options,
    status: Status,
    latest_charge: Option<String>,
    last_error: Value,
    canceled_at: Option<i64>,
    cancellation_reason: Option<&'static str>,
}

/// What the caller may choose and a confirmation may change.
#[derive(Clone)]
struct Options {
    accepts: Accepts,
    capture_method: &'static str,
    confirmation_method: &'static str,
    setup_future_usage: Option<&'static str>,
    description: Option<String>,
    receipt_email: Option<String>,
    statement_descriptor: Option<String>,
    statement_descriptor_suffix: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl Stored for PaymentIntent {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

impl PaymentIntent {
    /// The charge that took its money, if one did.
    pub(crate) fn paid_charge(&self, state: &State) -> Option<Charge> {
        let charge = state.charges.get(self.latest_charge.as_deref()?)?;
        charge.captured.is_some().then_some(charge)
    }
}

/// `GET /v1/payment_intents/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| Ok(show(&from_path(context, &id)?))))
}

/// `GET /v1/payment_intents`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let customer = params.text("customer")?;
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        if let Some(customer) = &customer {
            customers::check_exists(context, customer)?;
        }
        let wanted = |intent: &PaymentIntent| customer.is_none() || intent.customer == customer;
        let names = ("payment_intent", "/v1/payment_intents");
        page.list(&context.state.payment_intents, names, wanted, show)
    }))
}

/// `POST /v1/payment_intents/{id}/cancel`
pub(crate) fn cancel(id: &str, params: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    let reason = params.choice("cancellation_reason", &CANCELLATION_REASONS)?;
    Ok(Box::new(move |context| {
        let mut intent = from_path(context, &id)?;
        if intent.status.is_final() {
            let allowed = [
                "requires_payment_method",
                "requires_capture",
                "requires_confirmation",
                "requires_action",
                "processing",
            ];
            return Err(wrong_status(&intent, ("cancel", "canceled"), &allowed));
        }
        if intent.status == Status::RequiresCapture {
            capture::release(context, &intent);
        }
        intent.status = Status::Canceled;
        intent.canceled_at = Some(context.now);
        intent.cancellation_reason = reason;
        let shown = show(&intent);
        context.state.payment_intents.put(intent);
        context.happened("payment_intent.canceled", shown.clone());
        Ok(shown)
    }))
}

fn from_path(context: &Context<'_>, id: &str) -> ApiResult<PaymentIntent> {
    let missing =
        || ApiError::missing("payment_intent", id, "intent").status(StatusCode::NOT_FOUND);
    context.state.payment_intents.get(id).ok_or_else(missing)
}

fn wrong_status(intent: &PaymentIntent, verb: (&str, &str), allowed: &[&str]) -> ApiError {
    intents::wrong_status((NOUN, UNEXPECTED_STATE), verb, intent.status.name(), allowed)
        .with("payment_intent", show(intent))
}

pub(crate) fn show(intent: &PaymentIntent) -> Value {
    let options = &intent.options;
    let held = intent.status == Status::RequiresCapture;
    let needs_action = intent.status == Status::RequiresAction;
    json!({
        "id": intent.id,
        "object": "payment_intent",
        "allowed_payment_method_types": options.accepts.show_allowed(),
        "amount": intent.amount,
        "amount_capturable": if held { intent.amount } else { 0 },
        "amount_details": { "tip": {} },
        "amount_received": intent.received,
        "application": null,
        "application_fee_amount": null,
        "automatic_payment_methods": options.accepts.show(),
        "canceled_at": intent.canceled_at,
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": options.capture_method,
        "client_secret": intent.client_secret,
        "confirmation_method": options.confirmation_method,
        "created": intent.created,
        "currency": intent.currency.code(),
        "customer": intent.customer,
        "customer_account": null,
        "description": options.description,
        "excluded_payment_method_types": null,
        "last_payment_error": intent.last_error,
        "latest_charge": intent.latest_charge,
        "livemode": false,
        "metadata": options.metadata,
        "next_action": needs_action.then(intents::next_action),
        "on_behalf_of": null,
        "payment_method": intent.payment_method,
        "payment_method_configuration_details": null,
        "payment_method_options": {
            "card": {
                "installments": null,
                "mandate_options": null,
                "network": null,
                "request_three_d_secure": "automatic",
            },
        },
        "payment_method_types": ["card"],
        "processing": null,
        "receipt_email": options.receipt_email,
        "review": null,
        "setup_future_usage": options.setup_future_usage,
        "shipping": null,
        "source": null,
        "statement_descriptor": options.statement_descriptor,
        "statement_descriptor_suffix": options.statement_descriptor_suffix,
        "status": intent.status.name(),
        "transfer_data": null,
        "transfer_group": null,
    })
}
