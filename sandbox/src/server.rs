//! HTTP around the API.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State as Shared};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Answer};
use crate::error::ApiError;
use crate::network;
use crate::state::State;
use crate::{Call, Config};

const MAX_BODY_BYTES: usize = 64 * 1024;
/// What an answer says when the request named no version.
pub(crate) const DEFAULT_VERSION: &str = "2026-09-30.endive";

pub(crate) struct App {
    pub(crate) config: Config,
    state: Mutex<State>,
}

impl App {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Self { config, state: Mutex::new(State::new(seed)) }
    }

    /// A panic while the lock was held is a bug of the sandbox; the next test should still see
    /// its own failure and not that of the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves on a task until `stop` is cancelled; then open requests are still answered.
pub(crate) async fn serve(
    app: Arc<App>,
    address: SocketAddr,
    stop: CancellationToken,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let router = Router::new().merge(network::routes()).fallback(respond).with_state(app);
    let task = tokio::spawn(async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = server.await {
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

async fn respond(Shared(app): Shared<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.as_ref().map_err(|_| {
        ApiError::invalid(format!("Request body too large: at most {MAX_BODY_BYTES} bytes."))
            .status(StatusCode::PAYLOAD_TOO_LARGE)
    });
    let answer = {
        let mut state = app.lock();
        let answer = api::answer(&mut state, &app.config, &parts, body);
        state.record(Call {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            status: answer.status.as_u16(),
        });
        answer
    };
    let status = answer.status.as_u16();
    tracing::debug!(method = %parts.method, path = parts.uri.path(), status, "answered");
    let in_flight = answer.holds_key.clone().map(|key| InFlight { app: Arc::clone(&app), key });
    if !app.config.latency.is_zero() {
        tokio::time::sleep(app.config.latency).await;
    }
    drop(in_flight);
    into_response(&parts, answer)
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
