//! One logical call: what survives when an outer layer sends the same request again, and, for a
//! call that its caller named, when another process does.
//!
//! It lives in the request's extensions, which such layers hand to every attempt.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farebox_protocol::ErrorCode;
use http::{Extensions, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::approval::{ApprovalId, Fingerprint};
use crate::budget::HoldId;
use crate::error::PaymentError;
use crate::receipt::PaymentKey;

/// What a [`PaymentKey`] is kept as: its hash, so that a caller's words are in no file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct CallName(String);

impl CallName {
    fn of(key: &PaymentKey) -> CallName {
        CallName(hex(&Sha256::digest(format!("farebox call\n{}", key.as_str()))))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Clone)]
pub(crate) struct Call {
    name: Option<CallName>,
    progress: Arc<Mutex<Progress>>,
}

/// What is shared by the attempts of a call.
#[derive(Clone, Default)]
struct Attempts(Arc<Mutex<Progress>>);

#[derive(Default)]
struct Progress {
    key: Option<HeaderValue>,
    paid: Option<HoldId>,
    ended: Option<Ended>,
    /// Questions to a human that this call asked, and what each was about.
    questions: Vec<(Fingerprint, ApprovalId)>,
    approved: Vec<ApprovalId>,
}

/// How the payment of a call ended without an answer for the caller. It stays so.
#[derive(Clone, Copy)]
pub(crate) enum Ended {
    PaidButRefused,
    AlreadyCharged,
    ApprovalDenied,
    Declined(ErrorCode),
}

impl From<Ended> for PaymentError {
    fn from(ended: Ended) -> PaymentError {
        match ended {
            Ended::PaidButRefused => PaymentError::PaidButRefused,
            Ended::AlreadyCharged => PaymentError::AlreadyCharged,
            Ended::ApprovalDenied => PaymentError::ApprovalDenied,
            Ended::Declined(code) => PaymentError::Declined(code),
        }
    }
}

impl Call {
    /// The call that these extensions belong to; a new one at the first attempt.
    pub(crate) fn of(extensions: &mut Extensions) -> Call {
        let name = extensions.get().map(CallName::of);
        let Attempts(progress) = extensions.get_or_insert_with(Attempts::default).clone();
        Call { name, progress }
    }

    /// Whether an attempt of this call was made before that found that money is at stake.
    pub(crate) fn is_under_way(extensions: &Extensions) -> bool {
        extensions.get::<Attempts>().is_some()
    }

    /// What its caller named it.
    pub(crate) fn name(&self) -> Option<&CallName> {
        self.name.as_ref()
    }

    /// The call's `Idempotency-Key`: made of its name, or 128 random bits; the same at every
    /// attempt.
    pub(crate) fn key(&self) -> Result<HeaderValue, PaymentError> {
        let mut progress = self.progress();
        if let Some(key) = &progress.key {
            return Ok(key.clone());
        }
        let text = match &self.name {
            Some(CallName(name)) => name[..32].to_owned(),
            None => hex(&random()?),
        };
        let key = HeaderValue::from_str(&text).map_err(|_| PaymentError::Randomness)?;
        progress.key = Some(key.clone());
        Ok(key)
    }

    /// The question about `fingerprint`: of a named call always the same one.
    pub(crate) fn question(&self, fingerprint: Fingerprint) -> Result<ApprovalId, PaymentError> {
        let mut progress = self.progress();
        let asked = progress.questions.iter().find(|(about, _)| *about == fingerprint);
        if let Some((_, id)) = asked {
            return Ok(*id);
        }
        let id = match &self.name {
            Some(name) => {
                let of =
                    Sha256::new().chain_update(name.as_str()).chain_update(fingerprint.to_string());
                let digest = of.finalize();
                let mut id = [0; 16];
                id.copy_from_slice(&digest[..16]);
                id
            }
            None => random()?,
        };
        let id = ApprovalId::from_bytes(id);
        progress.questions.push((fingerprint, id));
        Ok(id)
    }

    /// Whether the owner said yes to this question.
    pub(crate) fn is_approved(&self, id: ApprovalId) -> bool {
        self.progress().approved.contains(&id)
    }

    pub(crate) fn set_approved(&self, id: ApprovalId) {
        self.progress().approved.push(id);
    }

    /// The payment under which an attempt of this process offered a card for this call.
    pub(crate) fn paid_under(&self) -> Option<HoldId> {
        self.progress().paid
    }

    pub(crate) fn set_paid(&self, payment: HoldId) {
        self.progress().paid = Some(payment);
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
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("name", &self.name).finish_non_exhaustive()
    }
}

fn random() -> Result<[u8; 16], PaymentError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| PaymentError::Randomness)?;
    Ok(random)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
