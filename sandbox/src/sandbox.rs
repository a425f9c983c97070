//! The handle of a sandbox, and how to start one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Config;
use crate::auth::{Keys, PUBLISHABLE_PREFIX, SECRET_PREFIX};
use crate::clock::{Clock, ManualClock};
use crate::server::{self, App};

/// A running sandbox. Dropping it stops the server.
pub struct Sandbox {
    pub(crate) app: Arc<App>,
    url: String,
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// One request that a sandbox received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// `POST` or `GET`.
    pub method: String,
    /// Without the query, e.g. `/v1/payment_intents`.
    pub path: String,
    /// HTTP status of the answer.
    pub status: u16,
}

/// One PaymentIntent that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChargeRecord {
    /// Id of the PaymentIntent.
    pub id: String,
    /// In the currency's minor unit (cents).
    pub amount: i64,
    /// Three letters, lower case.
    pub currency: String,
    /// Id of the Customer, if there was one.
    pub customer: Option<String>,
    /// Id of the PaymentMethod that was charged.
    pub payment_method: String,
    /// Metadata of the PaymentIntent.
    pub metadata: BTreeMap<String, String>,
    /// When the PaymentIntent was created, in seconds since 1970.
    pub created: i64,
}

impl Sandbox {
    /// A sandbox with a random seed, the real clock, and the settings that a new Stripe account
    /// has, except that card numbers may be tokenized with the publishable key.
    pub fn builder() -> Builder {
        Builder {
            seed: None,
            config: Config {
                keys: Keys {
                    secret: "sk_test_farebox_sandbox".to_owned(),
                    publishable: "pk_test_farebox_sandbox".to_owned(),
                },
                clock: Clock::System,
                latency: Duration::ZERO,
                raw_cards_with_secret_key: false,
                tokenization: true,
            },
        }
    }

    /// Base URL without a slash at the end, e.g. `http://127.0.0.1:4242`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key for every endpoint. Under the prefix `rk_test_` it is a restricted key with every
    /// permission.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.app.config.keys.secret
    }

    /// The key that may make PaymentMethods and nothing else.
    #[must_use]
    pub fn publishable_key(&self) -> &str {
        &self.app.config.keys.publishable
    }

    /// Every request received so far, oldest first; of very many, the last 100,000. A request is
    /// listed as soon as its effect is committed, which is before a
    /// [`latency`](Builder::latency) passes.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.app.lock().calls()
    }

    /// Every PaymentIntent that succeeded so far, in the order of success.
    #[must_use]
    pub fn charges(&self) -> Vec<ChargeRecord> {
        self.app.lock().paid.clone()
    }

    /// Stops accepting connections, answers the open requests, and returns when the port is free.
    pub async fn stop(self) {
        drop(self.stop);
        // The task ends without a value; a panic in it has been reported by its own thread.
        let _ended = self.task.await;
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("url", &self.url).finish_non_exhaustive()
    }
}

/// How a sandbox is to behave. Made by [`Sandbox::builder`].
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    seed: Option<u64>,
    config: Config,
}

impl Builder {
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

    /// Starts serving on the current tokio runtime. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`StartErrorKind`] says what was wrong: an address that is not loopback, a key without its
    /// test prefix, a port that is taken, or no randomness for the seed.
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
        let app = Arc::new(App::new(self.config, seed));
        let stop = CancellationToken::new();
        let (address, task) = server::serve(Arc::clone(&app), address, stop.clone())
            .await
            .map_err(|error| StartError::new(StartErrorKind::AddressUnavailable, Some(error)))?;
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

/// A sandbox that could not start.
#[derive(Debug)]
pub struct StartError {
    kind: StartErrorKind,
    source: Option<std::io::Error>,
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
    /// The operating system did not give the address: often another program uses the port.
    AddressUnavailable,
    /// The operating system gave no random seed.
    NoRandomness,
}

impl StartError {
    fn new(kind: StartErrorKind, source: Option<std::io::Error>) -> Self {
        Self { kind, source }
    }

    /// What was wrong.
    #[must_use]
    pub fn kind(&self) -> StartErrorKind {
        self.kind
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
            StartErrorKind::AddressUnavailable => "the sandbox could not listen on this address",
            StartErrorKind::NoRandomness => "no randomness for the sandbox's seed",
        })
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as &(dyn std::error::Error + 'static))
    }
}
