//! `payment-response`: what was charged and what remains; also the body of a refused payment.
//!
//! ```
//! use farebox_protocol::{ErrorCode, PaymentResponse};
//!
//! let refused = PaymentResponse::refused(ErrorCode::CardDeclined);
//! let json = String::from_utf8(refused.to_json())?;
//! assert!(json.starts_with(r#"{"success":false,"creditsRemaining":0,"clientId":"","error":"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;
use crate::header::{self, MessageError};
use crate::id::TopUpId;
use crate::money::{Currency, Units};

/// The message of an answer to a paid request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentResponse {
    /// Whether the payment was accepted.
    pub success: bool,
    /// The charge that this request's top-up made, if it made one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub charge_id: Option<String>,
    /// What the payer can still spend in this currency after this request.
    pub credits_remaining: Units,
    /// The credential to spend with from now on; empty in a refusal.
    pub client_id: String,
    /// What this request cost: 0 when its handler failed. A v1 server does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub charged: Option<Units>,
    /// The currency of the amounts. A v1 server does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub currency: Option<Currency>,
    /// The top-up that this request opened or went on with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top_up_id: Option<TopUpId>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_code: Option<ErrorCode>,
}

impl fmt::Debug for PaymentResponse {
    /// Everything but the credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PaymentResponse { success, charge_id, credits_remaining, charged, currency, .. } = self;
        f.debug_struct("PaymentResponse")
            .field("success", success)
            .field("charge_id", charge_id)
            .field("credits_remaining", credits_remaining)
            .field("charged", charged)
            .field("currency", currency)
            .field("top_up_id", &self.top_up_id)
            .field("error_code", &self.error_code)
            .finish_non_exhaustive()
    }
}

impl PaymentResponse {
    /// The body of a payment that was refused with `code`.
    pub fn refused(code: ErrorCode) -> Self {
        PaymentResponse {
            success: false,
            charge_id: None,
            credits_remaining: Units::default(),
            client_id: String::new(),
            charged: None,
            currency: None,
            top_up_id: None,
            error: Some(code.message().to_owned()),
            error_code: Some(code),
        }
    }

    /// Reads a header value.
    ///
    /// # Errors
    ///
    /// [`MessageError`] for anything that is not this message.
    pub fn decode(value: &[u8]) -> Result<Self, MessageError> {
        header::decode(value)
    }

    /// Reads the body of a refused payment, which carries the same JSON.
    ///
    /// # Errors
    ///
    /// [`MessageError::NotTheMessage`] for anything that is not this message.
    pub fn from_json(body: &[u8]) -> Result<Self, MessageError> {
        header::decode_json(body)
    }

    /// The header value.
    pub fn encode(&self) -> String {
        header::encode(self)
    }

    /// The body.
    pub fn to_json(&self) -> Vec<u8> {
        header::to_json(self)
    }
}
