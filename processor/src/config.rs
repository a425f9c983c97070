//! Where Stripe is and with which keys; a mistake here is found before anything is sent.

use std::net::IpAddr;

use reqwest::Url;

/// Where Stripe's API lives.
pub(crate) const STRIPE: &str = "https://api.stripe.com";

/// What kind of money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Test keys at a stand-in for Stripe: no bank is ever asked.
    Sandbox,
    /// Test keys at Stripe: no money moves.
    Test,
    /// Live keys at Stripe: money moves.
    Live,
}

impl Mode {
    /// The mode as a ledger stores it: `sandbox`, `test` or `live`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Sandbox => "sandbox",
            Mode::Test => "test",
            Mode::Live => "live",
        }
    }

    /// What Stripe's `livemode` says in this mode.
    pub(crate) const fn is_live(self) -> bool {
        matches!(self, Mode::Live)
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a configuration was refused: the operator must act, and trying again cannot help. No
/// message contains a key.
///
/// Its Debug is its Display, so that a `main` that returns it prints a sentence.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is missing, empty or not text.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// The secret key is not one.
    #[error("the secret key must begin with sk_test_, sk_live_, rk_test_ or rk_live_")]
    SecretKey,
    /// The publishable key is not one.
    #[error("the publishable key must begin with pk_test_ or pk_live_")]
    PublishableKey,
    /// One key is for test mode, the other for live mode.
    #[error("the secret key and the publishable key must both be test keys or both be live keys")]
    MixedModes,
    /// The base URL is malformed, or would send the key over a network in the clear.
    #[error("the base URL must be https, or http on loopback, without user, query or fragment")]
    BaseUrl,
    /// A live key would be sent to somebody else than Stripe.
    #[error("live keys are only sent to https://api.stripe.com")]
    LiveElsewhere,
    /// A webhook secret is not one.
    #[error("a webhook secret must begin with whsec_ and go on with 16 printable characters")]
    WebhookSecret,
    /// There are no webhook secrets, or too many.
    #[error("there must be from 1 to 8 webhook secrets")]
    WebhookSecretCount,
    /// The HTTP client could not be built: the system has no usable TLS roots.
    #[error("the HTTP client: {0}")]
    Client(String),
}

impl std::fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Checks both keys and tells whether they are live ones.
pub(crate) fn keys_are_live(secret: &str, publishable: &str) -> Result<bool, ConfigError> {
    let secret = is_live(secret, &["sk_", "rk_"]).ok_or(ConfigError::SecretKey)?;
    let publishable = is_live(publishable, &["pk_"]).ok_or(ConfigError::PublishableKey)?;
    if secret == publishable { Ok(secret) } else { Err(ConfigError::MixedModes) }
}

fn is_live(key: &str, prefixes: &[&str]) -> Option<bool> {
    let rest = prefixes.iter().find_map(|prefix| key.strip_prefix(prefix))?;
    let (live, secret) = match (rest.strip_prefix("test_"), rest.strip_prefix("live_")) {
        (Some(secret), _) => (false, secret),
        (_, Some(secret)) => (true, secret),
        _ => return None,
    };
    // A key goes into a header: a stray space or line break would be found only by a 401.
    let plain = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some(live)
}

/// The base URL without a slash at its end, and the mode it makes with these keys.
pub(crate) fn base_url(text: &str, live_keys: bool) -> Result<(String, Mode), ConfigError> {
    let url = Url::parse(text).map_err(|_| ConfigError::BaseUrl)?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let encrypted = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(ConfigError::BaseUrl),
    };
    let host = url.host_str().ok_or(ConfigError::BaseUrl)?;
    if !plain || !(encrypted || is_loopback(host)) {
        return Err(ConfigError::BaseUrl);
    }
    let stripe = encrypted && host == "api.stripe.com" && url.port().is_none();
    let mode = match (live_keys, stripe) {
        (true, true) if url.path() == "/" => Mode::Live,
        (true, _) => return Err(ConfigError::LiveElsewhere),
        (false, true) => Mode::Test,
        (false, false) => Mode::Sandbox,
    };
    Ok((url.as_str().trim_end_matches('/').to_owned(), mode))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_mode_are_accepted() {
        assert_eq!(keys_are_live("sk_test_1", "pk_test_1"), Ok(false));
        assert_eq!(keys_are_live("rk_test_1", "pk_test_1"), Ok(false));
        assert_eq!(keys_are_live("sk_live_1", "pk_live_1"), Ok(true));
        assert_eq!(keys_are_live("rk_live_1", "pk_live_1"), Ok(true));
    }

    #[test]
    fn keys_of_two_modes_are_refused() {
        assert_eq!(keys_are_live("sk_live_1", "pk_test_1"), Err(ConfigError::MixedModes));
        assert_eq!(keys_are_live("rk_test_1", "pk_live_1"), Err(ConfigError::MixedModes));
    }

    #[test]
    fn swapped_truncated_and_padded_keys_are_refused() {
        assert_eq!(keys_are_live("pk_test_1", "sk_test_1"), Err(ConfigError::SecretKey));
        assert_eq!(keys_are_live("sk_test_1", "sk_test_1"), Err(ConfigError::PublishableKey));
        for key in ["", "sk_", "sk_test_", "sk_prod_1", "sk_test_1\n", " sk_test_1", "sk_test_é"] {
            assert_eq!(keys_are_live(key, "pk_test_1"), Err(ConfigError::SecretKey), "{key:?}");
        }
    }

    #[test]
    fn the_mode_follows_from_keys_and_base_url() {
        let mode = |url, live| base_url(url, live).map(|(_, mode)| mode);
        assert_eq!(mode(STRIPE, true), Ok(Mode::Live));
        assert_eq!(mode(STRIPE, false), Ok(Mode::Test));
        assert_eq!(mode("https://api.stripe.com:443/", true), Ok(Mode::Live));
        assert_eq!(mode("http://127.0.0.1:4242", false), Ok(Mode::Sandbox));
        assert_eq!(mode("https://stripe.example", false), Ok(Mode::Sandbox));
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for url in ["http://127.8.9.1:1", "http://[::1]:1", "http://localhost:1/p", "http://127.1"]
        {
            assert!(base_url(url, false).is_ok(), "{url}");
        }
        for url in [
            "http://api.stripe.com",
            "http://10.0.0.1",
            "http://[::2]",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://0.0.0.0",
            "ftp://127.0.0.1",
            "https://user@stripe.example",
            "https://user:word@stripe.example",
            "https://stripe.example?x",
            "https://stripe.example#x",
            "stripe.example",
            "",
        ] {
            assert_eq!(base_url(url, false), Err(ConfigError::BaseUrl), "{url}");
        }
    }

    #[test]
    fn live_keys_never_leave_for_anybody_but_stripe() {
        for url in [
            "http://127.0.0.1:4242",
            "https://api.stripe.com.example",
            "https://api.stripe.com:8443",
            "https://api.stripe.com/prefix",
            "https://stripe.example",
        ] {
            assert_eq!(base_url(url, true), Err(ConfigError::LiveElsewhere), "{url}");
        }
    }

    #[test]
    fn a_path_prefix_is_kept() {
        let kept = base_url("http://localhost:1/stripe/", false).map(|(url, _)| url);
        assert_eq!(kept.as_deref(), Ok("http://localhost:1/stripe"));
    }
}
