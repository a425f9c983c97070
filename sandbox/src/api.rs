//! One request, one way through: key, route, parameters, idempotency, execution, answer.

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use serde_json::Value;

use crate::auth::{self, KeyKind};
use crate::error::{ApiError, ApiResult};
use crate::expand::Expand;
use crate::faults::{self, Crash};
use crate::form::{Form, Params};
use crate::idempotency::{self, Keyed, Saved};
use crate::limits::Limit;
use crate::payment_intents::charges;
use crate::state::State;
use crate::{
    Config, account, balance, customers, disputes, events, fraud_warnings, payment_intents,
    payment_methods, refunds, setup_intents,
};

/// What a request that passed its checks does. Whatever it answers is saved under its key.
pub(crate) type Job = Box<dyn FnOnce(&mut Context<'_>) -> ApiResult<Value>>;

/// What a job works on.
pub(crate) struct Context<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) config: &'a Config,
    pub(crate) key: KeyKind,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// An answer, and how it came about.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) request_id: String,
    /// The request that ran, when this is its saved answer.
    pub(crate) original_request: Option<String>,
    /// The idempotency key that stays in use until this answer has left.
    pub(crate) holds_key: Option<String>,
    /// The rate limit that the request met.
    pub(crate) limit: Option<Limit>,
}

/// A route: how its parameters become a job.
struct Endpoint {
    prepare: fn(&str, &mut Params) -> ApiResult<Job>,
    /// The `id` in the path.
    id: String,
    /// What it answers with, for `expand`.
    object: &'static str,
    list_of: &'static str,
}

impl Endpoint {
    fn one(
        object: &'static str,
        id: &str,
        prepare: fn(&str, &mut Params) -> ApiResult<Job>,
    ) -> Self {
        Self { prepare, id: id.to_owned(), object, list_of: "" }
    }

    fn list(
        list_of: &'static str,
        id: &str,
        prepare: fn(&str, &mut Params) -> ApiResult<Job>,
    ) -> Self {
        Self { prepare, id: id.to_owned(), object: "list", list_of }
    }
}

const CARD: &str = "payment_method";
const CUSTOMER: &str = "customer";
const PAYMENT: &str = "payment_intent";
const SETUP: &str = "setup_intent";
const CHARGE: &str = "charge";
const REFUND: &str = "refund";
const DISPUTE: &str = "dispute";
const WARNING: &str = "radar.early_fraud_warning";
const BALANCE: &str = "balance_transaction";

fn route(method: &Method, path: &str) -> Option<Endpoint> {
    let path: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
    Some(match (method.as_str(), path.as_slice()) {
        ("POST", ["payment_methods"]) => Endpoint::one(CARD, "", payment_methods::create),
        ("GET", ["payment_methods"]) => Endpoint::list(CARD, "", payment_methods::list),
        ("GET", ["payment_methods", id]) => Endpoint::one(CARD, id, payment_methods::retrieve),
        ("POST", ["payment_methods", id, "attach"]) => {
            Endpoint::one(CARD, id, payment_methods::attach)
        }
        ("POST", ["payment_methods", id, "detach"]) => {
            Endpoint::one(CARD, id, payment_methods::detach)
        }
        ("POST", ["customers"]) => Endpoint::one(CUSTOMER, "", customers::create),
        ("GET", ["customers"]) => Endpoint::list(CUSTOMER, "", customers::list),
        ("GET", ["customers", "search"]) => Endpoint::list(CUSTOMER, "", customers::search),
        ("GET", ["customers", id]) => Endpoint::one(CUSTOMER, id, customers::retrieve),
        ("GET", ["customers", id, "payment_methods"]) => {
            Endpoint::list(CARD, id, payment_methods::list_of_customer)
        }
        ("POST", ["setup_intents"]) => Endpoint::one(SETUP, "", setup_intents::create),
        ("GET", ["setup_intents"]) => Endpoint::list(SETUP, "", setup_intents::list),
        ("GET", ["setup_intents", id]) => Endpoint::one(SETUP, id, setup_intents::retrieve),
        ("POST", ["setup_intents", id, "confirm"]) => {
            Endpoint::one(SETUP, id, setup_intents::confirm)
        }
        ("POST", ["setup_intents", id, "cancel"]) => {
            Endpoint::one(SETUP, id, setup_intents::cancel)
        }
        ("POST", ["payment_intents"]) => Endpoint::one(PAYMENT, "", payment_intents::create),
        ("GET", ["payment_intents"]) => Endpoint::list(PAYMENT, "", payment_intents::list),
        ("GET", ["payment_intents", id]) => Endpoint::one(PAYMENT, id, payment_intents::retrieve),
        ("POST", ["payment_intents", id, "confirm"]) => {
            Endpoint::one(PAYMENT, id, payment_intents::confirm)
        }
        ("POST", ["payment_intents", id, "cancel"]) => {
            Endpoint::one(PAYMENT, id, payment_intents::cancel)
        }
        ("POST", ["payment_intents", id, "capture"]) => {
            Endpoint::one(PAYMENT, id, payment_intents::capture)
        }
        _ => return route_after_payment(method, &path),
    })
}

/// What becomes of payments, and what the account is told.
fn route_after_payment(method: &Method, path: &[&str]) -> Option<Endpoint> {
    Some(match (method.as_str(), path) {
        ("GET", ["charges"]) => Endpoint::list(CHARGE, "", charges::list),
        ("GET", ["charges", id]) => Endpoint::one(CHARGE, id, charges::retrieve),
        ("POST", ["refunds"]) => Endpoint::one(REFUND, "", refunds::create),
        ("GET", ["refunds"]) => Endpoint::list(REFUND, "", refunds::list),
        ("GET", ["refunds", id]) => Endpoint::one(REFUND, id, refunds::retrieve),
        ("GET", ["disputes"]) => Endpoint::list(DISPUTE, "", disputes::list),
        ("GET", ["disputes", id]) => Endpoint::one(DISPUTE, id, disputes::retrieve),
        ("GET", ["radar", "early_fraud_warnings"]) => {
            Endpoint::list(WARNING, "", fraud_warnings::list)
        }
        ("GET", ["radar", "early_fraud_warnings", id]) => {
            Endpoint::one(WARNING, id, fraud_warnings::retrieve)
        }
        ("GET", ["balance_transactions"]) => Endpoint::list(BALANCE, "", balance::list),
        ("GET", ["balance_transactions", id]) => Endpoint::one(BALANCE, id, balance::retrieve),
        ("GET", ["events"]) => Endpoint::list("event", "", events::list),
        ("GET", ["events", id]) => Endpoint::one("event", id, events::retrieve),
        ("GET", ["account"]) => Endpoint::one("account", "", account::retrieve),
        _ => return None,
    })
}

/// A request that could not be read completely is answered without being looked at.
pub(crate) fn answer(
    state: &mut State,
    config: &Config,
    parts: &Parts,
    body: ApiResult<&Bytes>,
    crash: Option<Crash>,
) -> Answer {
    let request_id = state.ids.next("req");
    let outcome = body.and_then(|body| handle(state, config, parts, body, crash, &request_id));
    outcome.unwrap_or_else(|error| refuse(error, request_id))
}

/// The answer to a request that does not run.
pub(crate) fn refuse(error: ApiError, request_id: String) -> Answer {
    let (status, body) = error.into_parts();
    let body = body.to_string().into();
    Answer { status, body, request_id, original_request: None, holds_key: None, limit: None }
}

/// Errors from here were found before the request ran: they are never saved.
fn handle(
    state: &mut State,
    config: &Config,
    parts: &Parts,
    body: &Bytes,
    crash: Option<Crash>,
    request_id: &str,
) -> ApiResult<Answer> {
    let key = config.keys.authenticate(&parts.headers)?;
    check_version(parts)?;
    let path = parts.uri.path();
    let endpoint = route(&parts.method, path).ok_or_else(|| unrecognized(parts))?;
    let creates_card = (&parts.method, path) == (&Method::POST, "/v1/payment_methods");
    if key == KeyKind::Publishable && !creates_card {
        return Err(auth::secret_key_required());
    }
    let form = read_form(parts, body)?;
    let now = config.clock.now();
    let keyed = keyed(parts, &form)?;
    if let Some(keyed) = &keyed
        && let Some(saved) = state.saved_answers.find(keyed, now)?
    {
        return Ok(replay(saved, request_id));
    }
    let mut params = form.into_params()?;
    let expand = Expand::read(&mut params, endpoint.object, endpoint.list_of)?;
    let job = (endpoint.prepare)(&endpoint.id, &mut params)?;
    params.finish()?;
    let run = || job(&mut Context { state, config, key, now });
    let outcome = match crash {
        None => run(),
        Some(Crash::BeforeEffect) => Err(faults::crashed()),
        // What a bank declined ran; what Stripe refused before that did not.
        Some(Crash::AfterEffect) => match run() {
            Err(refusal) if !refusal.is_decline() => Err(refusal),
            _ => Err(faults::crashed()),
        },
    };
    let saved = execute(state, outcome, &expand, request_id);
    let holds_key = keyed.as_ref().map(|keyed| keyed.key.clone());
    if let Some(keyed) = keyed {
        state.saved_answers.save(keyed, saved.clone(), now);
    }
    Ok(Answer {
        status: saved.status,
        body: saved.body,
        request_id: saved.request_id,
        original_request: None,
        holds_key,
        limit: None,
    })
}

/// What a finished job answers with, to be sent now and kept.
fn execute(state: &State, outcome: ApiResult<Value>, expand: &Expand, request_id: &str) -> Saved {
    let (status, body) = match outcome {
        Ok(mut object) => {
            expand.apply(state, &mut object);
            (StatusCode::OK, object)
        }
        Err(error) => error.into_parts(),
    };
    Saved { status, body: body.to_string().into(), request_id: request_id.to_owned() }
}

fn replay(saved: Saved, request_id: &str) -> Answer {
    Answer {
        status: saved.status,
        body: saved.body,
        request_id: request_id.to_owned(),
        original_request: Some(saved.request_id),
        holds_key: None,
        limit: None,
    }
}

/// Only POST has idempotency keys; elsewhere they are ignored.
fn keyed(parts: &Parts, form: &Form) -> ApiResult<Option<Keyed>> {
    if parts.method != Method::POST {
        return Ok(None);
    }
    let key = idempotency::key_of(&parts.headers)?;
    let path = parts.uri.path().to_owned();
    Ok(key.map(|key| Keyed { key, path, digest: form.digest() }))
}

fn read_form(parts: &Parts, body: &Bytes) -> ApiResult<Form> {
    let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    let is_form = media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded");
    if !body.is_empty() && (parts.method != Method::POST || !is_form) {
        return Err(ApiError::invalid(
            "Invalid request (check that your POST content type is \
                 application/x-www-form-urlencoded). If you have any questions, we can help at \
                 https://support.stripe.com/.",
        ));
    }
    Form::decode(parts.uri.query().unwrap_or_default(), body)
}

/// A version is a date, since 2024 followed by a name: `2026-09-30.endive`.
fn check_version(parts: &Parts) -> ApiResult<()> {
    let Some(value) = parts.headers.get("stripe-version") else { return Ok(()) };
    let version = value.to_str().unwrap_or_default();
    let date = version.split('.').next().unwrap_or_default();
    if date.parse::<jiff::civil::Date>().is_ok() && date.len() == "2026-09-30".len() {
        return Ok(());
    }
    Err(ApiError::invalid(format!("Invalid Stripe API version: {version}")))
}

fn unrecognized(parts: &Parts) -> ApiError {
    let (method, path) = (&parts.method, parts.uri.path());
    ApiError::invalid(format!(
        "Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we \
             can help at https://support.stripe.com/."
    ))
    .status(StatusCode::NOT_FOUND)
}
