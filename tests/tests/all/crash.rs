//! The server dies at any moment, and no card's money is lost or taken twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farebox_middleware::{ManualClock, Payments, Timestamp};
use farebox_protocol::{Payment, Units};
use farebox_sandbox::Sandbox;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::support::{
    Answer, Bank, Program, Provider, by_card, by_credential, card, eventually, get, number,
    whole_machine,
};

const PRICE: i64 = 100;
const TOP_UP: i64 = 50_000;
const WORKERS: usize = 4;
/// Requests that a worker has in flight at one time.
const IN_FLIGHT: usize = 3;
/// How often a worker sends so many, before it takes the next card.
const ROUNDS: usize = 10;

/// A card, and what its owner knows.
struct Spender {
    method: String,
    credential: Option<String>,
    acknowledged: i64,
    unanswered: i64,
}

struct Load {
    bank: Bank,
    http: reqwest::Client,
    url: watch::Receiver<String>,
    cards: AtomicU32,
    stop: AtomicBool,
}

impl Load {
    /// Spends from card after card until it is told to stop.
    async fn work(self: Arc<Load>) -> Vec<Spender> {
        let mut spenders = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let method = self.bank.method(&card(self.cards.fetch_add(1, Ordering::SeqCst))).await;
            let (acknowledged, unanswered) = (0, 0);
            let mut spender = Spender { method, credential: None, acknowledged, unanswered };
            for _ in 0..ROUNDS {
                self.round(&mut spender).await;
            }
            spenders.push(spender);
        }
        spenders
    }

    async fn round(&self, spender: &mut Spender) {
        let payment = match &spender.credential {
            Some(credential) => by_credential(credential),
            None => by_card(&spender.method),
        };
        let url = format!("{}/api/joke", *self.url.borrow());
        for answer in join_all((0..IN_FLIGHT).map(|_| get(&self.http, &url, &payment))).await {
            match answer {
                Ok(answer) => spender.learn(&answer),
                // Nothing was sent.
                Err(error) if error.is_connect() => sleep(Duration::from_millis(5)).await,
                Err(_) => spender.unanswered += 1,
            }
        }
    }
}

impl Spender {
    fn learn(&mut self, answer: &Answer) {
        assert!(matches!(answer.status, 200 | 429 | 503), "{answer:?}");
        if answer.is_served() {
            self.acknowledged += answer.charged();
            self.credential = Some(answer.credential());
        }
    }

    /// What is missing once all open top-ups have ended: requests whose answer never arrived.
    async fn audit(&mut self, load: &Load, url: &str) -> i64 {
        let joke = format!("{url}/api/joke");
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.credential.is_none() {
            assert!(Instant::now() < deadline, "a retry is never served");
            self.learn(&get(&load.http, &joke, &by_card(&self.method)).await.unwrap());
        }
        let charges = load.bank.charges();
        let charges = charges.iter().filter(|charge| charge.payment_method == self.method).count();
        assert_eq!(charges, 1, "a card was charged {charges} times");
        let credential = by_credential(self.credential.as_ref().unwrap());
        let url = format!("{url}/account/balance");
        let missing = async || {
            let answer = get(&load.http, &url, &credential).await.unwrap();
            TOP_UP - crate::support::balance(&answer) - self.acknowledged
        };
        let bound = self.unanswered * PRICE;
        eventually(Duration::from_secs(5), missing, |missing| (0..=bound).contains(missing)).await
    }
}

/// A generator of moments; the same seed gives the same ones.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(20 + self.0 % 400)
    }
}

fn environment(bank: &Bank, folder: &TempDir) -> Vec<(&'static str, String)> {
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_ADMISSION", "unlimited".to_owned()));
    environment.push(("FAREBOX_LEDGER", ledger));
    environment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_under_load_loses_no_credit_and_charges_no_card_twice() {
    let _machine = whole_machine().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let seed = number("FAREBOX_SEED", u64::try_from(now % 1_000_000_007).unwrap());
    let kills = number("FAREBOX_KILLS", 12);
    println!("FAREBOX_SEED={seed} FAREBOX_KILLS={kills}");
    // Slow enough for many of the kills to find a charge under way.
    let bank = Bank::slow(Duration::from_millis(20)).await;
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(&bank, &folder);
    let mut program = Program::start("paid-api", &environment).await;
    let (set_url, url) = watch::channel(program.url.clone());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (cards, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let load = Arc::new(Load { bank, http, url, cards, stop });
    let workers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(load.clone().work())).collect();

    let mut moments = Moments(seed | 1);
    for _ in 0..kills {
        sleep(moments.next()).await;
        program.kill().await;
        program = Program::start("paid-api", &environment).await;
        set_url.send_replace(program.url.clone());
    }
    load.stop.store(true, Ordering::SeqCst);
    let workers = join_all(workers).await;
    let mut spenders: Vec<Spender> = workers.into_iter().flat_map(Result::unwrap).collect();

    let (mut acknowledged, mut unanswered, mut missing) = (0, 0, 0);
    for spender in &mut spenders {
        missing += spender.audit(&load, &program.url).await;
        acknowledged += spender.acknowledged;
        unanswered += spender.unanswered;
    }
    let charged = load.bank.charged();
    println!(
        "{kills} kills, {} cards: charged {charged} = remaining {} + acknowledged {acknowledged} \
         + {missing} of {unanswered} requests whose answer never came",
        spenders.len(),
        charged - acknowledged - missing,
    );
    assert_eq!(charged, TOP_UP * i64::try_from(spenders.len()).unwrap());
    assert!(acknowledged > 0 && (0..=unanswered * PRICE).contains(&missing));
}

/// Waits until the bank has charged, and kills the server before it hears of it.
async fn kill_between_charge_and_credit(
    program: Program,
    bank: &Bank,
    payment: &Payment,
    charges: usize,
) {
    let http = reqwest::Client::new();
    let (url, payment) = (format!("{}/api/joke", program.url), payment.clone());
    let request = tokio::spawn(async move { get(&http, &url, &payment).await });
    let ask = async || bank.charges().len();
    eventually(Duration::from_secs(20), ask, |made| *made == charges).await;
    program.kill().await;
    assert!(request.await.unwrap().is_err(), "it was answered before the kill");
}

#[tokio::test]
async fn a_charge_that_the_server_never_heard_of_is_credited_after_the_restart() {
    let bank = Bank::slow(Duration::from_secs(1)).await;
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(&bank, &folder);
    let http = reqwest::Client::new();

    // A first request: the retry is served from the charge that was made.
    let first = by_card(&bank.method(&card(1)).await);
    let program = Program::start("paid-api", &environment).await;
    kill_between_charge_and_credit(program, &bank, &first, 1).await;
    let program = Program::start("paid-api", &environment).await;
    let started = Instant::now();
    let retried = get(&http, &format!("{}/api/joke", program.url), &first).await.unwrap();
    let retried_after = started.elapsed();
    assert!(retried.is_served(), "{retried:?}");
    assert_eq!((bank.charges().len(), retried.remaining()), (1, TOP_UP - PRICE));

    // A later top-up: the credit comes without any request.
    let credential = retried.credential();
    let (client_id, min_credit) = (credential.parse().ok(), Units::new(60_000));
    let more = Payment { client_id, min_credit, ..first };
    kill_between_charge_and_credit(program, &bank, &more, 2).await;
    let program = Program::start("paid-api", &environment).await;
    let started = Instant::now();
    let url = format!("{}/account/balance", program.url);
    let balance = async || {
        crate::support::balance(&get(&http, &url, &by_credential(&credential)).await.unwrap())
    };
    let credited = eventually(Duration::from_secs(3), balance, |units| *units > TOP_UP).await;
    println!(
        "killed between charge and credit: served {retried_after:?} after the restart, \
         credited {:?} after it",
        started.elapsed()
    );
    assert_eq!((bank.charges().len(), credited), (2, 2 * TOP_UP - PRICE));
}

/// Hours after now, for the bank and for a provider.
struct Later(farebox_sandbox::ManualClock, Arc<ManualClock>);

impl Later {
    fn than_now() -> Later {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let clock = farebox_sandbox::ManualClock::at(i64::try_from(now.as_secs()).unwrap());
        let later = Later(clock, Arc::default());
        later.by_hours(0);
        later
    }

    fn by_hours(&self, hours: u64) {
        self.0.advance(Duration::from_secs(hours * 3_600));
        self.1.set(Timestamp::from_millis(self.0.now() * 1_000));
    }
}

/// Stripe forgets a key after a day, and would charge again under it. Older top-ups are not sent
/// again; what Stripe lists decides.
#[tokio::test]
async fn a_charge_of_yesterday_is_found_and_not_made_again() {
    let later = Later::than_now();
    let sandbox = Sandbox::builder().latency(Duration::from_secs(1)).clock(later.0.clone());
    let bank = Bank::start(sandbox).await;
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(&bank, &folder);
    let payment = by_card(&bank.method(&card(1)).await);
    let program = Program::start("paid-api", &environment).await;
    kill_between_charge_and_credit(program, &bank, &payment, 1).await;
    let sent = bank.charge_calls();

    later.by_hours(25);
    let (_, ledger) = environment.last().unwrap();
    let builder = Payments::builder(bank.stripe()).ledger(ledger).clock(later.1);
    let provider = Provider::of(builder.open().await.unwrap(), folder).await;
    let served = provider.joke(&payment).await;
    assert!(served.is_served(), "{served:?}");
    assert_eq!(served.remaining(), TOP_UP - PRICE);
    assert_eq!((bank.charges().len(), bank.charge_calls()), (1, sent));
}

/// The keys of a ledger that was lost are made again, and Stripe knows them: what was charged
/// under them is found, also for another PaymentMethod of the card, and not charged again.
#[tokio::test]
async fn a_ledger_that_was_lost_finds_what_its_cards_paid() {
    let later = Later::than_now();
    let bank = Bank::start(Sandbox::builder().clock(later.0.clone())).await;
    for life in 0..2 {
        let builder = Payments::builder(bank.stripe()).ledger("memory:").secret(&[7; 32]);
        let payments = builder.clock(later.1.clone()).open().await.unwrap();
        let provider = Provider::of(payments, tempfile::tempdir().unwrap()).await;
        let served = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
        assert!(served.is_served(), "life {life}: {served:?}");
        assert_eq!((bank.charges().len(), served.remaining()), (1, TOP_UP - PRICE));
        later.by_hours(20);
    }
}
