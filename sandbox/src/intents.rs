//! What PaymentIntents and SetupIntents have in common.

use serde_json::{Value, json};

use crate::api::Context;
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::payment_methods::{self, PaymentMethod};

/// How far an intent is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    /// The money is held, not taken.
    RequiresCapture,
    Succeeded,
    Canceled,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::RequiresCapture => "requires_capture",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }

    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Canceled)
    }
}

/// The PaymentMethod that a caller names, if it can be used with this customer.
pub(crate) fn choose_method(
    context: &mut Context<'_>,
    id: Option<&str>,
    customer: Option<&str>,
    noun: &str,
) -> ApiResult<Option<PaymentMethod>> {
    let Some(id) = id else { return Ok(None) };
    let method = payment_methods::resolve(context, id, "payment_method")?;
    method.check_usable(customer, noun)?;
    Ok(Some(method))
}

/// Which payment methods an intent takes.
#[derive(Clone, Copy)]
pub(crate) enum Accepts {
    /// `automatic_payment_methods`, Stripe's default, with its `allow_redirects`.
    Automatic { allow_redirects: &'static str },
    /// `allowed_payment_method_types[]=card`, before version 2026-09-30 `payment_method_types[]`.
    CardOnly,
}

impl Accepts {
    pub(crate) fn read(params: &mut Params) -> ApiResult<Self> {
        let automatic = params.object("automatic_payment_methods", |automatic| {
            let enabled = automatic.boolean("enabled")?;
            let name = automatic.full_name("enabled");
            let allow_redirects = automatic.choice("allow_redirects", &["always", "never"])?;
            let enabled = enabled.ok_or_else(|| crate::form::missing(&name))?;
            Ok(enabled.then_some(allow_redirects.unwrap_or("always")))
        })?;
        let types = read_types(params)?;
        match (automatic, types.is_empty()) {
            (Some(Some(_)), false) => {
                let message = "You may only specify one of these parameters: \
                     automatic_payment_methods, allowed_payment_method_types.";
                Err(ApiError::invalid(message).code("parameters_exclusive"))
            }
            (Some(Some(allow_redirects)), true) => Ok(Self::Automatic { allow_redirects }),
            (None, true) => Ok(Self::Automatic { allow_redirects: "always" }),
            (Some(None), _) | (None, false) => Ok(Self::CardOnly),
        }
    }

    pub(crate) fn show(self) -> Value {
        match self {
            Self::Automatic { allow_redirects } => {
                json!({ "enabled": true, "allow_redirects": allow_redirects })
            }
            Self::CardOnly => Value::Null,
        }
    }

    /// `allowed_payment_method_types` of the object.
    pub(crate) fn show_allowed(self) -> Value {
        match self {
            Self::Automatic { .. } => Value::Null,
            Self::CardOnly => json!(["card"]),
        }
    }

    /// Payment methods that redirect need somewhere to return to, even if a card is used.
    pub(crate) fn check_return_url(self, return_url: Option<&str>, noun: &str) -> ApiResult<()> {
        let redirects = matches!(self, Self::Automatic { allow_redirects: "always" });
        if !redirects || return_url.is_some() {
            return Ok(());
        }
        Err(ApiError::invalid(format!(
            "This {noun} is configured to accept payment methods enabled in your Dashboard. \
                 Because some of these payment methods might redirect your customer off of your \
                 page, you must provide a `return_url`. If you don't want to accept \
                 redirect-based payment methods, set `automatic_payment_methods[enabled]` to \
                 `true` and `automatic_payment_methods[allow_redirects]` to `never` when creating \
                 Setup Intents and Payment Intents."
        )))
    }
}

/// Both spellings are taken whatever the request's version, as SDKs of both ages are in use.
fn read_types(params: &mut Params) -> ApiResult<Vec<String>> {
    let (new, old) = ("allowed_payment_method_types", "payment_method_types");
    let name = if params.has(new) { new } else { old };
    let types = params.texts(name)?;
    match types.iter().find(|kind| *kind != "card") {
        None => Ok(types),
        Some(other) => {
            let message = format!(
                "The payment method type \"{other}\" is invalid: this sandbox knows cards only."
            );
            Err(ApiError::invalid(message).param(name))
        }
    }
}

/// What the cardholder must do. The sandbox has no page to do it on.
pub(crate) fn next_action() -> Value {
    json!({
        "type": "use_stripe_sdk",
        "use_stripe_sdk": { "type": "three_d_secure_redirect" },
    })
}

/// Parameters that only mean something while confirming.
pub(crate) fn only_when_confirming(params: &Params, names: &[&str]) -> ApiResult<()> {
    match names.iter().find(|name| params.has(name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!("You can only pass `{name}` when `confirm` is set to true.");
            Err(ApiError::invalid(message).param(*name))
        }
    }
}

/// An intent without a payment method cannot be confirmed.
pub(crate) fn missing_payment_method(noun: &str, code: &str) -> ApiError {
    ApiError::invalid(format!(
        "You cannot confirm this {noun} because it's missing a payment method. You can either \
             update the {noun} with a payment method and then confirm it again, or confirm it \
             again directly with a payment method or ConfirmationToken."
    ))
    .code(code)
}

/// `verb` is "confirm", "capture" or "cancel".
pub(crate) fn wrong_status(
    (noun, code): (&str, &str),
    (verb, participle): (&str, &str),
    status: &str,
    allowed: &[&str],
) -> ApiError {
    ApiError::invalid(format!(
        "You cannot {verb} this {noun} because it has a status of {status}. Only a {noun} with \
             one of the following statuses may be {participle}: {}.",
        allowed.join(", ")
    ))
    .code(code)
}
