//! What a provider sets before it opens payments, and what stops a start.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::clock::{Clock, SystemClock};
use farebox_ledger::{Due, FirstRecord, Ledger, Options, Store};
use farebox_processor::{Account, ConfigError, LookUpError, Mode, Stripe, WebhookSecrets};
use farebox_protocol::Money;

use crate::admission::{Admission, ClientIp, Gate};
use crate::payments::{Payments, Settings, Shared};
use crate::quote::LimitsError;
use crate::secret::{self, Keys, SecretError};
use crate::sweep;

/// How long a start waits for Stripe to name its account. An outage does not stop a start.
const ACCOUNT_WITHIN: Duration = Duration::from_secs(3);
/// The environment variable that holds the secrets of webhooks.
const WEBHOOK_SECRET: &str = "STRIPE_WEBHOOK_SECRET";
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
    pub(crate) fn new(stripe: Stripe) -> Builder {
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
async fn account(stripe: &Stripe) -> Result<Option<Account>, OpenError> {
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
