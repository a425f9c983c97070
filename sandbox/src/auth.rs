//! API keys.
//!
//! Source: Stripe's pages "Authentication" and "API keys".

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{ApiError, ApiResult};

/// Whose request it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// `sk_test_`, or a restricted key (`rk_test_`) with every permission.
    Secret,
    /// `pk_test_`: may make PaymentMethods and nothing else.
    Publishable,
}

/// The keys that a sandbox knows.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) secret: String,
    pub(crate) publishable: String,
    /// Those of other accounts: they make PaymentMethods too.
    pub(crate) foreign: Vec<String>,
}

pub(crate) const SECRET_PREFIX: &str = "sk_test_";
pub(crate) const PUBLISHABLE_PREFIX: &str = "pk_test_";

const LIVE_PREFIXES: [&str; 3] = ["sk_live_", "rk_live_", "pk_live_"];

impl Keys {
    /// Reads `Authorization: Bearer <key>`, or `Basic` with the key as the user name.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> ApiResult<KeyKind> {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = header.and_then(key_of).filter(|key| !key.is_empty()).ok_or_else(|| {
            unauthorized(
                "You did not provide an API key. You need to provide your API key in the \
                 Authorization header, using Bearer auth (e.g. 'Authorization: Bearer \
                 YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details, \
                 or we can help at https://support.stripe.com/.",
            )
        })?;
        if LIVE_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
            return Err(unauthorized(
                "This is a sandbox on loopback: it takes no live keys. Use the sandbox's own test \
                     keys, and keep live keys away from it.",
            ));
        }
        if key == self.secret || self.is_restricted(&key) {
            Ok(KeyKind::Secret)
        } else if key == self.publishable || self.foreign.contains(&key) {
            Ok(KeyKind::Publishable)
        } else {
            Err(unauthorized(format!("Invalid API Key provided: {}", masked(&key))))
        }
    }

    /// The one restricted key is the secret key under the other prefix.
    fn is_restricted(&self, key: &str) -> bool {
        let tail = key.strip_prefix("rk_test_");
        tail.is_some() && tail == self.secret.strip_prefix(SECRET_PREFIX)
    }
}

/// What a publishable key hears wherever it has no business.
pub(crate) fn secret_key_required() -> ApiError {
    unauthorized(
        "This API call cannot be made with a publishable API key. Please use a secret \
         API key. You can find a list of your API keys at \
         https://dashboard.stripe.com/account/apikeys.",
    )
    .code("secret_key_required")
}

fn unauthorized(message: impl Into<String>) -> ApiError {
    ApiError::invalid(message).status(StatusCode::UNAUTHORIZED)
}

fn key_of(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let user = text.split_once(':').map_or(text.as_str(), |(user, _)| user);
    Some(user.to_owned())
}

/// Enough to recognise a key, too little to use it: prefix and last four characters.
fn masked(key: &str) -> String {
    let characters: Vec<char> = key.chars().collect();
    let hidden = characters.len().saturating_sub(4);
    let shown = if characters.len() > 16 { 8 } else { 0 };
    let show = |(at, c): (usize, &char)| if at < shown || at >= hidden { *c } else { '*' };
    characters.iter().enumerate().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::{key_of, masked};

    #[test]
    fn keys_are_read_from_bearer_and_basic() {
        assert_eq!(key_of("Bearer sk_test_1").as_deref(), Some("sk_test_1"));
        assert_eq!(key_of("Basic c2tfdGVzdF8xOg==").as_deref(), Some("sk_test_1"));
        assert_eq!(key_of("Basic !!!"), None);
        assert_eq!(key_of("Digest a"), None);
    }

    #[test]
    fn a_masked_key_shows_its_ends() {
        assert_eq!(masked("sk_test_abcdefghijkl"), "sk_test_********ijkl");
        assert_eq!(masked("short"), "*hort");
    }
}
