//! The one place that builds an HTTP request: a POST cannot be made without an idempotency key.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Request, Url};
use secrecy::{ExposeSecret as _, SecretString};
use stripe_client_core::RequestBuilder;

use crate::call::{Call, IdempotencyKey, VERSION};
use crate::config::ConfigError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of 100 disputes, each with the 150,000 characters of evidence that Stripe takes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A longer wait is nobody's advice for a request that somebody waits for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Sends requests to Stripe on one pool of connections.
pub(crate) struct Transport {
    client: Client,
    base: String,
    secret: SecretString,
}

impl Transport {
    /// `base` was checked by `config::base_url`.
    pub(crate) fn new(base: String, secret: SecretString) -> Result<Transport, ConfigError> {
        let mut client = Client::builder()
            .user_agent(concat!("farebox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect would take the key, and a POST's meaning, somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            // Every attempt is decided and counted in `retry`.
            .retry(reqwest::retry::never());
        client = if base.starts_with("https://") {
            client.https_only(true)
        } else {
            // Loopback: a proxy from the environment would see the key in the clear.
            client.no_proxy()
        };
        let client = client.build().map_err(|error| ConfigError::Client(reason(&error)))?;
        Ok(Transport { client, base, secret })
    }

    pub(crate) fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// A look-up. It changes nothing at Stripe, so it needs no key.
    pub(crate) fn get(&self, request: &RequestBuilder) -> Result<Ready<'_>, Unsendable> {
        let mut url = self.url(&request.path)?;
        url.set_query(request.query.as_deref().filter(|query| !query.is_empty()));
        let http = Request::new(Method::GET, url);
        self.ready(http, VERSION.as_str())
    }

    /// A call that Stripe performs once per key.
    pub(crate) fn post(&self, call: &Call, key: &IdempotencyKey) -> Result<Ready<'_>, Unsendable> {
        let mut http = Request::new(Method::POST, self.url(&call.path)?);
        *http.body_mut() = Some(call.body.clone().into());
        let headers = http.headers_mut();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        headers.insert("idempotency-key", value(key.as_str())?);
        self.ready(http, &call.version)
    }

    fn url(&self, path: &str) -> Result<Url, Unsendable> {
        let url = Url::parse(&format!("{}/v1{path}", self.base)).map_err(|_| Unsendable)?;
        // What an id or a stored path holds can never lead to another endpoint.
        if url.path().ends_with(path) { Ok(url) } else { Err(Unsendable) }
    }

    fn ready(&self, mut http: Request, version: &str) -> Result<Ready<'_>, Unsendable> {
        let mut bearer = value(&format!("Bearer {}", self.secret.expose_secret()))?;
        bearer.set_sensitive(true);
        http.headers_mut().insert(AUTHORIZATION, bearer);
        http.headers_mut().insert("stripe-version", value(version)?);
        Ok(Ready { client: &self.client, http })
    }
}

fn value(text: &str) -> Result<HeaderValue, Unsendable> {
    HeaderValue::from_str(text).map_err(|_| Unsendable)
}

/// A request that no HTTP message can carry; nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsendable;

/// A request that can be sent any number of times, each time the same.
pub(crate) struct Ready<'a> {
    client: &'a Client,
    http: Request,
}

impl Ready<'_> {
    /// Sends it once and waits at most `timeout` for the whole answer.
    pub(crate) async fn attempt(&self, number: u32, timeout: Duration) -> Attempt {
        let Some(mut http) = self.http.try_clone() else { return Attempt::NotSent };
        *http.timeout_mut() = Some(timeout);
        let path = without_cards(http.url().path());
        let attempt = match self.client.execute(http).await {
            Ok(response) => read(response, number).await,
            Err(error) if error.is_connect() || error.is_builder() => {
                tracing::warn!(attempt = number, error = reason(&error), "Stripe was not reached");
                Attempt::NotSent
            }
            Err(error) => {
                tracing::warn!(attempt = number, error = reason(&error), "Stripe did not answer");
                Attempt::Lost
            }
        };
        if let Attempt::Answered(answer) = &attempt {
            tracing::debug!(
                attempt = number,
                path,
                status = answer.status,
                request_id = answer.request_id,
                replayed = answer.replayed,
                "Stripe answered"
            );
        }
        attempt
    }
}

/// What became of one attempt.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Somebody answered in full, perhaps Stripe.
    Answered(Answer),
    /// It was sent, at least in part, and no whole answer came back: it may have run.
    Lost,
    /// No connection was made: it did not run.
    NotSent,
}

/// An answer as it came.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Counts the attempts of one request, from 1.
    pub(crate) attempt: u32,
    pub(crate) status: u16,
    /// `Stripe-Should-Retry` (docs.stripe.com/error-low-level).
    pub(crate) should_retry: Option<bool>,
    /// `Idempotent-Replayed`: the saved answer to an earlier attempt under this key.
    pub(crate) replayed: bool,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body, if it is the expected JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

async fn read(mut response: reqwest::Response, attempt: u32) -> Attempt {
    let status = response.status().as_u16();
    let mut answer = Answer { attempt, status, ..head(response.headers()) };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if answer.body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                answer.body.extend_from_slice(&chunk);
            }
            Ok(None) => return Attempt::Answered(answer),
            Ok(Some(_)) | Err(_) => {
                let request_id = answer.request_id;
                tracing::warn!(attempt, status, request_id, "Stripe's answer broke off");
                return Attempt::Lost;
            }
        }
    }
}

fn head(headers: &HeaderMap) -> Answer {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let flag = |name: &str| match text(name) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    let seconds = text(RETRY_AFTER.as_str()).and_then(|value| value.parse().ok());
    Answer {
        should_retry: flag("stripe-should-retry"),
        replayed: flag("idempotent-replayed").unwrap_or_default(),
        retry_after: seconds.map(Duration::from_secs).filter(|wait| *wait <= RETRY_AFTER_MAX),
        request_id: text("request-id").map(str::to_owned),
        ..Answer::default()
    }
}

/// What is behind an HTTP error, without its URL, which may name a card.
fn reason(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timed out"
    } else if error.is_builder() {
        "could not be built"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "connection failed"
    };
    let mut reason = kind.to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    reason
}

/// A path as it may be logged: whoever has the key can charge what a PaymentMethod's id names.
fn without_cards(path: &str) -> String {
    let shown = |part| if str::starts_with(part, "pm_") { "pm" } else { part };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("base", &self.base).finish_non_exhaustive()
    }
}
