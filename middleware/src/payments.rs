//! `Payments`: what a provider opens once and asks for prices.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use farebox_ledger::clock::Clock;
use farebox_ledger::{
    Book, Command, FirstRecord, Head, Ledger, Outcome, ReservationId, Store, StoreError,
};
use farebox_processor::{Stripe, WebhookSecrets};
use farebox_protocol::{
    CredentialKey, Currency, ErrorCode, IdentityKey, Micros, Money, PayerId, TopUpId,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{AccountService, Issuing};
use crate::admin::{AdminService, TokenError};
use crate::admission::Gate;
use crate::builder::Builder;
use crate::layer::PaymentLayer;
use crate::price::{FixedPrice, Price, Pricer};
use crate::quote::{Limits, Quote, Unpayable};
use crate::refund;
use crate::secret::Keys;
use crate::sweep::OpenReservations;
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
    pub(crate) limits: Limits,
    pub(crate) webhook_secrets: Option<Arc<WebhookSecrets>>,
    /// Whether a card that paid stays at Stripe, for later top-ups.
    pub(crate) save_cards: bool,
    /// Whether a payer may take unspent credit back.
    pub(crate) payer_refunds: bool,
}

/// How long [`Payments::close`] waits for tasks about money.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

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
        Builder::new(stripe)
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
        let clock = Arc::new(farebox_ledger::clock::SystemClock);
        let gate = Gate::new(<_>::default(), <_>::default(), &ledger, clock.clone());
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
    pub(crate) fn new(
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

/// Some tasks about money have not ended in time. Their top-ups stay open in the ledger.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{tasks} tasks about money have not ended; the next start goes on with them")]
pub struct CloseError {
    tasks: usize,
}
