//! Whether an event comes from Stripe (docs.stripe.com/webhooks/signature).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use crate::config::ConfigError;
use crate::event::{Event, EventObject};

/// Two while a secret is rolled, and as many again for other endpoints.
const SECRETS_MAX: usize = 8;
const SECRET_MIN: usize = 16;
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Stripe signs once for each secret that is in force.
const SIGNATURES_MAX: usize = 16;
/// How far the clocks of Stripe and of this machine may be apart, the way included.
const TOLERANCE_SECONDS: i64 = 300;

/// The secrets of webhook endpoints, `whsec_...`: several while one is rolled.
///
/// # Example
///
/// ```
/// use farebox_processor::{Unverified, WebhookSecrets};
///
/// let secrets = WebhookSecrets::new(["whsec_0123456789abcdef"])?;
/// let body = br#"{"id":"evt_1"}"#;
/// let refused = secrets.verify("t=1700000000,v1=00", body, 1_700_000_000);
/// assert_eq!(refused, Err(Unverified::Signature));
/// # Ok::<(), farebox_processor::ConfigError>(())
/// ```
pub struct WebhookSecrets(Vec<SecretString>);

/// Why an event was not believed. Nothing of it may be acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unverified {
    /// The sender must act: the header is missing, malformed or without a `v1` signature. Stripe
    /// never sends such a one.
    #[error("the Stripe-Signature header is malformed")]
    Header,
    /// No signature is of one of our secrets. From Stripe: the operator must act, for a secret is
    /// missing, or something between has changed the body. Otherwise: somebody forges.
    #[error("no signature is of a known webhook secret")]
    Signature,
    /// Signed more than 300 seconds ago. Somebody repeats an old one, or the operator's clock is
    /// wrong. Stripe signs each delivery anew.
    #[error("the event was signed too long ago")]
    TooOld,
    /// Signed more than 300 seconds from now: the operator's clock is wrong.
    #[error("the event was signed in the future")]
    FromTheFuture,
    /// Stripe signed it, and it is not an event that this version can read: the operator must
    /// look at the endpoint's API version.
    #[error("the signed body is not a readable event")]
    Body,
}

impl WebhookSecrets {
    /// From 1 to 8 secrets.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for more or fewer, and for one that is not `whsec_` and at least 16
    /// printable characters.
    pub fn new<I: IntoIterator<Item = S>, S: AsRef<str>>(
        secrets: I,
    ) -> Result<WebhookSecrets, ConfigError> {
        let mut kept = Vec::new();
        for secret in secrets {
            let secret = secret.as_ref();
            let rest = secret.strip_prefix("whsec_").ok_or(ConfigError::WebhookSecret)?;
            if rest.len() < SECRET_MIN || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ConfigError::WebhookSecret);
            }
            if kept.len() == SECRETS_MAX {
                return Err(ConfigError::WebhookSecretCount);
            }
            kept.push(SecretString::from(secret));
        }
        if kept.is_empty() {
            return Err(ConfigError::WebhookSecretCount);
        }
        Ok(WebhookSecrets(kept))
    }

    /// The event in `body`, if `header` (`Stripe-Signature`) signs exactly these bytes with one
    /// of the secrets within 300 seconds of `now` (Unix seconds).
    ///
    /// An event of the other mode is not an error: see [`Event::livemode`].
    ///
    /// # Errors
    ///
    /// [`Unverified`]; nothing of the body is read before its signature holds.
    pub fn verify(&self, header: &str, body: &[u8], now: i64) -> Result<Event, Unverified> {
        let Header { signed_at, timestamp, signatures } =
            parse(header).ok_or(Unverified::Header)?;
        let by_one_of_ours = self.0.iter().any(|secret| {
            let mac = mac(secret, timestamp, body);
            signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
        });
        if !by_one_of_ours {
            return Err(Unverified::Signature);
        }
        if now.saturating_sub(signed_at) > TOLERANCE_SECONDS {
            return Err(Unverified::TooOld);
        }
        if signed_at.saturating_sub(now) > TOLERANCE_SECONDS {
            return Err(Unverified::FromTheFuture);
        }
        let object: EventObject = serde_json::from_slice(body).map_err(|_| Unverified::Body)?;
        object.read(None).ok_or(Unverified::Body)
    }
}

impl fmt::Debug for WebhookSecrets {
    /// How many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({})", self.0.len())
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(secret: &SecretString, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let key = secret.expose_secret().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

struct Header<'a> {
    signed_at: i64,
    /// `signed_at` as it was signed.
    timestamp: &'a str,
    signatures: Vec<[u8; 32]>,
}

/// `t=...,v1=...,v1=...`: one time, at least one signature, and schemes that are not known.
fn parse(header: &str) -> Option<Header<'_>> {
    if header.len() > HEADER_BYTES_MAX {
        return None;
    }
    let (mut timestamp, mut signatures, mut count) = (None, Vec::new(), 0);
    for item in header.split(',') {
        match item.split_once('=')? {
            ("t", _) if timestamp.is_some() => return None,
            ("t", text) => timestamp = Some(text),
            ("v1", text) => {
                count += 1;
                signatures.extend(hex(text));
            }
            _ => {}
        }
    }
    let timestamp = timestamp?;
    let signed_at: i64 = timestamp.parse().ok()?;
    // One spelling per time: no sign, no leading zero.
    let canonical = signed_at >= 0 && signed_at.to_string() == timestamp;
    (canonical && (1..=SIGNATURES_MAX).contains(&count)).then_some(Header {
        signed_at,
        timestamp,
        signatures,
    })
}

/// 64 lower-case hexadecimal digits.
fn hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
