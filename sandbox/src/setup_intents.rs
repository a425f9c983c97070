//! SetupIntents: a card is checked and kept for later, without a charge.
//!
//! Source: Stripe's API reference "SetupIntents", and its page "The Setup Intents API".

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Context, Job};
use crate::cards::{Use, Verdict};
use crate::customers;
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::intents::{self, Accepts, Status, choose_method};
use crate::lists::Page;
use crate::payment_methods::{self, PaymentMethod};
use crate::state::Stored;

const NOUN: &str = "SetupIntent";
const UNEXPECTED_STATE: &str = "setup_intent_unexpected_state";

#[derive(Clone)]
pub(crate) struct SetupIntent {
    id: String,
    client_secret: String,
    created: i64,
    customer: Option<String>,
    payment_method: Option<String>,
    accepts: Accepts,
    usage: &'static str,
    description: Option<String>,
    metadata: BTreeMap<String, String>,
    status: Status,
    cancellation_reason: Option<&'static str>,
    last_error: Value,
}

impl Stored for SetupIntent {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

struct Create {
    customer: Option<String>,
    payment_method: Option<String>,
    accepts: Accepts,
    usage: &'static str,
    description: Option<String>,
    metadata: BTreeMap<String, String>,
    confirm: bool,
    return_url: Option<String>,
}

/// `POST /v1/setup_intents`
pub(crate) fn create(_: &str, params: &mut Params) -> ApiResult<Job> {
    let confirm = params.boolean("confirm")?.unwrap_or(false);
    if !confirm {
        intents::only_when_confirming(params, &["return_url"])?;
    }
    let create = Create {
        confirm,
        customer: params.text("customer")?,
        payment_method: params.text("payment_method")?,
        accepts: Accepts::read(params)?,
        usage: params.choice("usage", &["off_session", "on_session"])?.unwrap_or("off_session"),
        description: params.text("description")?,
        metadata: params.metadata()?,
        return_url: params.text("return_url")?,
    };
    Ok(Box::new(move |context| create.run(context)))
}

impl Create {
    fn run(self, context: &mut Context<'_>) -> ApiResult<Value> {
        if let Some(customer) = &self.customer {
            customers::check_exists(context, customer)?;
        }
        let method =
            choose_method(context, self.payment_method.as_deref(), self.customer.as_deref(), NOUN)?;
        let id = context.state.ids.next("seti");
        let intent = SetupIntent {
            client_secret: context.state.ids.client_secret(&id),
            id,
            created: context.now,
            customer: self.customer,
            payment_method: method.as_ref().map(|method| method.id.clone()),
            accepts: self.accepts,
            usage: self.usage,
            description: self.description,
            metadata: self.metadata,
            status: match method {
                Some(_) => Status::RequiresConfirmation,
                None => Status::RequiresPaymentMethod,
            },
            cancellation_reason: None,
            last_error: Value::Null,
        };
        if !self.confirm {
            let shown = show(&intent);
            context.state.setup_intents.put(intent);
            return Ok(shown);
        }
        let method =
            method.ok_or_else(|| intents::missing_payment_method(NOUN, UNEXPECTED_STATE))?;
        intent.accepts.check_return_url(self.return_url.as_deref(), NOUN)?;
        run(context, intent, method)
    }
}

/// `POST /v1/setup_intents/{id}/confirm`
pub(crate) fn confirm(id: &str, params: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    let (chosen, return_url) = (params.text("payment_method")?, params.text("return_url")?);
    Ok(Box::new(move |context| {
        let intent = from_path(context, &id)?;
        if intent.status.is_final() {
            let allowed = ["requires_payment_method", "requires_confirmation", "requires_action"];
            return Err(wrong_status(&intent, ("confirm", "confirmed"), &allowed));
        }
        let chosen = chosen.as_ref().or(intent.payment_method.as_ref());
        let method =
            choose_method(context, chosen.map(String::as_str), intent.customer.as_deref(), NOUN)?
                .ok_or_else(|| {
                intents::missing_payment_method(NOUN, UNEXPECTED_STATE)
                    .with("setup_intent", show(&intent))
            })?;
        intent.accepts.check_return_url(return_url.as_deref(), NOUN)?;
        run(context, intent, method)
    }))
}

/// `POST /v1/setup_intents/{id}/cancel`
pub(crate) fn cancel(id: &str, params: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    let reason = params
        .choice("cancellation_reason", &["abandoned", "duplicate", "requested_by_customer"])?;
    Ok(Box::new(move |context| {
        let mut intent = from_path(context, &id)?;
        if intent.status.is_final() {
            let allowed = ["requires_payment_method", "requires_confirmation", "requires_action"];
            return Err(wrong_status(&intent, ("cancel", "canceled"), &allowed));
        }
        intent.status = Status::Canceled;
        intent.cancellation_reason = reason;
        let shown = show(&intent);
        context.state.setup_intents.put(intent);
        Ok(shown)
    }))
}

fn wrong_status(intent: &SetupIntent, verb: (&str, &str), allowed: &[&str]) -> ApiError {
    intents::wrong_status((NOUN, UNEXPECTED_STATE), verb, intent.status.name(), allowed)
        .with("setup_intent", show(intent))
}

/// Asks the issuer and stores what came of it.
fn run(
    context: &mut Context<'_>,
    mut intent: SetupIntent,
    mut method: PaymentMethod,
) -> ApiResult<Value> {
    intent.payment_method = Some(method.id.clone());
    intent.last_error = Value::Null;
    let refusal = match method.card.behaviour.verdict(Use::Setup) {
        Verdict::AuthenticationNeeded => {
            intent.status = Status::RequiresAction;
            None
        }
        Verdict::Approved => {
            intent.status = Status::Succeeded;
            method.cvc_check = method.card.cvc_check();
            if method.customer.is_none() {
                method.customer.clone_from(&intent.customer);
            }
            None
        }
        Verdict::Declined(decline) => {
            intent.status = Status::RequiresPaymentMethod;
            intent.payment_method = None;
            method.cvc_check = method.card.cvc_check();
            let error = decline.error().with("payment_method", payment_methods::show(&method));
            intent.last_error = error.object();
            Some(error)
        }
    };
    let shown = show(&intent);
    context.state.payment_methods.put(method);
    context.state.setup_intents.put(intent);
    match refusal {
        Some(error) => Err(error.with("setup_intent", shown)),
        None => Ok(shown),
    }
}

/// `GET /v1/setup_intents/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| Ok(show(&from_path(context, &id)?))))
}

/// `GET /v1/setup_intents`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let customer = params.text("customer")?;
    let method = params.text("payment_method")?;
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted = |intent: &SetupIntent| {
            (customer.is_none() || intent.customer == customer)
                && (method.is_none() || intent.payment_method == method)
        };
        page.list(&context.state.setup_intents, ("setup_intent", "/v1/setup_intents"), wanted, show)
    }))
}

fn from_path(context: &Context<'_>, id: &str) -> ApiResult<SetupIntent> {
    let missing = || ApiError::missing("setup_intent", id, "intent").status(StatusCode::NOT_FOUND);
    context.state.setup_intents.get(id).ok_or_else(missing)
}

fn show(intent: &SetupIntent) -> Value {
    let needs_action = intent.status == Status::RequiresAction;
    json!({
        "id": intent.id,
        "object": "setup_intent",
        "allowed_payment_method_types": intent.accepts.show_allowed(),
        "application": null,
        "automatic_payment_methods": intent.accepts.show(),
        "cancellation_reason": intent.cancellation_reason,
        "client_secret": intent.client_secret,
        "created": intent.created,
        "customer": intent.customer,
        "customer_account": null,
        "description": intent.description,
        "flow_directions": null,
        "last_setup_error": intent.last_error,
        "latest_attempt": null,
        "livemode": false,
        "mandate": null,
        "metadata": intent.metadata,
        "next_action": needs_action.then(intents::next_action),
        "on_behalf_of": null,
        "payment_method": intent.payment_method,
        "payment_method_configuration_details": null,
        "payment_method_options": {
            "card": {
                "mandate_options": null,
                "network": null,
                "request_three_d_secure": "automatic",
            },
        },
        "payment_method_types": ["card"],
        "single_use_mandate": null,
        "status": intent.status.name(),
        "usage": intent.usage,
    })
}
