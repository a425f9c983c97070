//! How to start a sandbox.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::auth::{Keys, PUBLISHABLE_PREFIX, SECRET_PREFIX};
use crate::clock::{Clock, ManualClock};
use crate::limits::Rates;
use crate::sandbox::Sandbox;
use crate::server::{self, App};
use crate::webhooks::{Delivery, InvalidWebhook, Webhook};

/// How a sandbox is to behave. Made by [`Sandbox::builder`].
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    seed: Option<u64>,
    config: Config,
    rates: Option<Rates>,
    webhook: Option<(String, Vec<String>)>,
    delivery: Delivery,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            seed: None,
            config: Config {
                keys: Keys {
                    secret: "sk_test_farebox_sandbox".to_owned(),
                    publishable: "pk_test_farebox_sandbox".to_owned(),
                    foreign: Vec::new(),
                },
                clock: Clock::System(ManualClock::at(0)),
                latency: Duration::ZERO,
                raw_cards_with_secret_key: false,
                tokenization: true,
            },
            rates: None,
            webhook: None,
            delivery: Delivery::default(),
        }
    }

    /// Makes every id of the sandbox a function of this number and of the order of requests.
    /// Random by default, so that no two sandboxes hand out the same id. Keys, the account's id
    /// and card fingerprints are the same in every sandbox, whatever the seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Delays every answer by this much, after its effect is committed. Zero by default.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.config.latency = latency;
        self
    }

    /// Takes the time from a clock that the test moves. The real one by default.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.config.clock = Clock::Manual(clock);
        self
    }

    /// The secret key, beginning `sk_test_`. By default `sk_test_farebox_sandbox`.
    pub fn secret_key(mut self, key: impl Into<String>) -> Self {
        self.config.keys.secret = key.into();
        self
    }

    /// The publishable key, beginning `pk_test_`. By default `pk_test_farebox_sandbox`.
    pub fn publishable_key(mut self, key: impl Into<String>) -> Self {
        self.config.keys.publishable = key.into();
        self
    }

    /// The publishable key of another account: it makes PaymentMethods too.
    pub(crate) fn foreign_key(mut self, key: &str) -> Self {
        self.config.keys.foreign.push(key.to_owned());
        self
    }

    /// Whether the secret key may send card numbers. Stripe refuses that unless an account has
    /// been granted "raw card data APIs", so the default is `false`.
    pub fn raw_cards_with_secret_key(mut self, allowed: bool) -> Self {
        self.config.raw_cards_with_secret_key = allowed;
        self
    }

    /// Whether the publishable key may send card numbers: Stripe's account setting "card data
    /// collection with publishable key without Stripe's prebuilt UI". Off in a new account,
    /// `true` here.
    pub fn tokenization(mut self, allowed: bool) -> Self {
        self.config.tokenization = allowed;
        self
    }

    /// Lets in so many requests in every second of the sandbox's [clock](Self::clock): to each
    /// endpoint, and in all. One too many gets HTTP 429 and no further: it leaves nothing under its
    /// idempotency key, meets no fault, and does not count. No limits by default; Stripe's own are
    /// 25 and 25 in a sandbox, 25 and 100 in live mode.
    pub fn rate_limit(mut self, per_endpoint_per_second: u32, per_account_per_second: u32) -> Self {
        self.rates = Some(Rates { per_endpoint_per_second, per_account_per_second });
        self
    }

    /// Sends every event to this URL, which must be `http://` on this machine. Each secret,
    /// `whsec_` followed by letters and digits, signs every message, as while secrets are rolled;
    /// without any, [`Sandbox::webhook_secret`] does. What is answered with anything but 2xx is
    /// sent again, six times in all within about three seconds.
    pub fn webhook(
        mut self,
        url: impl Into<String>,
        secrets: impl IntoIterator<Item = String>,
    ) -> Self {
        self.webhook = Some((url.into(), secrets.into_iter().collect()));
        self
    }

    /// How events reach the [webhook](Self::webhook). By default once, at once and in order.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// Starts serving on the current tokio runtime. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`StartErrorKind`] says what was wrong: an address that is not loopback, a key without its
    /// test prefix, a webhook that cannot be, a port that is taken, or no randomness for the seed.
    pub async fn start(self, address: SocketAddr) -> Result<Sandbox, StartError> {
        if !address.ip().is_loopback() {
            return Err(StartError::new(StartErrorKind::NotLoopback, None));
        }
        let keys = &self.config.keys;
        if !is_key(&keys.secret, SECRET_PREFIX) || !is_key(&keys.publishable, PUBLISHABLE_PREFIX) {
            return Err(StartError::new(StartErrorKind::InvalidKey, None));
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|error| {
                StartError::new(StartErrorKind::NoRandomness, Some(error.into()))
            })?,
        };
        let webhook = match self.webhook {
            Some((url, secrets)) => Some(Webhook::new(&url, secrets, self.delivery)?),
            None => None,
        };
        let stop = CancellationToken::new();
        let app = Arc::new(App::new(self.config, seed, stop.clone()));
        app.lock().limiter.set(self.rates);
        app.lock().outbox.set(webhook);
        let (address, task) = server::serve(Arc::clone(&app), address).await.map_err(|error| {
            StartError::new(StartErrorKind::AddressUnavailable, Some(error.into()))
        })?;
        Ok(Sandbox { app, url: format!("http://{address}"), stop: stop.drop_guard(), task })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// A key must fit into a header, and look like a test key to whatever checks prefixes.
fn is_key(key: &str, prefix: &str) -> bool {
    let tail = key.strip_prefix(prefix).unwrap_or_default();
    !tail.is_empty() && tail.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A sandbox that could not start.
#[derive(Debug)]
pub struct StartError {
    kind: StartErrorKind,
    source: Option<Source>,
}

/// Why a sandbox could not start. All but [`AddressUnavailable`](Self::AddressUnavailable) are
/// mistakes of the caller or of the machine; trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartErrorKind {
    /// The address is reachable from other machines. A sandbox charges every test card that
    /// anyone sends, so it stays at home.
    NotLoopback,
    /// A key does not begin with `sk_test_` or `pk_test_`, or has characters other than letters,
    /// digits and underscores.
    InvalidKey,
    /// The webhook's URL is not on this machine, or a secret or a percentage is none. The source
    /// says which.
    InvalidWebhook,
    /// The operating system did not give the address: often another program uses the port.
    AddressUnavailable,
    /// The operating system gave no random seed.
    NoRandomness,
}

impl StartError {
    pub(crate) fn new(kind: StartErrorKind, source: Option<Source>) -> Self {
        Self { kind, source }
    }

    /// What was wrong.
    #[must_use]
    pub fn kind(&self) -> StartErrorKind {
        self.kind
    }
}

impl From<InvalidWebhook> for StartError {
    fn from(invalid: InvalidWebhook) -> Self {
        Self::new(StartErrorKind::InvalidWebhook, Some(invalid.into()))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StartErrorKind::NotLoopback => "a sandbox listens on loopback addresses only",
            StartErrorKind::InvalidKey => {
                "a sandbox's keys begin with sk_test_ and pk_test_, followed by letters, digits \
                     and underscores"
            }
            StartErrorKind::InvalidWebhook => "the sandbox cannot send webhooks there",
            StartErrorKind::AddressUnavailable => "the sandbox could not listen on this address",
            StartErrorKind::NoRandomness => "no randomness for the sandbox's seed",
        })
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| &**error as &(dyn std::error::Error + 'static))
    }
}
