//! Stripe's errors: an HTTP status and a body `{"error": {type, code, message, ...}}`.
//!
//! Source: Stripe's pages "Errors" and "Error codes".

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// One refused request. Boxed, because it travels through every `Result` of the crate.
pub(crate) struct ApiError(Box<Fields>);

struct Fields {
    status: StatusCode,
    body: Map<String, Value>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(kind));
        body.insert("message".to_owned(), json!(message.into()));
        Self(Box::new(Fields { status, body }))
    }

    /// A request that can never work as it is: HTTP 400.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A card that was refused: HTTP 402.
    pub(crate) fn card(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", message).code(code)
    }

    /// Whether a card was refused.
    pub(crate) fn is_decline(&self) -> bool {
        self.0.status == StatusCode::PAYMENT_REQUIRED
    }

    /// A key used again for something else: HTTP 400.
    pub(crate) fn idempotency(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "idempotency_error", message)
    }

    /// A failure inside Stripe: HTTP 500.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", message)
    }

    /// An object named by a parameter that this account does not have: HTTP 400. Named in the
    /// path, it is a 404, see [`ApiError::status`].
    pub(crate) fn missing(object: &str, id: &str, param: &str) -> Self {
        Self::invalid(format!("No such {object}: '{id}'")).code("resource_missing").param(param)
    }

    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    pub(crate) fn code(self, code: &str) -> Self {
        let page = format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"));
        self.with("code", json!(code)).with("doc_url", json!(page))
    }

    pub(crate) fn param(self, param: impl Into<String>) -> Self {
        self.with("param", json!(param.into()))
    }

    pub(crate) fn decline_code(self, code: &str) -> Self {
        self.with("decline_code", json!(code))
    }

    /// Adds one more field, e.g. the `payment_intent` that the refused attempt belongs to.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.0.body.insert(name.to_owned(), value);
        self
    }

    /// What an intent keeps as its `last_payment_error` or `last_setup_error`.
    pub(crate) fn object(&self) -> Value {
        Value::Object(self.0.body.clone())
    }

    pub(crate) fn into_parts(self) -> (StatusCode, Value) {
        (self.0.status, json!({ "error": self.0.body }))
    }
}
