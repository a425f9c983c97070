//! Keyed requests: one that carries an `Idempotency-Key` is charged once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use farebox_ledger::book::{ClaimKey, Fingerprint};
use farebox_ledger::machine::ClaimOf;
use farebox_protocol::{ErrorCode, IdentityKey, header};
use http::request::Parts;
use http::{HeaderName, HeaderValue, header as names};

use crate::payments::Shared;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const KEY_BYTES_MAX: usize = 255;

/// The request's key as it was sent; an error if there are several, or one that is no key.
pub(crate) fn key(parts: &Parts) -> Result<Option<&HeaderValue>, ErrorCode> {
    let key = header::single(&parts.headers, &IDEMPOTENCY_KEY);
    let key = key.map_err(|_| ErrorCode::InvalidIdempotencyKey)?;
    let is_key = |key: &HeaderValue| {
        let is_visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
        is_visible && (1..=KEY_BYTES_MAX).contains(&key.len())
    };
    match key {
        Some(key) if !is_key(key) => Err(ErrorCode::InvalidIdempotencyKey),
        key => Ok(key),
    }
}

/// The claim that a keyed request makes. `target` is the path and the query as the client sent
/// them. The payment is no part of it: it differs between attempts. Both are hashed under the
/// identity key: what a client chose is not stored, and nobody can tell it from the ledger.
pub(crate) fn claim(
    identity: &IdentityKey,
    key: &HeaderValue,
    parts: &Parts,
    target: &str,
) -> ClaimOf {
    // Payer ids are made of fingerprints of cards, which have no spaces.
    let key = format!("farebox claim {}", key.as_bytes().escape_ascii());
    let mut request = format!("farebox request {} {}", parts.method, target.escape_default());
    for name in [names::CONTENT_TYPE, names::CONTENT_LENGTH, CONTENT_DIGEST] {
        request.push('\n');
        // Without a body, some clients and proxies say so and others do not.
        for value in parts.headers.get_all(name).iter().filter(|value| *value != "0") {
            request.push_str(&format!(" {}", value.as_bytes().escape_ascii()));
        }
    }
    ClaimOf {
        key: ClaimKey::from_bytes(*identity.payer(&key).as_bytes()),
        fingerprint: Fingerprint::from_bytes(*identity.payer(&request).as_bytes()),
    }
}

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// A future that is finished by a task if it is dropped: a keyed request whose client hung up.
pub(crate) struct RunsOn<T: 'static> {
    /// `None` while it is polled, so that one that panicked is not polled again.
    call: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    shared: Arc<Shared>,
}

impl<T: 'static> RunsOn<T> {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        call: impl Future<Output = T> + Send + 'static,
    ) -> RunsOn<T> {
        RunsOn { call: Some(Box::pin(call)), shared: shared.clone() }
    }
}

impl<T: 'static> Future for RunsOn<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(mut call) = self.call.take() else { return Poll::Pending };
        let polled = call.as_mut().poll(cx);
        if polled.is_pending() {
            self.call = Some(call);
        }
        polled
    }
}

impl<T: 'static> Drop for RunsOn<T> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            // Nobody reads the answer. (It is dropped within the task: it need not be Send.)
            let run_on = async move { drop(call.await) };
            self.shared.tasks.spawn_on(run_on, &self.shared.runtime);
        }
    }
}
