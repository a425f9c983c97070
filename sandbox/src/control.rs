//! The sandbox's own routes, under `/sandbox`, for whoever runs it: a person with curl, or a test
//! in another language.
//!
//! They need no key. What keeps web pages out, which can send requests to loopback too, is that a
//! browser names itself with `Origin`, and that a name that was made to lead to this machine
//! stands in `Host`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequest, Path, Request, State as Shared};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::events;
use crate::faults::Fault;
use crate::limits::Rates;
use crate::post::loopback;
use crate::server::App;
use crate::state::State;
use crate::webhooks::{Delivery, Webhook};

const MAX_BODY_BYTES: usize = 64 * 1024;
/// A hundred years.
const MAX_ADVANCE_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;

type Routes = Router<Arc<App>>;

/// What each request is for, as `GET /sandbox` tells it.
const HELP: [(&str, &str); 16] = [
    ("GET /sandbox", "this list"),
    ("GET /sandbox/faults", "the faults to come, and how many requests have met one"),
    (
        "POST /sandbox/faults",
        r#"injects a fault: {"method":"POST","path":"/v1/payment_intents","kind":"reset_after"}"#,
    ),
    ("DELETE /sandbox/faults", "forgets the faults to come"),
    ("GET /sandbox/calls", "the requests received so far"),
    ("GET /sandbox/events", "what happened so far"),
    ("POST /sandbox/events/{id}/deliver", "sends one event to the webhook"),
    (
        "PUT /sandbox/webhook",
        r#"where events go: {"url":"http://127.0.0.1:3000/webhooks","duplicate":true}; {"url":null} for nowhere"#,
    ),
    ("GET /sandbox/deliveries", "the attempts to send events so far"),
    ("POST /sandbox/clock", r#"moves the clock forward: {"advance_seconds":86400}"#),
    (
        "POST /sandbox/disputes",
        r#"the cardholder charges back or inquires: {"payment_intent":"pi_...","kind":"chargeback"}"#,
    ),
    (
        "POST /sandbox/disputes/{id}",
        r#"how it ends (or "lost", "warning_closed", "escalate"): {"end":"won"}"#,
    ),
    ("POST /sandbox/refunds/{id}/succeed", "a pending refund reaches the card"),
    ("POST /sandbox/refunds/{id}/fail", "a refund does not reach the card"),
    (
        "POST /sandbox/early_fraud_warnings",
        r#"the issuer reports fraud: {"payment_intent":"pi_..."}"#,
    ),
    (
        "PUT /sandbox/rate_limit",
        r#"limits requests: {"per_endpoint_per_second":25,"per_account_per_second":100}; null for no limits"#,
    ),
];

pub(crate) fn routes() -> Routes {
    Router::new()
        .route("/", get(help))
        .route("/faults", get(faults).post(inject).delete(clear_faults))
        .route("/calls", get(calls))
        .route("/events", get(list_events))
        .route("/events/{id}/deliver", post(deliver))
        .route("/webhook", put(set_webhook))
        .route("/deliveries", get(deliveries))
        .route("/clock", post(advance))
        .route("/rate_limit", put(set_rates))
        .route("/{*unknown}", any(unknown))
        .method_not_allowed_fallback(unknown)
}

async fn unknown() -> Refusal {
    let message = "there is no such request; GET /sandbox lists what there is";
    Refusal::new(StatusCode::NOT_FOUND, message)
}

/// Routes that only programs on this machine may use.
pub(crate) fn guarded(routes: Routes) -> Routes {
    routes.layer(middleware::from_fn(only_local_programs))
}

/// Keeps out web pages.
pub(crate) async fn only_local_programs(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    if host.is_none_or(|host| loopback(host.host()).is_none()) {
        let message = "the host must be localhost or a loopback address";
        return Refusal::new(StatusCode::FORBIDDEN, message).into_response();
    }
    if request.headers().contains_key(ORIGIN) {
        let message = "web pages have no business here: send no Origin header";
        return Refusal::new(StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

/// A request that did nothing, and what to do instead.
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn invalid(message: &impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

/// An answer, or as a parameter a body: JSON of exactly this form and of limited size, whatever
/// its `Content-Type` says.
pub(crate) struct Json<T>(pub(crate) T);

impl IntoResponse for Json<Value> {
    fn into_response(self) -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (headers, format!("{:#}\n", self.0)).into_response()
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = to_bytes(request.into_body(), MAX_BODY_BYTES).await.map_err(|_| {
            let message = format!("a body has at most {MAX_BODY_BYTES} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        })?;
        serde_json::from_slice(&body).map(Self).map_err(|error| Refusal::invalid(&error))
    }
}

type Answer = Result<Json<Value>, Refusal>;

async fn help() -> Json<Value> {
    let help = HELP.map(|(request, does)| json!({ "request": request, "does": does }));
    Json(json!({ "requests": help }))
}

fn show_faults(state: &State) -> Json<Value> {
    Json(json!({ "waiting": state.faults.waiting(), "hit": state.faults.hit() }))
}

async fn faults(Shared(app): Shared<Arc<App>>) -> Json<Value> {
    show_faults(&app.lock())
}

async fn inject(Shared(app): Shared<Arc<App>>, Json(fault): Json<Fault>) -> Json<Value> {
    let mut state = app.lock();
    state.faults.inject(fault);
    show_faults(&state)
}

async fn clear_faults(Shared(app): Shared<Arc<App>>) -> Json<Value> {
    let mut state = app.lock();
    state.faults.clear();
    show_faults(&state)
}

async fn calls(Shared(app): Shared<Arc<App>>) -> Json<Value> {
    Json(json!({ "data": app.lock().calls() }))
}

async fn list_events(Shared(app): Shared<Arc<App>>) -> Json<Value> {
    let state = app.lock();
    let data: Vec<Value> = state.events.newest_first().rev().map(events::show).collect();
    Json(json!({ "data": data }))
}

async fn deliver(Shared(app): Shared<Arc<App>>, Path(id): Path<String>) -> Answer {
    let mut state = app.lock();
    if !state.events.contains(&id) {
        let message = format!("there is no event `{id}`; GET /sandbox/events lists them");
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    }
    if !state.outbox.send(&id) {
        let message = "there is no webhook to send it to: PUT /sandbox/webhook first";
        return Err(Refusal::new(StatusCode::CONFLICT, message));
    }
    Ok(Json(json!({ "event": id, "queued": true })))
}

async fn deliveries(Shared(app): Shared<Arc<App>>) -> Json<Value> {
    Json(json!({ "data": app.lock().outbox.records() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookBody {
    url: Option<String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    reorder: bool,
    #[serde(default)]
    delay_millis: u64,
    #[serde(default)]
    drop: u32,
    #[serde(default)]
    manual: bool,
}

async fn set_webhook(Shared(app): Shared<Arc<App>>, Json(body): Json<WebhookBody>) -> Answer {
    let WebhookBody { url, secrets, duplicate, reorder, delay_millis, drop, manual } = body;
    let delivery = Delivery { duplicate, reorder, delay_millis, drop, manual };
    let webhook = url.map(|url| Webhook::new(&url, secrets, delivery)).transpose();
    let mut state = app.lock();
    state.outbox.set(webhook.map_err(|error| Refusal::invalid(&error))?);
    let outbox = &state.outbox;
    Ok(Json(json!({
        "url": outbox.url(),
        "secrets": outbox.secrets(),
        "delivery": outbox.delivery(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockBody {
    advance_seconds: u64,
}

async fn advance(Shared(app): Shared<Arc<App>>, Json(body): Json<ClockBody>) -> Answer {
    if body.advance_seconds > MAX_ADVANCE_SECONDS {
        return Err(Refusal::invalid(&"a clock moves by at most a hundred years at once"));
    }
    app.config.clock.advance(Duration::from_secs(body.advance_seconds));
    Ok(Json(json!({ "now": app.config.clock.now() })))
}

async fn set_rates(Shared(app): Shared<Arc<App>>, Json(rates): Json<Option<Rates>>) -> Json<Value> {
    app.lock().limiter.set(rates);
    Json(json!({ "rate_limit": rates }))
}
