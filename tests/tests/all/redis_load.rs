//! Spenders on a ledger in Redis: what they were told, and whether the books agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farebox_ledger::book::{Line, Route};
use farebox_ledger::{Book, Command, Ledger, Outcome, Proof, ReservationId, Store as _, Then};
use farebox_middleware::usd;
use farebox_protocol::{Currency, Micros, PayerId};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::Cluster;

/// What a request costs, in micros.
pub(crate) const PRICE: i64 = 100;
pub(crate) const CREDENTIAL: Proof = Proof::Credential { generation: 1, number: None };

pub(crate) fn cluster_url(cluster: &Cluster, ledger: &str) -> String {
    format!("redis+cluster://{}?ledger={ledger}", cluster.addresses().join(","))
}

/// The payer number `n`, whose books are in bucket `n` of 256.
pub(crate) fn payer(n: u8) -> PayerId {
    let mut id = [3; 32];
    id[0] = n;
    PayerId::from_bytes(id)
}

/// An id that nobody else makes.
pub(crate) fn new_id() -> ReservationId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    (now << 32 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed))).into()
}

pub(crate) fn reserve(id: ReservationId, amount: i64, proof: Proof) -> Command {
    let (currency, amount) = (Currency::USD, Micros::new(amount).unwrap());
    Command::Reserve { id, currency, amount, ttl: 60_000, proof, claim: None }
}

pub(crate) fn settle(id: ReservationId, spent: i64) -> Command {
    let line = Line { route: Route::new("/joke"), spent: Micros::new(spent).unwrap() };
    let lines = if spent == 0 { Vec::new() } else { vec![line] };
    Command::Settle { id, claim: None, lines, then: Then::Close }
}

/// What a spender was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// How many requests were charged.
    pub(crate) charged: i64,
    /// How many settles were not answered.
    pub(crate) unknown: i64,
    /// How many settles found nothing to settle.
    pub(crate) expired: i64,
    /// How many commands were not answered.
    pub(crate) errors: i64,
    /// The longest time that a command took.
    pub(crate) longest: Duration,
    /// When the last command that was answered was answered.
    pub(crate) served: Option<Instant>,
}

impl Told {
    pub(crate) fn and(self, other: Told) -> Told {
        Told {
            charged: self.charged + other.charged,
            unknown: self.unknown + other.unknown,
            expired: self.expired + other.expired,
            errors: self.errors + other.errors,
            longest: self.longest.max(other.longest),
            served: self.served.max(other.served),
        }
    }

    async fn ask(
        &mut self,
        ledger: &Ledger,
        payer: &PayerId,
        command: &Command,
    ) -> Option<Outcome> {
        let asked = Instant::now();
        let applied = ledger.apply(payer, command).await;
        self.longest = self.longest.max(asked.elapsed());
        match applied {
            Ok(applied) => {
                self.served = Some(Instant::now());
                Some(applied.outcome)
            }
            Err(_) => {
                self.errors += 1;
                sleep(Duration::from_millis(5)).await;
                None
            }
        }
    }

    /// One request: sets its price aside and spends it.
    pub(crate) async fn request(&mut self, ledger: &Ledger, payer: &PayerId) {
        let id = new_id();
        match self.ask(ledger, payer, &reserve(id, PRICE, CREDENTIAL)).await {
            Some(Outcome::Reserved { .. }) => {}
            Some(other) => panic!("{other:?}"),
            None => {
                self.ask(ledger, payer, &settle(id, 0)).await;
                return;
            }
        }
        match self.ask(ledger, payer, &settle(id, PRICE)).await {
            Some(Outcome::Settled { .. }) => self.charged += 1,
            Some(Outcome::Expired) => self.expired += 1,
            Some(other) => panic!("{other:?}"),
            None => self.unknown += 1,
        }
    }
}

/// Payers that spend until they are stopped.
pub(crate) struct Spenders {
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    /// Whom each spends for, and what was spent before.
    tasks: Vec<(PayerId, i64, JoinHandle<Told>)>,
}

impl Spenders {
    /// Funds `payers` payers, over all buckets, and lets each spend with `tasks` tasks.
    pub(crate) async fn start(ledger: &Arc<Ledger>, payers: u8, tasks: usize) -> Spenders {
        let payers = (0..payers).map(|n| payer(n.wrapping_mul(u8::MAX / payers + 1)));
        let (mut spenders, stop) = (Vec::new(), Arc::new(AtomicBool::new(false)));
        for payer in payers {
            farebox_ledger::store::fund(&**ledger, &payer, usd!("1000")).await.unwrap();
            let before = ledger.load(&payer).await.unwrap().account(Currency::USD).spent.get();
            for _ in 0..tasks {
                let (ledger, stop) = (ledger.clone(), stop.clone());
                let task = tokio::spawn(async move {
                    let mut told = Told::default();
                    while !stop.load(Ordering::Relaxed) {
                        told.request(&ledger, &payer).await;
                    }
                    told
                });
                spenders.push((payer, before, task));
            }
        }
        Spenders { ledger: ledger.clone(), stop, tasks: spenders }
    }

    /// Stops them, and compares what each was told with its book. Answers the sum of it all, and
    /// how many charged requests the books have forgotten.
    pub(crate) async fn audit(self) -> (Told, i64) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut lost) = (Told::default(), 0);
        let mut of_payers = BTreeMap::new();
        for (payer, before, task) in self.tasks {
            let (_, sum) = of_payers.entry(payer).or_insert((before, Told::default()));
            *sum = sum.and(task.await.unwrap());
        }
        for (payer, (before, sum)) in of_payers {
            let spent = checked(&self.ledger, &payer).await.head.account(Currency::USD).spent;
            let missing = sum.charged - (spent.get() - before) / PRICE;
            assert!(missing >= -sum.unknown, "charged without an answer: {sum:?}, spent {spent:?}");
            lost += missing.max(0);
            all = all.and(sum);
        }
        (all, lost)
    }
}

/// A book that is consistent, and all of its money accounted for.
pub(crate) async fn checked(ledger: &Ledger, payer: &PayerId) -> Book {
    let book = ledger.book(payer).await.unwrap();
    book.check().unwrap();
    for (currency, account) in &book.head.accounts {
        let rows = book.usage.iter().filter(|(key, _)| key.currency == *currency);
        assert_eq!(rows.map(|(_, micros)| micros.get()).sum::<i64>(), account.spent.get());
    }
    book
}
