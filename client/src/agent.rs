//! An agent: a policy, a card, and the clients that pay with them.
//!
//! ```
//! use farebox_client::{Agent, Card, Policy, usd};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! let card: Card = "4242424242424242:12:34:123".parse()?;
//! let agent = Agent::new(policy.per_top_up(usd!("5")).per_day(usd!("10"))).card(card);
//! let http = agent.client(reqwest::Client::builder())?.build();
//! assert!(http.get("https://api.example.com/joke").build().is_ok());
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox_policy::{Policy, Usage};
use farebox_protocol::Money;
use reqwest::{Url, redirect};
use reqwest_middleware::ClientBuilder;

use crate::card::Card;
use crate::error::{ConfigError, StateError};
use crate::guard::{Guard, GuardMiddleware};
use crate::middleware::PaymentMiddleware;
use crate::origin::{Origin, is_secure};
use crate::redirect as redirects;
use crate::state::State;
use crate::tokenizer::Tokenizer;

/// Unix seconds.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A policy, a card, and what is remembered between requests. All its clients share one budget.
pub struct Agent {
    policy: Arc<Policy>,
    card: Option<Arc<Card>>,
    state: Arc<State>,
    tokenizer: Url,
    clock: Clock,
    redirects: Arc<redirect::Policy>,
    guard: Option<Guard>,
}

impl Agent {
    /// An agent that pays under `policy`, without a card and with its state in memory.
    pub fn new(policy: Policy) -> Agent {
        Agent {
            policy: Arc::new(policy),
            card: None,
            state: Arc::new(State::in_memory()),
            tokenizer: Tokenizer::stripe(),
            clock: Arc::new(system_time),
            redirects: Arc::new(redirect::Policy::default()),
            guard: None,
        }
    }

    /// The card that top-ups are taken from. Without one the agent spends credit only.
    #[must_use]
    pub fn card(mut self, card: Card) -> Agent {
        self.card = Some(Arc::new(card));
        self
    }

    /// Keeps credentials, budgets and payments in flight in a file, so that they survive the
    /// process. Without it they are in memory, and a new process has a fresh budget.
    ///
    /// The file is readable by its owner only, holds no card data, and is locked against other
    /// processes through `<path>.lock`.
    ///
    /// # Errors
    ///
    /// [`StateError`] when another agent uses the file, or when it cannot be read.
    pub fn state(mut self, path: impl AsRef<Path>) -> Result<Agent, StateError> {
        self.state = Arc::new(State::open(path.as_ref())?);
        Ok(self)
    }

    /// Stripe's address, for a sandbox; `https://api.stripe.com` otherwise. The card is sent
    /// there and nowhere else.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Tokenizer`] for anything but https, or http on loopback.
    pub fn tokenizer(mut self, base: &str) -> Result<Agent, ConfigError> {
        let base = Url::parse(base).map_err(|_| ConfigError::Tokenizer)?;
        if !is_secure(&base) || base.cannot_be_a_base() {
            return Err(ConfigError::Tokenizer);
        }
        self.tokenizer = base;
        Ok(self)
    }

    /// Where the time comes from, in Unix seconds; it decides which day a top-up belongs to.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Agent {
        self.clock = Arc::new(now);
        self
    }

    /// How requests without a payment follow redirects; reqwest's default otherwise. A request
    /// that carries a payment follows none.
    #[must_use]
    pub fn redirects(mut self, policy: redirect::Policy) -> Agent {
        self.redirects = Arc::new(policy);
        self
    }

    /// Which addresses the clients of this agent may connect to; all otherwise. For agents that
    /// take addresses from pages. A guarded client uses no proxy, and resolves names with
    /// [`Guard::resolver`]. The tokenizer's address is the owner's and is not guarded.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Agent {
        self.guard = Some(guard);
        self
    }

    /// A client that pays: the only way to one. Its redirect policy replaces the builder's (see
    /// [`Agent::redirects`]); pool, proxies, cookies and timeouts stay as they are.
    ///
    /// Middleware that is added to the result runs inside of the payment and sees its header. A
    /// layer that retries belongs outside: around the client, with the same extensions at every
    /// attempt.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Client`] when reqwest refuses the settings.
    pub fn client(&self, builder: reqwest::ClientBuilder) -> Result<ClientBuilder, ConfigError> {
        let redirects = redirects::policy(Arc::clone(&self.redirects), self.guard.clone());
        let builder = match &self.guard {
            Some(guard) => guard.protect(builder),
            None => builder,
        };
        let client = builder.redirect(redirects).build().map_err(ConfigError::Client)?;
        let middleware = PaymentMiddleware {
            policy: Arc::clone(&self.policy),
            card: self.card.clone(),
            state: Arc::clone(&self.state),
            tokenizer: Tokenizer::new(self.tokenizer.clone()).map_err(ConfigError::Client)?,
            clock: Arc::clone(&self.clock),
        };
        let client = ClientBuilder::new(client).with(middleware);
        Ok(match &self.guard {
            Some(guard) => client.with(GuardMiddleware(guard.clone())),
            None => client,
        })
    }

    /// What was taken from the card, per day, as the policy counts it.
    pub fn usage(&self) -> Usage {
        self.state.books().usage.clone()
    }

    /// Counts the unresolved payment at the origin of `url` as spent, so that the origin can be
    /// paid again. The provider cannot do this. Returns the amount, or `None` when every payment
    /// there is resolved.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `url` is not one, or when the state file cannot be written.
    pub fn write_off(&self, url: &str) -> Result<Option<Money>, ConfigError> {
        let url = Url::parse(url).map_err(|_| ConfigError::Url)?;
        let origin = Origin::of(&url).ok_or(ConfigError::Url)?;
        let written_off = self.state.books().write_off(&origin);
        if written_off.is_some() {
            self.state.write()?;
        }
        Ok(written_off)
    }

    /// Forgets the publishable key that the origin of `url` was first paid under, after its
    /// provider said elsewhere that it rolled its keys: another key means another Stripe account,
    /// perhaps not the provider's.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `url` is not one, or when the state file cannot be written.
    pub fn forget_key(&self, url: &str) -> Result<(), ConfigError> {
        let url = Url::parse(url).map_err(|_| ConfigError::Url)?;
        let origin = Origin::of(&url).ok_or(ConfigError::Url)?;
        self.state.books().forget_key(&origin);
        self.state.write()?;
        Ok(())
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn system_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
