//! `POST /v1/payment_intents`

use serde_json::Value;

use super::confirm::{self, Confirmation};
use super::{NOUN, Options, PaymentIntent, UNEXPECTED_STATE, show};
use crate::api::{Context, Job};
use crate::customers;
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::intents::{self, Accepts, Status};
use crate::money::Currency;

/// The money is held until it is captured.
pub(super) const MANUAL: &str = "manual";

struct Create {
    amount: i64,
    currency: Currency,
    customer: Option<String>,
    payment_method: Option<String>,
    options: Options,
    /// Present with `confirm=true`.
    confirmation: Option<Confirmation>,
}

pub(crate) fn create(_: &str, params: &mut Params) -> ApiResult<Job> {
    let amount = params.required_integer("amount")?;
    let currency = Currency::parse(&params.required_text("currency")?)?;
    currency.check(amount)?;
    let confirmation = if params.boolean("confirm")?.unwrap_or(false) {
        Some(Confirmation::read(params)?)
    } else {
        let names = ["off_session", "error_on_requires_action", "return_url"];
        intents::only_when_confirming(params, &names)?;
        None
    };
    let create = Create {
        amount,
        currency,
        customer: params.text("customer")?,
        payment_method: params.text("payment_method")?,
        options: Options::read(params)?,
        confirmation,
    };
    Ok(Box::new(move |context| create.run(context)))
}

impl Options {
    fn read(params: &mut Params) -> ApiResult<Self> {
        Ok(Self {
            accepts: Accepts::read(params)?,
            capture_method: read_capture_method(params)?.unwrap_or("automatic_async"),
            confirmation_method: params
                .choice("confirmation_method", &["automatic", "manual"])?
                .unwrap_or("automatic"),
            setup_future_usage: params
                .choice("setup_future_usage", &["off_session", "on_session"])?,
            description: params.text("description")?,
            receipt_email: params.text("receipt_email")?,
            statement_descriptor: read_descriptor(params, "statement_descriptor")?,
            statement_descriptor_suffix: read_descriptor(params, "statement_descriptor_suffix")?,
            metadata: params.metadata()?,
        })
    }
}

pub(super) fn read_capture_method(params: &mut Params) -> ApiResult<Option<&'static str>> {
    params.choice("capture_method", &["automatic", "automatic_async", MANUAL])
}

/// What a bank prints on a statement: at most 22 characters, at least one letter.
fn read_descriptor(params: &mut Params, name: &str) -> ApiResult<Option<String>> {
    let Some(text) = params.text(name)? else { return Ok(None) };
    let problem = if text.chars().count() > 22 {
        "must be at most 22 characters"
    } else if !text.chars().any(|c| c.is_ascii_alphabetic()) {
        "must contain at least one letter"
    } else if text.contains(['<', '>', '\\', '\'', '"', '*']) {
        "may not contain <, >, \\, ', \" or *"
    } else {
        return Ok(Some(text));
    };
    Err(ApiError::invalid(format!("The {name} {problem}.")).param(name))
}

impl Create {
    /// Nothing is stored before every check that needs no issuer has passed.
    fn run(self, context: &mut Context<'_>) -> ApiResult<Value> {
        if let Some(customer) = &self.customer {
            customers::check_exists(context, customer)?;
        }
        let method = intents::choose_method(
            context,
            self.payment_method.as_deref(),
            self.customer.as_deref(),
            NOUN,
        )?;
        let id = context.state.ids.next("pi");
        let intent = PaymentIntent {
            client_secret: context.state.ids.client_secret(&id),
            id,
            created: context.now,
            amount: self.amount,
            received: 0,
            currency: self.currency,
            customer: self.customer,
            payment_method: method.as_ref().map(|method| method.id.clone()),
            options: self.options,
            status: match method {
                Some(_) => Status::RequiresConfirmation,
                None => Status::RequiresPaymentMethod,
            },
            latest_charge: None,
            last_error: Value::Null,
            canceled_at: None,
            cancellation_reason: None,
        };
        context.happened("payment_intent.created", show(&intent));
        let Some(confirmation) = self.confirmation else {
            let shown = show(&intent);
            context.state.payment_intents.put(intent);
            return Ok(shown);
        };
        let method =
            method.ok_or_else(|| intents::missing_payment_method(NOUN, UNEXPECTED_STATE))?;
        confirm::run(context, intent, method, &confirmation)
    }
}
