//! Concurrent clients against a real server: what it answered is what the machine, one command
//! after the other, would have answered, and what the clients and the bank know agrees with it.
//!
//! `FAREBOX_HISTORIES_HTTP` is how many histories there are per store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farebox_ledger::book::{Book, Line};
use farebox_ledger::conformance::Model;
use farebox_ledger::{Account, Command, EntryId, Outcome};
use farebox_protocol::{
    CredentialKey, Currency, ErrorCode, IdentityKey, PayerId, Payment, TopUpId, Units,
};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::support::{
    Answer, Balance, Bank, Choices, DECLINED_CARD, Life, Part, Persistence, Program, Redis, Setup,
    Unanswered, Wire, balance, by_card, by_credential, card, number, replay, timeless,
    whole_machine,
};

const CLIENTS: usize = 32;
const OPERATIONS: usize = 5_000;
/// Fewer than clients: most share a card, each with a PaymentMethod of its own.
const CARDS: usize = 10;
/// Single-use PaymentMethods of wallets, each of a card of its own.
const WALLETS: usize = 8;
/// What a route costs that fails, in micros. No other route costs as much.
const FAILURE_MICROS: i64 = 30_000;

/// What one client saw of one request.
struct Seen {
    card: usize,
    /// When it was sent, and when it was answered or given up, in milliseconds.
    from: i64,
    to: i64,
    what: What,
}

enum What {
    /// A charge was acknowledged, and what remained, in units.
    Charged { payer: PayerId, charged: i64, remaining: i64 },
    /// A balance, in units.
    Balance { payer: PayerId, units: i64 },
    /// It was not charged, or only told so.
    Other,
    /// It is not known whether it was charged; its price, in units.
    Unknown { price: i64 },
}

fn millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn payer_of(credential: &str) -> PayerId {
    credential.split('.').next().unwrap().parse().unwrap()
}

/// What clients share.
struct World {
    url: String,
    methods: Vec<String>,
    wallets: Mutex<Vec<String>>,
    declined: String,
}

struct Client {
    world: Arc<World>,
    card: usize,
    method: String,
    credential: Option<String>,
    wire: Wire,
    choices: Choices,
    seen: Vec<Seen>,
}

impl Client {
    async fn run(mut self, operations: usize) -> Vec<Seen> {
        for _ in 0..operations {
            self.operation().await;
        }
        self.seen
    }

    async fn operation(&mut self) {
        match (self.choices.below(1_000), self.credential.clone()) {
            (0..100, Some(credential)) => self.read_balance(&credential).await,
            (100..103, Some(credential)) => {
                let path = format!("/revoke/{}", payer_of(&credential));
                self.post(&path).await;
            }
            (103..106, Some(credential)) => {
                let payer = payer_of(&credential);
                self.post(&format!("/freeze/{payer}/true")).await;
                tokio::time::sleep(Duration::from_millis(3)).await;
                self.post(&format!("/freeze/{payer}/false")).await;
            }
            (106..120, Some(credential)) => {
                let payment = by_card(&self.world.declined);
                let client_id = credential.parse().ok();
                let min_credit = Units::new(90_000);
                self.pay("/joke", 100, &Payment { client_id, min_credit, ..payment }, None).await;
            }
            (120..122, Some(credential)) => {
                let Some(wallet) = self.world.wallets.lock().await.pop() else { return };
                let client_id = credential.parse().ok();
                let min_credit = Units::new(90_000);
                let payment = Payment { client_id, min_credit, ..by_card(&wallet) };
                self.pay("/joke", 100, &payment, None).await;
            }
            (choice, _) => {
                let (path, price) = match choice {
                    0..700 => ("/joke", 100),
                    700..800 => ("/slow", 200),
                    800..860 => ("/report", 10_000),
                    860..940 => ("/fail", 300),
                    _ => ("/missing", 300),
                };
                let payment = self.payment();
                let hangs_up = self.choices.below(20) == 0;
                let patience = Duration::from_millis(self.choices.below(8) as u64);
                self.pay(path, price, &payment, hangs_up.then_some(patience)).await;
            }
        }
    }

    fn payment(&mut self) -> Payment {
        match (self.credential.clone(), self.choices.below(10)) {
            (Some(credential), 0..8) => {
                // With its card beside it, for when the credit is short.
                Payment { client_id: credential.parse().ok(), ..by_card(&self.method) }
            }
            (Some(credential), 8) => by_credential(&credential),
            _ => by_card(&self.method),
        }
    }

    async fn pay(&mut self, path: &str, price: i64, payment: &Payment, patience: Option<Duration>) {
        let from = millis();
        let request = self.wire.get(&self.world.url, path, payment);
        let answer = match patience {
            Some(patience) => tokio::time::timeout(patience, request).await.ok(),
            None => Some(request.await),
        };
        let what = match answer {
            Some(Ok(answer)) => self.learn(path, &answer),
            Some(Err(Unanswered::NotSent)) => What::Other,
            Some(Err(Unanswered::Lost)) | None => What::Unknown { price },
        };
        self.saw(from, what);
    }

    fn learn(&mut self, path: &str, answer: &Answer) -> What {
        if answer.headers.contains_key("payment-response") && answer.status != 402 {
            let receipt = answer.receipt();
            assert_eq!(answer.is_served(), receipt.charged.is_some_and(|c| c.get() > 0));
            self.credential = Some(receipt.client_id.clone());
            let (charged, remaining) = (answer.charged(), answer.remaining());
            let payer = payer_of(&receipt.client_id);
            return match charged {
                0 => What::Other,
                charged => What::Charged { payer, charged, remaining },
            };
        }
        assert!(matches!(answer.status, 402 | 403 | 429 | 503), "{path}: {answer:?}");
        match answer.code() {
            Some(ErrorCode::InsufficientCredits) => {
                self.credential = None; // revoked, or empty
                What::Other
            }
            _ => What::Other,
        }
    }

    async fn read_balance(&mut self, credential: &str) {
        let (from, payment) = (millis(), by_credential(credential));
        let answer = self.wire.get(&self.world.url, "/account/balance", &payment).await.unwrap();
        let payer = payer_of(credential);
        let what = match answer.body.contains("creditsRemaining") {
            true => What::Balance { payer, units: balance(&answer) },
            false => What::Other, // revoked
        };
        self.saw(from, what);
    }

    /// Asks until the ledger takes it: Redis may not answer in time.
    async fn post(&mut self, path: &str) {
        let from = millis();
        loop {
            let answer = self.wire.post(&self.world.url, path).await.unwrap();
            assert!(matches!(answer.status, 200 | 503), "{path}: {answer:?}");
            if answer.status == 200 {
                break;
            }
        }
        self.saw(from, What::Other);
    }

    fn saw(&mut self, from: i64, what: What) {
        self.seen.push(Seen { card: self.card, from, to: millis(), what });
    }
}

/// Sums of many histories.
#[derive(Default)]
struct Sums {
    operations: usize,
    commands: usize,
    charged: usize,
    unknown: usize,
    reads: usize,
    declined: usize,
    top_ups: usize,
}

/// One history: a server with a new ledger, a new bank, and all clients at once.
async fn history(ledger: &str, seed: u64, sums: &mut Sums) {
    let bank = Bank::open().await;
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_LEDGER", ledger.replace("FOLDER", folder.path().to_str().unwrap())));
    environment.push(("FAREBOX_RECORD", record.display().to_string()));
    let program = Program::start("recorded-api", &environment).await;

    let number = |n: usize| card(u32::try_from(n).unwrap());
    let methods = join_all((0..CLIENTS).map(|n| bank.method_of(number(n % CARDS)))).await;
    let wallets = join_all((0..WALLETS).map(|n| bank.method_of(number(CARDS + n)))).await;
    let declined = bank.method(DECLINED_CARD).await;
    let (url, wallets) = (program.url.clone(), Mutex::new(wallets));
    let world = Arc::new(World { url, methods, wallets, declined });
    let clients = (0..CLIENTS).map(|n| {
        let client = Client {
            world: world.clone(),
            card: n % CARDS,
            method: world.methods[n].clone(),
            credential: None,
            wire: Wire::default(),
            choices: Choices::of(seed * 1_000 + n as u64),
            seen: Vec::new(),
        };
        tokio::spawn(client.run(OPERATIONS / CLIENTS + usize::from(n < OPERATIONS % CLIENTS)))
    });
    let seen: Vec<Seen> = join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();
    judge(program, &bank, &record, &seen, ledger.starts_with("embedded"), sums).await;
    let _: TempDir = folder;
}

async fn judge(
    program: Program,
    bank: &Bank,
    record: &std::path::Path,
    seen: &[Seen],
    exact: bool,
    sums: &mut Sums,
) {
    let url = program.url.clone();
    at_rest(record).await;
    let mut balances = HashMap::new();
    let payers = Life::read(record);
    let mut wire = Wire::default();
    for (payer, part) in &payers.parts {
        let generation = part.generation();
        let payment = by_credential(&credential(*payer, generation));
        let answer = wire.get(&url, "/account/balance", &payment).await.unwrap();
        balances.insert(*payer, balance(&answer));
    }
    drop(wire);
    program.terminate().await;
    assert!(program.end().await.success());

    let life = Life::read(record);
    let (mut models, mut timelines) = (HashMap::new(), HashMap::new());
    for (payer, part) in &life.parts {
        assert!(part.unfinished.is_empty() || !exact, "a command was never answered");
        // A payer to whom nothing happened has no book.
        let nothing = Book::default();
        let left = part.left.as_ref().unwrap_or(&nothing);
        let replayed = replay(&Model::default(), part, Some(left.head.seq));
        let replayed = replayed.unwrap_or_else(|error| panic!("{payer}: {}", error.0));
        let book = replayed.model.book();
        // Redis decides at the time of reading, and may write after somebody who read later: then
        // a top-up is a few milliseconds older than its place in the order.
        let agree = if exact { left == book } else { timeless(left) == timeless(book) };
        assert!(agree, "the ledger has {left:?}, the machine {book:?}");
        let Account { available, reserved, .. } = book.head.account(Currency::USD);
        let is_open = |id: &EntryId| matches!(id, EntryId::Reservation(_));
        let kept: Vec<EntryId> = book.entries.keys().copied().filter(is_open).collect();
        let of_kept =
            part.done.iter().filter(|d| d.command.entry().is_some_and(|id| kept.contains(&id)));
        let of_kept: Vec<_> = of_kept.collect();
        assert_eq!(reserved.get(), 0, "a request has ended, its reservation has not: {of_kept:?}");
        assert_eq!(balances[payer], available.units_floor().get(), "a balance over HTTP");
        sums.commands += part.done.len();
        models.insert(*payer, replayed.model);
        timelines.insert(*payer, replayed.available);
    }
    for (payer, part) in &life.parts {
        let charges: Vec<&Seen> = seen.iter().filter(|s| s.is_charge_of(*payer)).collect();
        let unanswered = unanswered(seen, *payer);
        sums.charged += charges.len();
        tie_charges(part, &charges, &unanswered);
        tie_reads(&timelines[payer], seen, *payer, exact);
    }
    tie_bank(bank, &life, &models, sums);
    sums.operations += seen.len();
    sums.unknown += seen.iter().filter(|s| matches!(s.what, What::Unknown { .. })).count();
    sums.reads += seen.iter().filter(|s| matches!(s.what, What::Balance { .. })).count();
}

/// Whatever clients that hung up have left behind has ended after this.
async fn at_rest(record: &std::path::Path) {
    let length = || std::fs::metadata(record).unwrap().len();
    let (mut before, mut still) = (length(), 0);
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = length();
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
}

impl Seen {
    fn is_charge_of(&self, whose: PayerId) -> bool {
        matches!(self.what, What::Charged { payer, .. } if payer == whose)
    }
}

/// The prices of the requests that may have been charged to a payer. Those of a card whose payer
/// is another one than it was, or nobody, count for all.
fn unanswered(seen: &[Seen], payer: PayerId) -> BTreeMap<i64, usize> {
    let mut payers: HashMap<usize, Vec<PayerId>> = HashMap::new();
    for seen in seen {
        if let What::Charged { payer, .. } = seen.what {
            payers.entry(seen.card).or_default().push(payer);
        }
    }
    let mut prices = BTreeMap::new();
    for seen in seen {
        if let What::Unknown { price } = seen.what
            && payers.get(&seen.card).is_none_or(|payers| payers.contains(&payer))
        {
            *prices.entry(price).or_default() += 1;
        }
    }
    prices
}

/// A charge in the record: when, how much, and what remained, in units.
fn charges(part: &Part) -> Vec<(i64, i64, i64)> {
    let charge = |done: &crate::support::Done| match (&done.command, &done.applied.outcome) {
        (Command::Settle { lines, .. }, Outcome::Settled { available }) => {
            let spent = Line::total(lines).unwrap();
            assert!(spent.get() != FAILURE_MICROS, "a failure was charged: {done:?}");
            let (at, spent) = (done.applied.at.millis(), spent.get());
            assert_eq!(spent % 100, 0, "prices are whole units");
            (spent > 0).then(|| (at, spent / 100, available.units_floor().get()))
        }
        _ => None,
    };
    part.done.iter().filter_map(charge).collect()
}

/// Every acknowledged charge is one in the record, made while its request was under way, and
/// whatever else was charged is a request whose answer never came.
fn tie_charges(part: &Part, acknowledged: &[&Seen], unanswered: &BTreeMap<i64, usize>) {
    let mut open: HashMap<(i64, i64), Vec<i64>> = HashMap::new();
    for (at, charged, remaining) in charges(part) {
        open.entry((charged, remaining)).or_default().push(at);
    }
    let mut acknowledged = acknowledged.to_vec();
    acknowledged.sort_by_key(|seen| seen.to);
    for seen in acknowledged {
        let What::Charged { charged, remaining, .. } = seen.what else { continue };
        let times = open.entry((charged, remaining)).or_default();
        // The earliest that fits leaves most for those that were answered later.
        let fits = |at: &i64| (seen.from..=seen.to).contains(at);
        let first = times.iter().enumerate().filter(|(_, at)| fits(at)).min_by_key(|(_, at)| **at);
        let Some((first, _)) = first else {
            panic!("an acknowledged charge of {charged}, leaving {remaining}, is lost: {times:?}")
        };
        times.swap_remove(first);
    }
    let mut left: BTreeMap<i64, usize> = BTreeMap::new();
    for ((charged, _), times) in open {
        *left.entry(charged).or_default() += times.len();
    }
    for (price, count) in left.into_iter().filter(|(_, count)| *count > 0) {
        let may = unanswered.get(&price).copied().unwrap_or_default();
        assert!(count <= may, "{count} charges of {price} that nobody asked for, not {may}");
    }
}

/// Every balance that was read was the balance at some moment while it was read. In an `exact`
/// store a change is made when it is decided. Redis decides, and writes later: before it answers,
/// and before it writes what comes after in the book.
fn tie_reads(timeline: &[Balance], seen: &[Seen], whose: PayerId, exact: bool) {
    let mut ended = vec![i64::MAX; timeline.len()];
    for at in (1..timeline.len()).rev() {
        let Balance { decided, answered, .. } = timeline[at];
        ended[at - 1] = match exact {
            true => decided.millis(),
            false => ended[at].min(answered.unwrap_or(i64::MAX)),
        };
    }
    for seen in seen {
        let What::Balance { payer, units } = seen.what else { continue };
        if payer != whose {
            continue;
        }
        let during = timeline
            .iter()
            .zip(&ended)
            .filter(|(balance, ended)| balance.decided.millis() <= seen.to && **ended >= seen.from);
        let was = during.map(|(balance, _)| balance.micros.div_euclid(100)).any(|was| was == units);
        assert!(was, "a balance of {units} was read that never was");
    }
}

/// The bank charged what became credit, each top-up once.
fn tie_bank(bank: &Bank, life: &Life, models: &HashMap<PayerId, Model>, sums: &mut Sums) {
    let mut paid: BTreeMap<String, i64> = BTreeMap::new();
    for charge in bank.charges() {
        let before = paid.insert(charge.metadata["top_up"].clone(), charge.amount * 10_000);
        assert_eq!(before, None, "a card was charged twice for one top-up");
    }
    let mut credited: BTreeMap<String, i64> = BTreeMap::new();
    for (&payer, part) in &life.parts {
        let mut received = 0;
        for done in &part.done {
            if let Command::FailTopUp { .. } = &done.command {
                sums.declined += 1;
            }
            if let (Command::Observe { currency, number, .. }, Outcome::Observed { difference }) =
                (&done.command, &done.applied.outcome)
            {
                let id = TopUpId { payer, currency: *currency, number: *number };
                *credited.entry(id.to_string()).or_default() += difference.get();
                received += difference.get();
            }
        }
        let account = models[&payer].book().head.account(Currency::USD);
        assert_eq!(account.received.get(), received);
    }
    assert_eq!(paid, credited, "what cards paid is not what became credit");
    sums.top_ups += paid.len();
}

/// The credential that the server gives a payer: `recorded-api` has a known secret.
fn credential(payer: PayerId, generation: u32) -> String {
    let identity = IdentityKey::new(&[7; 32]);
    let key = CredentialKey::new(identity.payer("farebox credential key").as_bytes());
    key.issue(payer, generation).as_str().to_owned()
}

async fn histories(name: &str, count: u64, ledger: impl AsyncFn(u64) -> String) {
    let _machine = whole_machine().await;
    let count = number("FAREBOX_HISTORIES_HTTP", count);
    let seed = number("FAREBOX_SEED", u64::try_from(millis() % 1_000_000_007).unwrap());
    println!("FAREBOX_SEED={seed} FAREBOX_HISTORIES_HTTP={count}");
    let (started, mut sums) = (Instant::now(), Sums::default());
    for n in 0..count {
        history(&ledger(n).await, seed.wrapping_add(n), &mut sums).await;
    }
    let Sums { operations, commands, charged, unknown, reads, declined, top_ups } = sums;
    println!(
        "{name}: {count} histories of {} operations: 0 lost, 0 created, 0 charged twice; \
         {commands} commands replayed with 0 differences; {charged} charges acknowledged, \
         {unknown} requests without an answer, {reads} balances read, {declined} cards declined, \
         {top_ups} top-ups; {:?}",
        operations / usize::try_from(count.max(1)).unwrap(),
        started.elapsed(),
    );
    assert!(charged > 0 && unknown > 0 && reads > 0 && declined > 0 && top_ups > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_disk_are_those_of_the_machine() {
    histories("embedded", 14, async |_| "embedded:FOLDER/books.redb".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_in_redis_are_those_of_the_machine() {
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    histories("Redis", 6, async |n| redis.url(&format!("shop{n}"))).await;
}
