//! Stripe's tokenizer: turns the card into a PaymentMethod under a provider's publishable key.
//! The only file that knows Stripe, and the only one that sends the card.
//!
//! Whoever owns the key can charge the PaymentMethod: that is the protocol. It is bounded by the
//! hosts that a policy allows, and by the key being pinned to its origin.

use std::time::Duration;

use bytes::Bytes;
use farebox_protocol::PaymentMethodId;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::answer;
use crate::card::Card;
use crate::error::PaymentError;
use crate::service;

const PATH: &str = "v1/payment_methods";
const TIMEOUT: Duration = Duration::from_secs(30);
const FORM_BYTES: usize = 512;

pub(crate) struct Tokenizer {
    base: Url,
    client: Client,
}

#[derive(Deserialize)]
struct Made {
    id: PaymentMethodId,
}

#[derive(Deserialize)]
struct Failed {
    error: Failure,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Tokenizer {
    /// Stripe's own address.
    #[expect(clippy::expect_used, reason = "a literal URL")]
    pub(crate) fn stripe() -> Url {
        Url::parse("https://api.stripe.com").expect("a URL")
    }

    /// The tokenizer at `base`.
    pub(crate) fn new(base: Url) -> reqwest::Result<Tokenizer> {
        let client = service::client(&base, TIMEOUT)?;
        Ok(Tokenizer { base, client })
    }

    /// A new PaymentMethod for `card` under `publishable_key`. Nothing is charged.
    pub(crate) async fn payment_method(
        &self,
        card: &Card,
        publishable_key: &str,
    ) -> Result<PaymentMethodId, PaymentError> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {publishable_key}"))
            .map_err(|_| PaymentError::PublishableKeyRejected)?;
        bearer.set_sensitive(true);
        let request = self
            .client
            .post(service::below(&self.base, PATH))
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from_owner(form(card)));
        // The error is dropped here: it could name an address, and says nothing to a caller.
        let response = request.send().await.map_err(|_| PaymentError::TokenizerUnavailable)?;
        let status = response.status();
        let body = answer::start_of(response).await;
        if status.is_success() {
            let made: Result<Made, _> = serde_json::from_slice(&body);
            return made.map(|made| made.id).map_err(|_| PaymentError::TokenizerUnavailable);
        }
        Err(refusal(status, &body))
    }
}

/// The form in memory that is wiped when the request is done with it.
fn form(card: &Card) -> Zeroizing<String> {
    // Room for every field at once: a growing buffer would leave copies behind.
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(FORM_BYTES));
    form.append_pair("type", "card");
    for (name, value) in card.fields() {
        form.append_pair(name, value);
    }
    Zeroizing::new(form.finish())
}

fn refusal(status: http::StatusCode, body: &[u8]) -> PaymentError {
    if status == 401 || status == 403 {
        return PaymentError::PublishableKeyRejected;
    }
    let Ok(Failed { error }) = serde_json::from_slice(body) else {
        return PaymentError::TokenizerUnavailable;
    };
    // Stripe gives this refusal no code of its own.
    let disabled = ["publishable key tokenization", "credit card numbers directly"];
    if disabled.iter().any(|words| error.message.contains(words)) {
        return PaymentError::CardTokenizationDisabled;
    }
    if !status.is_client_error() || status == 429 {
        return PaymentError::TokenizerUnavailable;
    }
    let readable = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let code = [error.code, error.kind].into_iter().find(|text| readable(text));
    PaymentError::CardRejected(code.unwrap_or_else(|| "invalid_request".to_owned()))
}

/// `pk_test_...` or `pk_live_...`.
pub(crate) fn is_publishable_key(key: &str) -> bool {
    let rest = key.strip_prefix("pk_test_").or_else(|| key.strip_prefix("pk_live_"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && key.len() <= 256
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}
