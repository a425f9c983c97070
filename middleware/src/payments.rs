//! `Payments`: what a provider opens once and asks for prices.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use farebox_ledger::clock::{Clock, SystemClock};
use farebox_ledger::{
    Book, Command, Due, FirstRecord, Head, Ledger, Options, Outcome, ReservationId, Store,
    StoreError,
};
use farebox_processor::{
    Account as StripeAccount, ConfigError, LookUpError, Mode, Stripe, WebhookSecrets,
};
use farebox_protocol::{
    CredentialKey, Currency, ErrorCode, IdentityKey, Micros, Money, PayerId, TopUpId,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{AccountService, Issuing};
use crate::admin::{AdminService, TokenError};
use crate::admission::{Admission, ClientIp, Gate};
use crate::layer::PaymentLayer;
use crate::price::{FixedPrice, Price, Pricer};
use crate::quote::{Limits, LimitsError, Quote, Unpayable};
use crate::refund;
use crate::secret::{self, Keys, SecretError};
use crate::sweep::{self, OpenReservations};
use crate::top_up::{Account, Progress};
use crate::webhook::{Events, NoWebhookSecret, WebhookService};
use crate::who::LookUps;

/// Charges for requests. It is shared and cheap to clone: open it once, and ask it for layers.
#[derive(Clone, Debug)]
pub struct Payments {
    pub(crate) shared: Arc<Shared>,
}

/// What all layers of a process share.
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    /// What the ledger was opened for; `None` for a store of somebody else's.
    pub(crate) first: Option<FirstRecord>,
    pub(crate) stripe: Stripe,
    pub(crate) identity: IdentityKey,
    pub(crate) credentials: CredentialKey,
    pub(crate) gate: Gate,
    pub(crate) look_ups: LookUps,
    pub(crate) issuing: Issuing,
    /// The account's driver, by account: at most one in a process.
    pub(crate) drivers: DashMap<Account, watch::Receiver<Progress>>,
    /// The driver of a refund, by charge and number.
    pub(crate) refunds: DashMap<(TopUpId, u64), watch::Receiver<refund::End>>,
    pub(crate) events: Events,
    /// Tasks about money, which no request can cut.
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: Handle,
    pub(crate) closing: CancellationToken,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) open: OpenReservations,
    pub(crate) settings: Settings,
    reservations: ReservationIds,
}

/// What the provider chose.
#[derive(Default)]
pub(crate) struct Settings {
    limits: Limits,
    webhook_secrets: Option<Arc<WebhookSecrets>>,
    /// Whether a card that paid stays at Stripe, for later top-ups.
    pub(crate) save_cards: bool,
    /// Whether a payer may take unspent credit back.
    pub(crate) payer_refunds: bool,
}

/// How long [`Payments::close`] waits for tasks about money.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// The environment variable that holds the secrets of webhooks.
const WEBHOOK_SECRET: &str = "STRIPE_WEBHOOK_SECRET";
/// How long a start waits for Stripe to name its account. An outage does not stop a start.
const ACCOUNT_WITHIN: Duration = Duration::from_secs(3);

impl Payments {
    /// Payments by cards at `stripe`.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use farebox_middleware::{Payments, Stripe};
    ///
    /// let payments = Payments::builder(Stripe::from_env()?).ledger("embedded:farebox.redb").open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(stripe: Stripe) -> Builder {
        Builder {
            stripe,
            ledger: Books::At("embedded:farebox.redb".to_owned()),
            secret: None,
            settings: Settings { save_cards: true, ..Settings::default() },
            webhook_secrets: Vec::new(),
            clock: Arc::new(SystemClock),
            settle_within: None,
            admission: Admission::default(),
            client_ip: ClientIp::default(),
        }
    }

    /// A layer that charges `price` for each request that succeeds: an amount, or
    /// [`Price::up_to`] one.
    ///
    /// On axum, attach it to a method router with `route_layer`: there, a path or a method that
    /// the router does not know reaches neither a handler nor a card.
    ///
    /// # Panics
    ///
    /// If nothing could ever pay the price: it is zero, no whole number of units, or above the
    /// largest top-up, or its currency has no top-up limits.
    pub fn price(&self, price: impl Into<Price>) -> PaymentLayer<FixedPrice> {
        PaymentLayer::fixed(self, price.into())
    }

    /// A layer that asks `pricer` what each request costs.
    pub fn priced_by<P: Pricer>(&self, pricer: P) -> PaymentLayer<P> {
        PaymentLayer::new(self.clone(), pricer, None)
    }

    /// A service that tells a payer its balance and its statement, and issues credentials to its
    /// agents, by credential, for nothing. On axum:
    /// `nest_service("/account", payments.account_routes())`.
    pub fn account_routes(&self) -> AccountService {
        AccountService { shared: self.shared.clone() }
    }

    /// A service for the operator, who brings `token`: it looks into books, freezes payers and
    /// revokes credentials. On axum, on a listener of its own:
    ///
    /// ```no_run
    /// # async fn run(payments: farebox_middleware::Payments) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::net::SocketAddr;
    ///
    /// let admin = payments.admin_routes(&std::env::var("FAREBOX_ADMIN_TOKEN")?)?;
    /// let admin = axum::Router::new().fallback_service(admin);
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:4029").await?;
    /// axum::serve(listener, admin.into_make_service_with_connect_info::<SocketAddr>()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the token is short enough to be guessed.
    pub fn admin_routes(&self, token: &str) -> Result<AdminService, TokenError> {
        AdminService::new(self.shared.clone(), token)
    }

    /// A service that hears Stripe's events, so that refunds, disputes and warnings of fraud are
    /// booked within seconds; without it, the server finds them within minutes. On axum:
    /// `route_service("/stripe", payments.webhook()?)`. Tell Stripe the URL, and select these events:
    /// `payment_intent.succeeded`, `payment_intent.payment_failed`, `payment_intent.canceled`,
    /// `charge.refunded`, `refund.failed`, `charge.dispute.created`,
    /// `charge.dispute.funds_withdrawn`, `charge.dispute.funds_reinstated`,
    /// `charge.dispute.closed`, `radar.early_fraud_warning.created`.
    ///
    /// # Errors
    ///
    /// [`NoWebhookSecret`] unless [`Builder::webhook_secret`] or `STRIPE_WEBHOOK_SECRET` names one.
    pub fn webhook(&self) -> Result<WebhookService, NoWebhookSecret> {
        let secrets = self.shared.settings.webhook_secrets.clone().ok_or(NoWebhookSecret)?;
        Ok(WebhookService { shared: self.shared.clone(), secrets })
    }

    /// Revokes every credential of a payer, and forgets which cards may spend without one: for a
    /// credential that leaked. The payer's credit stays, and its card still leads to it.
    ///
    /// # Errors
    ///
    /// The ledger's: it is unknown whether they are revoked, so try again.
    pub async fn revoke(&self, payer: &PayerId) -> Result<(), StoreError> {
        self.shared.ledger.apply(payer, &Command::RevokeCredentials).await?;
        self.shared.forget_cards(*payer);
        Ok(())
    }

    /// Waits until tasks about money have ended: call it after the server has drained. A top-up
    /// whose outcome is still unknown stays open in the ledger, and the next start goes on with it.
    ///
    /// # Errors
    ///
    /// [`CloseError`] if some task has not ended within 30 seconds. Nothing is lost then either.
    pub async fn close(&self) -> Result<(), CloseError> {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        let ended = tokio::time::timeout(CLOSE_WITHIN, self.shared.tasks.wait()).await;
        if let Err(error) = self.shared.ledger.flush().await {
            tracing::error!(%error, "the ledger could not be written at the end");
        }
        ended.map_err(|_| CloseError { tasks: self.shared.tasks.len() })
    }

    pub(crate) fn quote(&self, price: Money) -> Result<Quote, Unpayable> {
        Quote::new(price, &self.shared.settings.limits, self.shared.stripe.publishable_key())
    }
}

#[cfg(feature = "test-util")]
impl Payments {
    /// The head of a payer's book: what it has, and whether it is frozen.
    ///
    /// # Panics
    ///
    /// If the ledger cannot be read.
    #[expect(clippy::expect_used, reason = "for tests, which fail by panicking")]
    pub async fn head(&self, payer: &PayerId) -> Head {
        self.shared.ledger.load(payer).await.expect("the ledger is readable")
    }

    /// Payments without Stripe, on a ledger in memory: for tests of a provider's own routes.
    /// Cards cannot be charged; [`Payments::fund`] gives credit.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[expect(clippy::expect_used, reason = "the keys and the address are literals")]
    pub fn for_tests() -> Payments {
        let stripe = Stripe::new("sk_test_none", "pk_test_none")
            .and_then(|stripe| stripe.base_url("http://127.0.0.1:1"))
            .expect("test keys at a loopback address are a valid configuration");
        let ledger = Ledger::Memory(farebox_ledger::store::Memory::default());
        let keys = Keys::new(b"a secret that is only good for tests");
        let clock = Arc::new(SystemClock);
        let gate = Gate::new(Admission::default(), ClientIp::default(), &ledger, clock.clone());
        let settings = Settings::default();
        let shared = Shared::new(stripe, ledger, None, keys, settings, gate, clock);
        Payments { shared: Arc::new(shared) }
    }

    /// Gives `money` to the payer of a test card, and answers the value of a `payment` header that
    /// spends it.
    ///
    /// # Panics
    ///
    /// If the ledger cannot be written.
    #[expect(clippy::expect_used, reason = "for tests, which fail by panicking")]
    pub async fn fund(&self, money: Money) -> http::HeaderValue {
        let Shared { ledger, identity, credentials, .. } = &*self.shared;
        let payer = identity.payer("test card");
        farebox_ledger::store::fund(ledger, &payer, money).await.expect("the ledger is writable");
        let generation = ledger.load(&payer).await.expect("the ledger is readable").generation;
        let client_id = Some(credentials.issue(payer, generation));
        let payment = farebox_protocol::Payment { client_id, ..Default::default() };
        http::HeaderValue::try_from(payment.encode()).expect("base64 is a header value")
    }
}

impl Shared {
    fn new(
        stripe: Stripe,
        ledger: Ledger,
        first: Option<FirstRecord>,
        keys: Keys,
        settings: Settings,
        gate: Gate,
        clock: Arc<dyn Clock>,
    ) -> Shared {
        Shared {
            ledger,
            first,
            stripe,
            identity: keys.identity,
            credentials: keys.credentials,
            gate,
            look_ups: LookUps::default(),
            issuing: Issuing::default(),
            drivers: DashMap::new(),
            refunds: DashMap::new(),
            events: Events::default(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            closing: CancellationToken::new(),
            clock,
            open: OpenReservations::default(),
            settings,
            reservations: ReservationIds::random(),
        }
    }

    /// The most that a new card is charged in a day; `None`: in a currency without top-ups.
    pub(crate) fn new_card_per_day(&self, currency: Currency) -> Option<Micros> {
        self.settings.limits.new_card_per_day(currency)
    }

    pub(crate) fn new_reservation_id(&self) -> ReservationId {
        self.reservations.next()
    }

    pub(crate) async fn load(&self, payer: PayerId) -> Result<Head, ErrorCode> {
        self.ledger.load(&payer).await.map_err(|error| unavailable(&error))
    }

    pub(crate) async fn apply(
        &self,
        payer: &PayerId,
        command: &Command,
    ) -> Result<Outcome, ErrorCode> {
        let applied = self.ledger.apply(payer, command).await;
        applied.map(|applied| applied.outcome).map_err(|error| unavailable(&error))
    }

    pub(crate) async fn whole_book(&self, payer: &PayerId) -> Result<Book, ErrorCode> {
        self.ledger.book(payer).await.map_err(|error| unavailable(&error))
    }

    pub(crate) async fn payers(&self) -> Result<Vec<PayerId>, ErrorCode> {
        self.ledger.payers().await.map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &StoreError) -> ErrorCode {
    tracing::error!(%error, "the ledger did not answer");
    ErrorCode::LedgerUnavailable
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

/// Ids that no other process and no earlier life of this one made: a random half and a counter.
struct ReservationIds {
    process: u64,
    next: AtomicU64,
}

impl ReservationIds {
    fn random() -> ReservationIds {
        // Without randomness the system could not make a TLS connection to Stripe either.
        let process = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        ReservationIds { process, next: AtomicU64::new(0) }
    }

    fn next(&self) -> ReservationId {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (u128::from(self.process) << 64 | u128::from(next)).into()
    }
}

/// What is set before payments are opened.
#[must_use]
pub struct Builder {
    stripe: Stripe,
    ledger: Books,
    secret: Option<Vec<u8>>,
    settings: Settings,
    webhook_secrets: Vec<String>,
    clock: Arc<dyn Clock>,
    settle_within: Option<Duration>,
    admission: Admission,
    client_ip: ClientIp,
}

/// Where books are kept.
enum Books {
    At(String),
    Theirs(Ledger),
}

impl Builder {
    /// Where the ledger is. The default is `embedded:farebox.redb`.
    ///
    /// | URL | books are kept |
    /// |---|---|
    /// | `memory:` | in this process, and gone with it |
    /// | `embedded:PATH` | in a file of this process |
    /// | `redis://HOST:PORT`, `rediss://` | in Redis, by TLS with the second `s` |
    /// | `redis+cluster://HOST:PORT`, `rediss+cluster://` | in Redis Cluster, found by one node |
    /// | `redis+sentinel://HOST:PORT,HOST:PORT/MASTER` | in Redis, found by its Sentinels |
    ///
    /// Several processes may share a ledger in Redis, with one secret. `?ledger=NAME` after a Redis
    /// URL keeps several ledgers apart.
    pub fn ledger(mut self, url: &str) -> Self {
        self.ledger = Books::At(url.to_owned());
        self
    }

    /// Keeps books in a store of yours, which `farebox-ledger`'s conformance suite has seen.
    ///
    /// No first record is kept or compared: that the store was never used with another secret,
    /// mode or Stripe account is for you to check. The secret must be set.
    ///
    /// ```
    /// use farebox_ledger::store::Memory;
    /// use farebox_middleware::{Payments, Stripe};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let stripe = Stripe::new("sk_test_1", "pk_test_1")?.base_url("http://127.0.0.1:1")?;
    /// let books = Memory::default(); // anything that implements farebox_ledger::Store
    /// let payments = Payments::builder(stripe).store(books).secret(&[7; 32]).open().await?;
    /// # payments.close().await?;
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.ledger = Books::Theirs(Ledger::Custom(Box::new(store)));
        self
    }

    /// The secret of at least 32 random bytes from which payer ids and credentials derive. It must
    /// never change. Without it, `FAREBOX_SECRET` is read; outside live mode, one is made and kept
    /// beside an embedded ledger when that is not set either.
    pub fn secret(mut self, secret: &[u8]) -> Self {
        self.secret = Some(secret.to_owned());
        self
    }

    /// The smallest top-up in its currency. The default is ten times Stripe's smallest charge:
    /// 5 dollars.
    pub fn min_top_up(mut self, smallest: Money) -> Self {
        self.settings.limits.smallest.push(smallest);
        self
    }

    /// The largest top-up in its currency. The default is 200 times Stripe's smallest charge:
    /// 100 dollars.
    pub fn max_top_up(mut self, largest: Money) -> Self {
        self.settings.limits.largest.push(largest);
        self
    }

    /// The secret with which Stripe signs events (`whsec_...`), one for each endpoint that is told,
    /// and both while it is rolled. Without any, `STRIPE_WEBHOOK_SECRET` is read: one, or several
    /// between commas.
    pub fn webhook_secret(mut self, secret: &str) -> Self {
        self.webhook_secrets.push(secret.to_owned());
        self
    }

    /// Whether a card that paid stays at Stripe, so that the same PaymentMethod can pay again. It
    /// does unless this is `false`; then every top-up needs a new PaymentMethod. At most 16 of a payer
    /// stay, and those that are forgotten are detached.
    pub fn save_cards(mut self, save: bool) -> Self {
        self.settings.save_cards = save;
        self
    }

    /// Whether a payer may take its unspent credit back to its cards, by its own credential, at
    /// `refund` of [`Payments::account_routes`]. It may not unless this is `true`: Stripe keeps its
    /// fees of what is refunded.
    pub fn payer_refunds(mut self, allow: bool) -> Self {
        self.settings.payer_refunds = allow;
        self
    }

    /// Lets what requests spend reach the disk within `bound` instead of before they are answered:
    /// several times as many requests, and a crash costs you what was spent within the bound. It
    /// never costs a payer, and never touches card money. Only the embedded ledger obeys it.
    pub fn settle_within(mut self, bound: Duration) -> Self {
        self.settle_within = Some(bound);
        self
    }

    /// How often cards may be tried, and by whom.
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// How often in a second this process asks each endpoint of Stripe for requests. The default
    /// is 20; several processes of one Stripe account divide what Stripe allows them, 25.
    pub fn stripe_rate(mut self, per_second: u32) -> Self {
        self.admission.stripe_per_second = per_second;
        self
    }

    /// Where the address of a client is found. The default is the other end of its connection.
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.client_ip = client_ip;
        self
    }

    /// The most that is taken from one card in 24 hours until 7 days after the first charge of it
    /// for the same payer, in its currency. The default is twice the largest top-up.
    pub fn new_card_per_day(mut self, most: Money) -> Self {
        self.settings.limits.new_card.push(most);
        self
    }

    /// Another clock than the operating system's, for tests of what age does.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the ledger, and goes on with every top-up that an earlier life left open.
    ///
    /// # Errors
    ///
    /// [`OpenError`], one sentence for the operator. An outage of Stripe is none: a server with
    /// credit on its books starts and serves.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn open(self) -> Result<Payments, OpenError> {
        let builder = self.read_secrets()?;
        let (admission, client_ip) = (builder.admission, builder.client_ip);
        let Builder { stripe, ledger: books, secret, settings, clock, settle_within, .. } = builder;
        settings.limits.check()?;
        let url = match &books {
            Books::At(url) => Some(url.as_str()),
            Books::Theirs(_) => None,
        };
        let keys = Keys::new(&secret::find(secret, url, stripe.mode())?);
        let account = account(&stripe).await?;
        let account = account.as_ref().map(|account| account.id.as_str());
        let first = FirstRecord::new(&keys.check, stripe.mode().as_str(), account);
        let options = Options { clock: clock.clone(), settle_within };
        let (ledger, first) = match books {
            Books::At(url) => (Ledger::open(&url, &first, options).await?, Some(first)),
            Books::Theirs(ledger) => (ledger, None),
        };
        let gate = Gate::new(admission, client_ip, &ledger, clock.clone());
        let shared = Shared::new(stripe, ledger, first, keys, settings, gate, clock);
        let shared = Arc::new(shared);
        for due in shared.ledger.due().await? {
            if let Due::TopUp(id) = due {
                tracing::info!(top_up = %id, "going on with an open top-up");
                shared.go_on(id).await;
            }
        }
        sweep::start(&shared);
        Ok(Payments { shared })
    }

    /// The webhook secrets, from the builder or the environment.
    fn read_secrets(mut self) -> Result<Builder, OpenError> {
        if self.webhook_secrets.is_empty()
            && let Ok(named) = std::env::var(WEBHOOK_SECRET)
        {
            let named = named.split(',').map(str::trim).filter(|secret| !secret.is_empty());
            self.webhook_secrets.extend(named.map(str::to_owned));
        }
        if !self.webhook_secrets.is_empty() {
            let secrets = WebhookSecrets::new(&self.webhook_secrets)?;
            self.settings.webhook_secrets = Some(Arc::new(secrets));
        }
        Ok(self)
    }
}

/// The account at Stripe, if it can be asked in time. An outage does not stop a start; what Stripe
/// says to be wrong does.
async fn account(stripe: &Stripe) -> Result<Option<StripeAccount>, OpenError> {
    match tokio::time::timeout(ACCOUNT_WITHIN, stripe.account()).await {
        Ok(Ok(Some(account)))
            if stripe.mode() == Mode::Live && account.charges_enabled == Some(false) =>
        {
            Err(OpenError::ChargesDisabled)
        }
        Ok(Ok(account)) => Ok(account),
        Ok(Err(LookUpError::Operator)) => Err(OpenError::KeyRefused),
        Ok(Err(error)) => {
            tracing::warn!(%error, "Stripe does not name its account; starting without");
            Ok(None)
        }
        Err(_) => {
            tracing::warn!("Stripe does not answer; starting without");
            Ok(None)
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive() // a URL may hold a password
    }
}

/// Why payments could not be opened; the operator acts.
///
/// Its Debug is its Display, so that a `main` that returns it prints a sentence.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no usable secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A webhook secret is none.
    #[error(transparent)]
    Stripe(#[from] ConfigError),
    /// Stripe knows the secret key no more, or never did.
    #[error("Stripe refuses STRIPE_SECRET_KEY: copy it anew from Stripe's dashboard")]
    KeyRefused,
    /// Stripe lets the account charge nobody.
    #[error("Stripe does not let this account charge cards yet: finish its activation there")]
    ChargesDisabled,
    /// The limits of a top-up leave no amount.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] farebox_ledger::OpenError),
    /// The ledger was opened and does not answer.
    #[error(transparent)]
    Store(#[from] farebox_ledger::StoreError),
}

impl fmt::Debug for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Some tasks about money have not ended in time. Their top-ups stay open in the ledger.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{tasks} tasks about money have not ended; the next start goes on with them")]
pub struct CloseError {
    tasks: usize,
}
