//! Confirming a PaymentIntent: the moment when money moves, or does not.

use serde_json::Value;

use super::charges::Charge;
use super::{
    NOUN, PaymentIntent, UNEXPECTED_STATE, capture, charges, create, from_path, show, wrong_status,
};
use crate::api::{Context, Job};
use crate::cards::{Decline, Use, Verdict};
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::intents::{self, Status, choose_method};
use crate::payment_methods::{self, Left, PaymentMethod};

/// How a payment is confirmed.
pub(super) struct Confirmation {
    off_session: bool,
    error_on_requires_action: bool,
    return_url: Option<String>,
}

impl Confirmation {
    pub(super) fn read(params: &mut Params) -> ApiResult<Self> {
        let off_session =
            params.choice("off_session", &["true", "false", "one_off", "recurring"])?;
        Ok(Self {
            off_session: off_session.is_some_and(|given| given != "false"),
            error_on_requires_action: params.boolean("error_on_requires_action")?.unwrap_or(false),
            return_url: params.text("return_url")?,
        })
    }
}

/// `POST /v1/payment_intents/{id}/confirm`
pub(crate) fn confirm(id: &str, params: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    let chosen = params.text("payment_method")?;
    let confirmation = Confirmation::read(params)?;
    let capture_method = create::read_capture_method(params)?;
    let usage = params.choice("setup_future_usage", &["off_session", "on_session"])?;
    let receipt_email = params.text("receipt_email")?;
    Ok(Box::new(move |context| {
        let mut intent = from_path(context, &id)?;
        check_confirmable(&intent)?;
        intent.options.setup_future_usage = usage.or(intent.options.setup_future_usage);
        intent.options.capture_method = capture_method.unwrap_or(intent.options.capture_method);
        intent.options.receipt_email = receipt_email.or(intent.options.receipt_email);
        let chosen = chosen.as_ref().or(intent.payment_method.as_ref());
        let customer = intent.customer.as_deref();
        let method = choose_method(context, chosen.map(String::as_str), customer, NOUN)?;
        let method = method.ok_or_else(|| {
            intents::missing_payment_method(NOUN, UNEXPECTED_STATE)
                .with("payment_intent", show(&intent))
        })?;
        run(context, intent, method, &confirmation)
    }))
}

fn check_confirmable(intent: &PaymentIntent) -> ApiResult<()> {
    match intent.status {
        Status::Succeeded => {
            let message = "You cannot confirm this PaymentIntent because it has already succeeded \
                 after being previously confirmed.";
            Err(ApiError::invalid(message)
                .code(UNEXPECTED_STATE)
                .with("payment_intent", show(intent)))
        }
        Status::Canceled | Status::RequiresCapture => {
            let allowed = ["requires_payment_method", "requires_confirmation", "requires_action"];
            Err(wrong_status(intent, ("confirm", "confirmed"), &allowed))
        }
        _ => Ok(()),
    }
}

/// Asks the issuer and stores what came of it. `intent` may be new.
pub(super) fn run(
    context: &mut Context<'_>,
    mut intent: PaymentIntent,
    method: PaymentMethod,
    confirmation: &Confirmation,
) -> ApiResult<Value> {
    intent.options.accepts.check_return_url(confirmation.return_url.as_deref(), NOUN)?;
    if intent.options.statement_descriptor.is_some() {
        let message = "The `statement_descriptor` parameter is not supported for card payments. \
             Use `statement_descriptor_suffix` instead.";
        return Err(ApiError::invalid(message).param("statement_descriptor"));
    }
    intent.payment_method = Some(method.id.clone());
    intent.last_error = Value::Null;
    let of = if confirmation.off_session { Use::PaymentOffSession } else { Use::PaymentOnSession };
    match method.card.behaviour.verdict(of) {
        Verdict::Approved => Ok(succeed(context, intent, method)),
        Verdict::Declined(decline) => Err(fail(context, intent, method, decline)),
        Verdict::AuthenticationNeeded if confirmation.error_on_requires_action => {
            Err(refuse_action(context, intent, &method))
        }
        Verdict::AuthenticationNeeded => {
            intent.status = Status::RequiresAction;
            let shown = show(&intent);
            context.state.payment_intents.put(intent);
            context.happened("payment_intent.requires_action", shown.clone());
            Ok(shown)
        }
    }
}

fn succeed(
    context: &mut Context<'_>,
    mut intent: PaymentIntent,
    mut method: PaymentMethod,
) -> Value {
    method.cvc_check = method.card.cvc_check();
    if method.customer.is_none() {
        match (&intent.customer, intent.options.setup_future_usage) {
            (Some(customer), Some(_)) => method.customer = Some(customer.clone()),
            (None, Some(_)) => method.left = Left::Attaching,
            (_, None) => method.left = Left::Nothing,
        }
    }
    let charge = Charge::of(context, &intent, &method, None);
    intent.latest_charge = Some(charge.id.clone());
    context.state.payment_methods.put(method);
    if intent.options.capture_method == create::MANUAL {
        return capture::hold(context, intent, charge);
    }
    let amount = intent.amount;
    capture::take(context, intent, charge, ("charge.succeeded", amount))
}

/// The failed attempt is a charge as well. Whether Stripe uses up a PaymentMethod with every kind
/// of failed attempt is not documented; reports say that it does, and the strict reading finds
/// more bugs.
fn fail(
    context: &mut Context<'_>,
    mut intent: PaymentIntent,
    mut method: PaymentMethod,
    decline: &'static Decline,
) -> ApiError {
    method.cvc_check = method.card.cvc_check();
    if method.customer.is_none() {
        method.left = Left::Nothing;
    }
    let charge = Charge::of(context, &intent, &method, Some(decline));
    let error = decline
        .error()
        .with("charge", Value::from(charge.id.as_str()))
        .with("payment_method", payment_methods::show(&method));
    intent.latest_charge = Some(charge.id.clone());
    context.happened("charge.failed", charges::show(&charge));
    context.state.charges.put(charge);
    context.state.payment_methods.put(method);
    give_back(context, intent, error)
}

/// `error_on_requires_action`: nobody is there to authenticate. No issuer declined anything, so
/// there is no charge.
fn refuse_action(
    context: &mut Context<'_>,
    intent: PaymentIntent,
    method: &PaymentMethod,
) -> ApiError {
    let message = "This payment required an authentication action to complete, but \
         `error_on_requires_action` was set. When you're ready, you can upgrade your integration \
         to handle actions at \
         https://stripe.com/docs/payments/payment-intents/upgrade-to-handle-actions.";
    let error = ApiError::card("authentication_required", message)
        .decline_code("authentication_not_handled")
        .with("payment_method", payment_methods::show(method));
    give_back(context, intent, error)
}

/// The intent waits for another payment method.
fn give_back(context: &mut Context<'_>, mut intent: PaymentIntent, error: ApiError) -> ApiError {
    intent.status = Status::RequiresPaymentMethod;
    intent.payment_method = None;
    intent.last_error = error.object();
    let shown = show(&intent);
    context.state.payment_intents.put(intent);
    context.happened("payment_intent.payment_failed", shown.clone());
    error.with("payment_intent", shown)
}
