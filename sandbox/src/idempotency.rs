//! Idempotency keys.
//!
//! The answer of the first *executed* POST under a key is saved and given again, declines and
//! errors included. Requests that never ran (wrong key, unknown parameter, missing parameter)
//! leave nothing. Source: Stripe's pages "Idempotent requests" and "Low-level error handling".

use std::collections::{HashMap, VecDeque};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};

use crate::error::{ApiError, ApiResult};

const HEADER: &str = "idempotency-key";
const MAX_LENGTH: usize = 255;
const KEPT_SECONDS: i64 = 24 * 60 * 60;

/// A key and the request that it is bound to.
pub(crate) struct Keyed {
    pub(crate) key: String,
    pub(crate) path: String,
    /// Digest of the parameters; the parameters themselves may hold a card number.
    pub(crate) digest: [u8; 32],
}

/// An answer as it was first given.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) request_id: String,
}

struct Record {
    path: String,
    digest: [u8; 32],
    saved: Saved,
    /// The first answer has not left yet.
    in_flight: bool,
}

/// Saved answers by key. There is one account and one mode, so the key alone is the scope.
#[derive(Default)]
pub(crate) struct SavedAnswers {
    records: HashMap<String, Record>,
    by_age: VecDeque<(i64, String)>,
}

impl SavedAnswers {
    /// `None`: the key is new and the request may run.
    pub(crate) fn find(&mut self, request: &Keyed, now: i64) -> ApiResult<Option<Saved>> {
        self.forget_old(now);
        let Some(record) = self.records.get(&request.key) else { return Ok(None) };
        let key = &request.key;
        if record.path != request.path {
            return Err(ApiError::idempotency(format!(
                "Keys for idempotent requests can only be used for the same endpoint they were \
                     first used for ('{}' vs '{}'). Try using a key other than '{key}' if you \
                     meant to execute a different request.",
                request.path, record.path
            )));
        }
        if record.digest != request.digest {
            return Err(ApiError::idempotency(format!(
                "Keys for idempotent requests can only be used with the same parameters they were \
                     first used with. Try using a key other than '{key}' if you meant to execute \
                     a different request."
            )));
        }
        if record.in_flight {
            return Err(in_use(key));
        }
        Ok(Some(record.saved.clone()))
    }

    /// Saves an answer; until [`SavedAnswers::landed`] the key is in use.
    pub(crate) fn save(&mut self, request: Keyed, saved: Saved, now: i64) {
        let Keyed { key, path, digest } = request;
        self.by_age.push_back((now, key.clone()));
        self.records.insert(key, Record { path, digest, saved, in_flight: true });
    }

    /// The first answer has left, or nobody waits for it any more.
    pub(crate) fn landed(&mut self, key: &str) {
        if let Some(record) = self.records.get_mut(key) {
            record.in_flight = false;
        }
    }

    fn forget_old(&mut self, now: i64) {
        while self.by_age.front().is_some_and(|(saved, _)| now - saved >= KEPT_SECONDS) {
            if let Some((_, key)) = self.by_age.pop_front() {
                self.records.remove(&key);
            }
        }
    }
}

/// What a client hears whose other request under the key of this one is not answered yet.
pub(crate) fn in_use_by(headers: &HeaderMap) -> ApiError {
    key_of(headers).map_or_else(|refused| refused, |key| in_use(key.as_deref().unwrap_or_default()))
}

fn in_use(key: &str) -> ApiError {
    ApiError::invalid(format!(
        "There is currently another in-progress request using this Idempotent Key (that probably \
             means you submitted twice, and the other request is still going through): {key}. \
             Please try again later."
    ))
    .code("idempotency_key_in_use")
    .status(StatusCode::CONFLICT)
}

/// The key of a request, if it has one.
pub(crate) fn key_of(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() {
        return Err(ApiError::idempotency("Idempotency keys must be non-empty ASCII strings."));
    }
    if key.len() > MAX_LENGTH {
        return Err(ApiError::idempotency(format!(
            "Idempotency keys can be at most {MAX_LENGTH} characters. You provided one of length \
                 {}.",
            key.len()
        )));
    }
    Ok(Some(key.to_owned()))
}
