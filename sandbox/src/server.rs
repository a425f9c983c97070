//! HTTP around the API.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Answer};
use crate::connection::{Cut, Severable};
use crate::error::{ApiError, ApiResult};
use crate::faults::{self, Crash, FaultKind};
use crate::limits::{self, Limit};
use crate::state::State;
use crate::{Call, Config, control, idempotency, network, webhooks};

const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a stalled answer does not come.
const STALL: Duration = Duration::from_secs(60);
const PROXY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
     <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
/// What an answer says when the request named no version.
pub(crate) const DEFAULT_VERSION: &str = "2026-09-30.endive";

pub(crate) struct App {
    pub(crate) config: Config,
    state: Mutex<State>,
    stop: CancellationToken,
}

impl App {
    pub(crate) fn new(config: Config, seed: u64, stop: CancellationToken) -> Self {
        Self { config, state: Mutex::new(State::new(seed)), stop }
    }

    /// Waits until the sandbox is told to stop.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// A panic while the lock was held is a bug of the sandbox; the next test should still see
    /// its own failure and not that of the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves on a task until the app is told to stop; then open requests are still answered.
pub(crate) async fn serve(
    app: Arc<App>,
    address: SocketAddr,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .nest("/sandbox", control::guarded(control::routes().merge(network::routes())))
        .fallback(respond)
        .with_state(Arc::clone(&app));
    let service = router.into_make_service_with_connect_info::<Cut>();
    let task = tokio::spawn(async move {
        let stop = app.stop.clone().cancelled_owned();
        let server = axum::serve(Severable(listener), service).with_graceful_shutdown(stop);
        let (served, ()) = tokio::join!(server.into_future(), webhooks::work(app));
        if let Err(error) = served {
            tracing::error!(%error, "the sandbox stopped serving");
        }
    });
    Ok((address, task))
}

/// Keeps an idempotency key in use until the answer has left, or until nobody waits for it.
struct InFlight {
    app: Arc<App>,
    key: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.app.lock().saved_answers.landed(&self.key);
    }
}

/// What becomes of a request once it had its effect, if it had one.
struct Reply {
    outcome: Outcome,
    /// The idempotency key that is in use until then.
    holds_key: Option<String>,
    /// How long Stripe takes.
    wait: Duration,
}

/// What happens on the connection.
enum Outcome {
    Whole(Answer),
    /// The second half is missing.
    Half(Answer),
    /// A proxy's page.
    BadGateway,
    Reset,
    /// Nothing for a while, then a reset.
    Silence,
}

impl Outcome {
    /// What the client will see of it.
    fn status(&self) -> u16 {
        match self {
            Self::Whole(answer) | Self::Half(answer) => answer.status.as_u16(),
            Self::BadGateway => StatusCode::BAD_GATEWAY.as_u16(),
            Self::Reset | Self::Silence => 0,
        }
    }
}

async fn respond(
    Shared(app): Shared<Arc<App>>,
    ConnectInfo(connection): ConnectInfo<Cut>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.as_ref().map_err(|_| {
        ApiError::invalid(format!("Request body too large: at most {MAX_BODY_BYTES} bytes."))
            .status(StatusCode::PAYLOAD_TOO_LARGE)
    });
    let reply = {
        let mut state = app.lock();
        let (method, path) = (parts.method.as_str(), parts.uri.path());
        let admitted = state.limiter.admit(method, path, app.config.clock.now());
        let reply = match admitted {
            Ok(()) => {
                let fault = state.faults.strike(method, path);
                execute(&mut state, &app.config, &parts, body, fault)
            }
            Err(limit) => Reply {
                outcome: rate_limited(&mut state, limit),
                holds_key: None,
                wait: app.config.latency,
            },
        };
        state.record(Call {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            status: reply.outcome.status(),
        });
        reply
    };
    let status = reply.outcome.status();
    let path = without_cards(parts.uri.path());
    tracing::debug!(method = %parts.method, path, status, "answered");
    deliver(&app, &parts, reply, &connection).await
}

/// A path as it may be logged: whoever has the key can charge what a PaymentMethod's id names.
fn without_cards(path: &str) -> String {
    let shown = |part| if str::starts_with(part, "pm_") { "pm" } else { part };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

/// Lets the request have its effect, unless a fault is in the way.
fn execute(
    state: &mut State,
    config: &Config,
    parts: &Parts,
    body: ApiResult<&Bytes>,
    fault: Option<FaultKind>,
) -> Reply {
    let nothing_ran = |outcome| Reply { outcome, holds_key: None, wait: config.latency };
    let crash = match fault {
        Some(FaultKind::ResetBefore) => return nothing_ran(Outcome::Reset),
        Some(FaultKind::BadGateway { ran: false }) => return nothing_ran(Outcome::BadGateway),
        Some(FaultKind::Stall { ran: false }) => return nothing_ran(Outcome::Silence),
        Some(FaultKind::RateLimited) => return nothing_ran(rate_limited(state, Limit::Account)),
        Some(FaultKind::Unauthorized) => {
            return nothing_ran(refused(state, faults::key_expired()));
        }
        Some(FaultKind::Conflict) => {
            return nothing_ran(refused(state, idempotency::in_use_by(&parts.headers)));
        }
        Some(FaultKind::ServerError { ran: false }) => Some(Crash::BeforeEffect),
        Some(FaultKind::ServerError { ran: true }) => Some(Crash::AfterEffect),
        _ => None,
    };
    let answer = api::answer(state, config, parts, body, crash);
    let holds_key = answer.holds_key.clone();
    let mut wait = config.latency;
    let outcome = match fault {
        Some(FaultKind::ResetAfter) => Outcome::Reset,
        Some(FaultKind::BadGateway { .. }) => Outcome::BadGateway,
        Some(FaultKind::Stall { .. }) => Outcome::Silence,
        Some(FaultKind::Truncated) => Outcome::Half(answer),
        Some(FaultKind::Latency { millis }) => {
            wait = wait.saturating_add(Duration::from_millis(millis));
            Outcome::Whole(answer)
        }
        _ => Outcome::Whole(answer),
    };
    Reply { outcome, holds_key, wait }
}

fn refused(state: &mut State, error: ApiError) -> Outcome {
    Outcome::Whole(api::refuse(error, state.ids.next("req")))
}

fn rate_limited(state: &mut State, limit: Limit) -> Outcome {
    let answer = api::refuse(limits::refusal(), state.ids.next("req"));
    Outcome::Whole(Answer { limit: Some(limit), ..answer })
}

/// Sends what the client is to see.
async fn deliver(app: &Arc<App>, parts: &Parts, reply: Reply, connection: &Cut) -> Response {
    let in_flight = reply.holds_key.map(|key| InFlight { app: Arc::clone(app), key });
    if !reply.wait.is_zero() {
        tokio::time::sleep(reply.wait).await;
    }
    drop(in_flight);
    match reply.outcome {
        Outcome::Whole(answer) => into_response(parts, answer),
        Outcome::Half(mut answer) => {
            answer.body.truncate(answer.body.len() / 2);
            into_response(parts, answer)
        }
        Outcome::BadGateway => (StatusCode::BAD_GATEWAY, Html(PROXY_PAGE)).into_response(),
        Outcome::Reset => connection.reset(),
        Outcome::Silence => {
            tokio::select! {
                () = tokio::time::sleep(STALL) => {}
                () = app.stopped() => {}
            }
            connection.reset()
        }
    }
}

fn into_response(parts: &Parts, answer: Answer) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    let mut put = |name: &'static str, text: &str| {
        // Ids are letters and digits: every one of them is a header value.
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("request-id", &answer.request_id);
    if let Some(original) = &answer.original_request {
        put("original-request", original);
        put("idempotent-replayed", "true");
    }
    if let Some(limit) = answer.limit {
        put("stripe-rate-limited-reason", limit.reason());
        put("stripe-should-retry", "true");
    }
    let version = HeaderValue::from_static(DEFAULT_VERSION);
    let version = parts.headers.get("stripe-version").cloned().unwrap_or(version);
    headers.insert("stripe-version", version);
    if let Some(key) = parts.headers.get("idempotency-key") {
        headers.insert("idempotency-key", key.clone());
    }
    if answer.status == StatusCode::UNAUTHORIZED {
        headers.insert("www-authenticate", HeaderValue::from_static("Bearer realm=\"Stripe\""));
    }
    (answer.status, headers, answer.body).into_response()
}
