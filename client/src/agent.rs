//! An agent: a policy, a way to pay, and the clients that pay with them.
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
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farebox_policy::{Policy, Usage};
use farebox_protocol::{ClientId, Money};
use futures_util::Stream;
use reqwest::{Url, redirect};
use reqwest_middleware::ClientBuilder;
use serde::Serialize;

use crate::approval::{Approver, DynApprover};
use crate::books::{self, Books};
use crate::budget::{Budget, BudgetError};
use crate::card::Card;
use crate::error::{ConfigError, PaymentError, StateError};
use crate::event::{Events, Notice};
use crate::file::beside;
use crate::guard::{Guard, GuardMiddleware};
use crate::hold::Purse;
use crate::middleware::PaymentMiddleware;
use crate::origin::Origin;
use crate::preview::{Look, Preview, PreviewError};
use crate::receipt::MaxPrice;
use crate::redirect as redirects;
use crate::service;
use crate::source::{DynPaymentSource, PaymentSource, TokenizedCard};
use crate::spending::{Spending, Tally};
use crate::state::State;
use crate::step::Steps;
use crate::tokenizer::Tokenizer;

/// Unix seconds.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How long a call waits for its owner's answer, unless the agent says otherwise.
const APPROVAL_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The longest streamed body that is kept in memory, unless the agent says otherwise.
const BODY_LIMIT: usize = 1024 * 1024;

/// A policy, a way to pay, and what is remembered between requests. All its clients share one
/// budget.
pub struct Agent {
    policy: Arc<Policy>,
    card: Option<Arc<Card>>,
    tokenizer: Url,
    source: Option<Arc<dyn DynPaymentSource>>,
    state: Arc<State>,
    /// `None`: the one beside the state.
    budget: Option<Budget>,
    beside: Budget,
    approver: Option<Arc<dyn DynApprover>>,
    approval_timeout: Duration,
    keep_credit: Option<Money>,
    body_limit: usize,
    redirects: Arc<redirect::Policy>,
    guard: Option<Guard>,
    events: Events,
    tally: Arc<Tally>,
    clock: Clock,
    steps: Steps,
}

impl Agent {
    /// An agent that pays under `policy`, without a card, and with its state and its budget in
    /// memory.
    pub fn new(policy: Policy) -> Agent {
        Agent {
            policy: Arc::new(policy),
            card: None,
            tokenizer: Tokenizer::stripe(),
            source: None,
            state: Arc::new(State::in_memory()),
            budget: None,
            beside: Budget::in_memory(),
            approver: None,
            approval_timeout: APPROVAL_TIMEOUT,
            keep_credit: None,
            body_limit: BODY_LIMIT,
            redirects: Arc::new(redirect::Policy::default()),
            guard: None,
            events: Events::new(),
            tally: Arc::new(Tally::in_memory()),
            clock: Arc::new(system_time),
            steps: Steps::default(),
        }
    }

    /// The card that top-ups are taken from. Without a card and a [source](Agent::pay_from), the
    /// agent spends credit only.
    #[must_use]
    pub fn card(mut self, card: Card) -> Agent {
        self.card = Some(Arc::new(card));
        self
    }

    /// Another way to pay, instead of a card.
    #[must_use]
    pub fn pay_from(mut self, source: impl PaymentSource) -> Agent {
        self.source = Some(Arc::new(source));
        self
    }

    /// Stripe's address, for a sandbox; `https://api.stripe.com` otherwise. The card is sent
    /// there and nowhere else.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Tokenizer`] for anything but https, or http on loopback.
    pub fn tokenizer(mut self, base: &str) -> Result<Agent, ConfigError> {
        self.tokenizer = service::base(base).ok_or(ConfigError::Tokenizer)?;
        Ok(self)
    }

    /// Keeps credentials, prices and payments in flight in a file, the budget in `PATH.budget`
    /// and what was spent where in `PATH.spending`, so that they survive the process. Without it
    /// they are in memory, and a new process has a fresh budget.
    ///
    /// The files are readable by their owner only and hold no card data. Several processes may
    /// use them at the same time: they share credit and budget, and pay one origin one after the
    /// other. They must be on a local disk.
    ///
    /// # Errors
    ///
    /// [`StateError`] when a file cannot be read or made, or is not of this version.
    pub fn state(mut self, path: impl AsRef<Path>) -> Result<Agent, StateError> {
        let path = path.as_ref();
        self.state = Arc::new(State::open(path)?);
        self.beside = Budget::file(beside(path, ".budget"))?;
        self.tally = Arc::new(Tally::open(&beside(path, ".spending"))?);
        Ok(self)
    }

    /// Counts against this budget: one file for several agents, or Redis for several machines.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Agent {
        self.budget = Some(budget);
        self
    }

    /// Who is asked where the policy leaves a payment to its owner. Without one, such payments
    /// are refused.
    #[must_use]
    pub fn approver(mut self, approver: impl Approver) -> Agent {
        self.approver = Some(Arc::new(approver));
        self
    }

    /// How long a call waits for the approver, at least five seconds: ten minutes, if nothing is
    /// said. Then it ends with [`PaymentError::ApprovalPending`].
    #[must_use]
    pub fn approval_timeout(mut self, timeout: Duration) -> Agent {
        self.approval_timeout = timeout;
        self
    }

    /// Tops up ahead of need: a request that would leave less credit than this at its server
    /// brings a payment along, so that later ones do not meet an empty account. It is served from
    /// credit if the top-up is refused or takes long. Servers of version 1 do not know it.
    #[must_use]
    pub fn keep_credit(mut self, mark: Money) -> Agent {
        self.keep_credit = Some(mark);
        self
    }

    /// The longest streamed body, in bytes, that is kept in memory to be sent again with a payment:
    /// 1 MiB, if nothing is said. Only bodies for hosts that the policy allows are kept, and nothing is
    /// sent while they are read. A longer one is streamed; if a payment is asked for it, the call
    /// ends with [`PaymentError::BodyNotReplayable`], unless its caller allows [`AskFirst`](crate::AskFirst).
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Agent {
        self.body_limit = bytes;
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

    /// Calls `listener` with every event, where it happens: the next step waits for it. A listener
    /// cannot change what is paid.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&Notice) + Send + Sync + 'static) -> Agent {
        self.events.listen(Arc::new(listener));
        self
    }

    /// The events from this moment on, as a stream that ends with the agent and its clients. A
    /// reader that falls behind by more than 1,024 of them is told how many it missed.
    pub fn events(&self) -> impl Stream<Item = Notice> + Send + Unpin + use<> {
        self.events.stream()
    }

    /// Where the time comes from, in Unix seconds; it decides which day a top-up belongs to.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Agent {
        self.clock = Arc::new(now);
        self
    }

    /// Calls `steps` between two steps of a payment by card, with the name of the last one.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn at_each_step(mut self, steps: impl Fn(&'static str) + Send + Sync + 'static) -> Agent {
        self.steps = Steps::hooked(steps);
        self
    }

    /// A client that pays: the only way to one. Its redirect policy replaces the builder's (see
    /// [`Agent::redirects`]), and its connections are never verbose; pool, proxies, cookies and
    /// timeouts stay as they are.
    ///
    /// Middleware that is added to the result runs inside of the payment and sees its header. A
    /// layer that retries belongs outside: around the client, with the same extensions at every
    /// attempt.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Client`] when reqwest refuses the settings.
    pub fn client(&self, builder: reqwest::ClientBuilder) -> Result<ClientBuilder, ConfigError> {
        let client = self.bare(builder)?;
        let middleware = PaymentMiddleware {
            policy: Arc::clone(&self.policy),
            source: self.source()?,
            purse: self.purse(),
            approver: self.approver.clone(),
            approval_timeout: self.approval_timeout,
            keep_credit: self.keep_credit,
            body_limit: self.body_limit,
            events: self.events.clone(),
            tally: Arc::clone(&self.tally),
            clock: Arc::clone(&self.clock),
            recovered: AtomicBool::new(false),
        };
        Ok(self.guarded(ClientBuilder::new(client).with(middleware)))
    }

    /// A client with the same redirects and the same guard, that does not pay.
    fn unpaying(&self, builder: reqwest::ClientBuilder) -> Result<ClientBuilder, ConfigError> {
        Ok(self.guarded(ClientBuilder::new(self.bare(builder)?)))
    }

    fn bare(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::Client, ConfigError> {
        let redirects = redirects::policy(Arc::clone(&self.redirects), self.guard.clone());
        let builder = match &self.guard {
            Some(guard) => guard.protect(builder),
            None => builder,
        };
        // At TRACE a verbose connection logs every byte, and with them what pays.
        let builder = builder.redirect(redirects).connection_verbose(false);
        builder.build().map_err(ConfigError::Client)
    }

    fn guarded(&self, client: ClientBuilder) -> ClientBuilder {
        match &self.guard {
            Some(guard) => client.with(GuardMiddleware(guard.clone())),
            None => client,
        }
    }

    /// What was taken from the card, as the policy counts it.
    ///
    /// # Errors
    ///
    /// [`BudgetError`] when the budget cannot be read.
    pub async fn usage(&self) -> Result<Usage, BudgetError> {
        self.purse().budget.usage().await
    }

    /// What was spent where, by every process with this state.
    ///
    /// # Errors
    ///
    /// [`StateError`] when its file cannot be read or written.
    pub async fn spending(&self) -> Result<Spending, StateError> {
        self.tally.read().await
    }

    /// Writes down what was spent from credit in the last seconds, as otherwise happens by itself.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the file cannot be written. What was counted is kept in memory.
    pub async fn flush(&self) -> Result<(), StateError> {
        self.tally.flush().await
    }

    /// What `request` would cost, and what the policy would say to it; nothing is paid. See
    /// [`preview`](crate::preview).
    ///
    /// # Errors
    ///
    /// [`PreviewError`] when the price is not known and cannot be asked for.
    pub async fn preview(
        &self,
        builder: reqwest::ClientBuilder,
        request: reqwest::Request,
        max: Option<MaxPrice>,
    ) -> Result<Preview, PreviewError> {
        let look = Look {
            policy: &self.policy,
            purse: self.purse(),
            tally: &self.tally,
            http: self.unpaying(builder).map_err(PreviewError::Config)?.build(),
            now: (self.clock)(),
        };
        look.at(request, max).await
    }

    /// Counts the unresolved payment at the origin of `url` as spent, so that the origin can be
    /// paid again. The provider cannot do this. Returns the amount, or `None` when every payment
    /// there is resolved, or is being made at this moment.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Url`] when `url` is not one, [`ConfigError::Payment`] when state or budget
    /// cannot be written.
    pub async fn write_off(&self, url: &str) -> Result<Option<Money>, ConfigError> {
        let (purse, origin) = (self.purse(), origin_of(url)?);
        let Some(_turn) = purse.state.try_turn(&origin, &purse.state.gate(&origin)) else {
            return Ok(None);
        };
        purse.state.refresh().await?;
        let Some(unresolved) = purse.state.glimpse(&origin, "").unresolved else {
            return Ok(None);
        };
        let closed = purse.budget.close(unresolved.id).await;
        closed.map_err(|error| ConfigError::Payment(PaymentError::Budget(error)))?;
        let resolve = move |books: &mut Books| {
            if let Some(known) = books.known(&origin) {
                known.unresolved = None;
            }
        };
        purse.state.update(resolve).await?;
        Ok(Some(unresolved.hold.amount()))
    }

    /// Takes back what the policy counts for payments that the server at `url` refused, or accepted
    /// without a charge, after the owner saw that the card was not charged for them. A server
    /// that the policy [trusts](Policy::trust) needs no such look. Returns how many payments.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Url`] when `url` is not one, [`ConfigError::Payment`] when state or budget
    /// cannot be written.
    pub async fn take_back(&self, url: &str) -> Result<usize, ConfigError> {
        let (purse, origin) = (self.purse(), origin_of(url)?);
        purse.state.refresh().await?;
        let denied = purse.state.glimpse(&origin, "").denied;
        for id in &denied {
            let released = purse.budget.release(*id).await;
            released.map_err(|error| ConfigError::Payment(PaymentError::Budget(error)))?;
        }
        let released = denied.clone();
        let forget = move |books: &mut Books| {
            if let Some(known) = books.known(&origin) {
                known.denied.retain(|id| !released.contains(id));
            }
        };
        purse.state.update(forget).await?;
        Ok(denied.len())
    }

    /// Forgets the publishable key that the origin of `url` was first paid under, after its
    /// provider said elsewhere that it rolled its keys: another key means another Stripe account,
    /// perhaps not the provider's.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `url` is not one, or when the state file cannot be written.
    pub async fn forget_key(&self, url: &str) -> Result<(), ConfigError> {
        let origin = origin_of(url)?;
        let forget = move |books: &mut Books| {
            if let Some(known) = books.known(&origin) {
                known.publishable_key = None;
            }
        };
        Ok(self.state.update(forget).await?)
    }

    /// What is kept of every server that was paid, or asked for money.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the state file cannot be read.
    pub async fn known(&self) -> Result<Vec<Known>, StateError> {
        self.state.refresh().await?;
        Ok(self.state.with(|books| books.all().map(Known::of).collect()))
    }

    /// The credential for the origin of `url`: it spends the credit there. For the account routes
    /// of its provider.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `url` is not one, or when the state file cannot be read.
    pub async fn credential(&self, url: &str) -> Result<Option<ClientId>, ConfigError> {
        let origin = origin_of(url)?;
        self.state.refresh().await?;
        Ok(self.state.glimpse(&origin, "").credential)
    }

    /// Forgets all that is kept of the origin of `url`; with its credential, the way to its
    /// credit. Nothing is forgotten while a payment there is open.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `url` is not one, or when the state file cannot be written.
    pub async fn forget(&self, url: &str) -> Result<Forgotten, ConfigError> {
        let origin = origin_of(url)?;
        Ok(self.state.update(move |books| books.forget(&origin)).await?)
    }

    fn purse(&self) -> Purse {
        let budget = self.budget.as_ref().unwrap_or(&self.beside);
        let steps = self.steps.clone();
        Purse { state: Arc::clone(&self.state), budget: budget.clone(), steps }
    }

    fn source(&self) -> Result<Option<Arc<dyn DynPaymentSource>>, ConfigError> {
        let (None, Some(card)) = (&self.source, &self.card) else { return Ok(self.source.clone()) };
        let tokenizer = Tokenizer::new(self.tokenizer.clone()).map_err(ConfigError::Client)?;
        Ok(Some(Arc::new(TokenizedCard { card: Arc::clone(card), tokenizer })))
    }
}

/// What is kept of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Known {
    /// Scheme, host and port: `https://api.example.com`.
    pub origin: String,
    /// Whether there is a credential for credit there.
    pub credential: bool,
    /// The publishable key that it is paid under.
    pub publishable_key: Option<String>,
    /// A payment by card whose outcome is not known.
    pub unresolved: Option<Money>,
    /// Payments by card that are counted although the server says that it took nothing; see
    /// [`Agent::take_back`].
    pub denied: usize,
}

impl Known {
    fn of((origin, known): (&str, &books::Known)) -> Known {
        Known {
            origin: origin.to_owned(),
            credential: known.credential.is_some(),
            publishable_key: known.publishable_key.clone(),
            unresolved: known.unresolved.as_ref().map(|unresolved| unresolved.hold.amount()),
            denied: known.denied.len(),
        }
    }
}

/// What came of forgetting a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Nothing is kept of it any more.
    Forgotten,
    /// There was nothing.
    Unknown,
    /// A payment there is open, so all stays.
    Open,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn origin_of(url: &str) -> Result<Origin, ConfigError> {
    let url = Url::parse(url).map_err(|_| ConfigError::Url)?;
    Origin::of(&url).ok_or(ConfigError::Url)
}

fn system_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
