//! One logical call: what survives when an outer layer sends the same request again.
//!
//! It lives in the request's extensions, which such layers hand to every attempt.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farebox_protocol::ErrorCode;
use http::{Extensions, HeaderValue};

use crate::error::PaymentError;

#[derive(Clone, Default)]
pub(crate) struct Call(Arc<Mutex<Progress>>);

#[derive(Default)]
struct Progress {
    key: Option<HeaderValue>,
    paid: bool,
    ended: Option<Ended>,
}

/// How the payment of a call ended without an answer for the caller. It stays so.
#[derive(Clone, Copy)]
pub(crate) enum Ended {
    PaidButRefused,
    Declined(ErrorCode),
}

impl From<Ended> for PaymentError {
    fn from(ended: Ended) -> PaymentError {
        match ended {
            Ended::PaidButRefused => PaymentError::PaidButRefused,
            Ended::Declined(code) => PaymentError::Declined(code),
        }
    }
}

impl Call {
    /// The call that these extensions belong to; a new one at the first attempt.
    pub(crate) fn of(extensions: &mut Extensions) -> Call {
        extensions.get_or_insert_with(Call::default).clone()
    }

    /// The call's `Idempotency-Key`: 128 random bits, the same at every attempt.
    pub(crate) fn key(&self) -> Result<HeaderValue, PaymentError> {
        let mut progress = self.progress();
        if let Some(key) = &progress.key {
            return Ok(key.clone());
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| PaymentError::Randomness)?;
        let mut text = String::with_capacity(32);
        for byte in random {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        let key = HeaderValue::from_str(&text).map_err(|_| PaymentError::Randomness)?;
        progress.key = Some(key.clone());
        Ok(key)
    }

    /// Whether a card was offered for this call.
    pub(crate) fn paid(&self) -> bool {
        self.progress().paid
    }

    pub(crate) fn set_paid(&self) {
        self.progress().paid = true;
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        self.progress().ended
    }

    /// Ends the call's payment, and says so.
    pub(crate) fn end(&self, ended: Ended) -> PaymentError {
        self.progress().ended = Some(ended);
        ended.into()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
