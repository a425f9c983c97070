//! The server dies before or after a command of every kind, and at random. Whatever it had
//! answered as lasting is there after the restart, and no payer, card or provider has lost.
//!
//! `FAREBOX_KILLS` is how often it dies: 100 times, and 2,000 in a long run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farebox_ledger::book::{Book, Line};
use farebox_ledger::conformance::Model;
use farebox_ledger::machine::Durability;
use farebox_ledger::{Command, Outcome};
use farebox_protocol::{Currency, PayerId, Payment, Units};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::support::{
    Answer, Bank, Choices, DECLINED_CARD, Done, Life, Part, Program, Unanswered, Wire, balance,
    by_card, by_credential, card, eventually, get, number, replay, timeless, whole_machine,
};

const PRICE: i64 = 100;
const TOP_UP: i64 = 50_000;
const FAILURE_MICROS: i64 = 30_000;
const WORKERS: usize = 4;
const IN_FLIGHT: usize = 3;
/// How many kills a ledger lives through before all of it is audited.
const LIVES: u64 = 10;
/// Whose turn it is: every point five times, and as many random moments as four points, in 100.
const KINDS: [&str; 8] = [
    "Reserve",
    "Settle",
    "OpenTopUp",
    "Observe",
    "FailTopUp",
    "SetCustomer",
    "OwnCard",
    "LinkCard",
];
const TURNS: u64 = 20;

/// Where the server dies: at a named point, or after some milliseconds.
enum Death {
    At(String),
    After(Duration),
}

impl Death {
    fn of_turn(turn: u64, choices: &mut Choices) -> Death {
        let turn = usize::try_from(turn % TURNS).unwrap();
        match KINDS.get(turn / 2) {
            Some(kind) => {
                let when = ["before", "after"][turn % 2];
                // The first ones are about cards; money is spent after them.
                let most = if ["Reserve", "Settle"].contains(kind) { 60 } else { 4 };
                Death::At(format!("{when}:{kind}:{}", 1 + choices.below(most)))
            }
            None => Death::After(Duration::from_millis(20 + choices.below(400) as u64)),
        }
    }

    fn name(&self) -> String {
        match self {
            Death::At(point) => point.rsplit_once(':').unwrap().0.to_owned(),
            Death::After(_) => "random".to_owned(),
        }
    }
}

/// A card with two PaymentMethods, and what its owner knows.
struct Spender {
    methods: [String; 2],
    credential: Option<String>,
    acknowledged: i64,
    /// Requests that may have been charged.
    unanswered: i64,
}

struct Load {
    bank: Bank,
    url: watch::Receiver<String>,
    cards: AtomicU32,
    declined: String,
    /// How often a worker sends all it has in flight, before it takes the next card.
    rounds: usize,
    stop: AtomicBool,
}

impl Load {
    /// Spends from card after card until it is told to stop.
    async fn work(self: Arc<Load>) -> Vec<Spender> {
        let mut spenders = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let number = card(self.cards.fetch_add(1, Ordering::SeqCst));
            let methods = [self.bank.method(&number).await, self.bank.method(&number).await];
            let mut spender = Spender { methods, credential: None, acknowledged: 0, unanswered: 0 };
            let mut wires: [Wire; IN_FLIGHT] = Default::default();
            for round in 0..self.rounds {
                let requests = wires.iter_mut().enumerate();
                let requests = requests.map(|(at, wire)| {
                    let (path, payment) = self.request(&spender, round, at);
                    let load = &self;
                    async move { (path, load.answer(wire, path, &payment).await) }
                });
                for (path, answer) in join_all(requests).await {
                    spender.learn(path, answer);
                }
            }
            spenders.push(spender);
        }
        spenders
    }

    fn request(&self, spender: &Spender, round: usize, at: usize) -> (&'static str, Payment) {
        let Some(credential) = &spender.credential else {
            return ("/joke", by_card(&spender.methods[0]));
        };
        match (round, at) {
            (_, 1) => ("/fail", by_credential(credential)),
            // Another PaymentMethod of the card.
            (2, _) => ("/joke", by_card(&spender.methods[1])),
            // Another card is asked for more, and refuses.
            (3, _) => {
                let (client_id, min_credit) = (credential.parse().ok(), Units::new(60_000));
                ("/joke", Payment { client_id, min_credit, ..by_card(&self.declined) })
            }
            _ => ("/joke", by_credential(credential)),
        }
    }

    /// Waits for a server that listens. `None`: the answer never came.
    async fn answer(&self, wire: &mut Wire, path: &str, payment: &Payment) -> Option<Answer> {
        loop {
            let url = self.url.borrow().clone();
            match wire.get(&url, path, payment).await {
                Ok(answer) => return Some(answer),
                Err(Unanswered::Lost) => return None,
                Err(Unanswered::NotSent) => sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Spender {
    fn learn(&mut self, path: &str, answer: Option<Answer>) {
        let Some(answer) = answer else {
            self.unanswered += i64::from(path == "/joke");
            return;
        };
        if answer.is_served() {
            self.acknowledged += answer.charged();
            self.credential = Some(answer.credential());
        } else {
            assert!(matches!(answer.status, 402 | 429 | 500 | 503), "{path}: {answer:?}");
        }
    }

    fn payer(&self) -> PayerId {
        self.credential.as_ref().unwrap().split('.').next().unwrap().parse().unwrap()
    }

    /// The units that were charged beyond what was acknowledged, once all top-ups have ended.
    async fn audit(&mut self, load: &Load, http: &reqwest::Client, url: &str) -> i64 {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.credential.is_none() {
            assert!(Instant::now() < deadline, "a retry is never served");
            let payment = by_card(&self.methods[0]);
            self.learn("/joke", get(http, &format!("{url}/joke"), &payment).await.ok());
        }
        let charges = load.bank.charges();
        let ours = charges.iter().filter(|charge| self.methods.contains(&charge.payment_method));
        assert_eq!(ours.count(), 1, "how often a card was charged");
        let (payment, url) =
            (by_credential(self.credential.as_ref().unwrap()), format!("{url}/account/balance"));
        let credited = async || balance(&get(http, &url, &payment).await.unwrap());
        let left = eventually(Duration::from_secs(10), credited, |left| *left > 0).await;
        TOP_UP - left - self.acknowledged
    }
}

/// What was found in many lives.
#[derive(Default)]
struct Found {
    kills: BTreeMap<String, (u32, u32)>,
    acknowledged: i64,
    unacknowledged: i64,
    /// Of what was acknowledged, how many units no ledger knows any more.
    forgotten: i64,
    durable: usize,
    top_ups: usize,
    restarts: Vec<Duration>,
    /// Charges that were answered and are not on disk: how many, micros, and how old the oldest
    /// was when the server died, in milliseconds.
    lost: Vec<(String, usize, i64, i64)>,
}

fn millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// One ledger, which lives through several deaths of its server.
struct Era {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
    /// The deaths, when they were and of what.
    deaths: Vec<(String, i64)>,
    /// Whether what is spent may reach the disk later.
    late: bool,
}

impl Era {
    fn record(&self, life: usize) -> PathBuf {
        self.folder.path().join(format!("record-{life}"))
    }

    async fn start(&self, death: Option<&Death>) -> Program {
        let mut environment = self.environment.clone();
        environment.push(("FAREBOX_RECORD", self.record(self.deaths.len()).display().to_string()));
        if let Some(Death::At(point)) = death {
            environment.push(("FAREBOX_CRASH", point.clone()));
        }
        Program::start("recorded-api", &environment).await
    }

    /// Lets the server die as it is told to.
    async fn die(&mut self, mut program: Program, death: &Death, found: &mut Found) {
        let reached = match death {
            Death::At(_) => program.dies(Duration::from_secs(10)).await,
            Death::After(time) => {
                sleep(*time).await;
                true
            }
        };
        self.deaths.push((death.name(), millis()));
        program.kill().await;
        let (kills, missed) = found.kills.entry(death.name()).or_default();
        *kills += u32::from(reached);
        *missed += u32::from(!reached);
    }

    /// Replays every life of every payer, and compares what each began with. Answers the books.
    fn judge(&self, found: &mut Found) -> HashMap<PayerId, Model> {
        let lives: Vec<Life> =
            (0..=self.deaths.len()).map(|n| Life::read(&self.record(n))).collect();
        let payers: HashSet<PayerId> =
            lives.iter().flat_map(|life| life.parts.keys().copied()).collect();
        let (mut models, none) = (HashMap::new(), Part::default());
        let mut lost: Vec<(usize, i64, i64)> = vec![(0, 0, 0); self.deaths.len()];
        for payer in payers {
            let part = |n: usize| lives[n].parts.get(&payer).unwrap_or(&none);
            let mut model = Model::default();
            for (n, (death, at)) in self.deaths.iter().enumerate() {
                let next = &part(n + 1).found;
                let (part, kept) = (part(n), next.head.seq);
                for done in part.done.iter().filter(|done| done.applied.seq > kept) {
                    match done.command.durability() {
                        Durability::Memory => {}
                        Durability::Spent if self.late => add(&mut lost[n], done, *at),
                        _ => panic!("{death} lost {done:?}: the book is at {kept}"),
                    }
                }
                found.durable += part.done.iter().filter(|done| done.is_durable()).count();
                let replayed = replay(&model, part, Some(kept));
                let replayed = replayed.unwrap_or_else(|error| panic!("{death}: {}", error.0));
                model = replayed.model.restarted();
                assert_eq!(timeless(next), timeless(model.book()), "after {death}");
            }
            let last = part(self.deaths.len());
            let replayed = replay(&model, last, None);
            let replayed = replayed.unwrap_or_else(|error| panic!("{payer}: {}", error.0));
            let left = last.left.as_ref().map_or_else(Book::default, timeless);
            assert_eq!(left, timeless(replayed.model.book()), "at the end");
            models.insert(payer, replayed.model);
        }
        for ((name, _), (count, micros, age)) in self.deaths.iter().zip(lost) {
            found.lost.push((name.clone(), count, micros, age));
        }
        models
    }
}

fn add(lost: &mut (usize, i64, i64), done: &Done, death: i64) {
    let micros = done.charged();
    assert!(micros > 0, "only what was spent may be late: {done:?}");
    *lost = (lost.0 + 1, lost.1 + micros, lost.2.max(death - done.applied.at.millis()));
}

impl Done {
    fn is_durable(&self) -> bool {
        self.command.durability() != Durability::Memory
    }

    /// What was charged, in micros.
    fn charged(&self) -> i64 {
        match (&self.command, &self.applied.outcome) {
            (Command::Settle { lines, .. }, Outcome::Settled { .. }) => {
                let charged = Line::total(lines).unwrap().get();
                assert!(charged != FAILURE_MICROS, "a failure was charged: {self:?}");
                charged
            }
            _ => 0,
        }
    }
}

/// Kills the server under load `kills` times, each at its turn, and audits everything.
async fn era(turns: std::ops::Range<u64>, seed: u64, late: bool, found: &mut Found) {
    let mut choices = Choices::of(seed.wrapping_add(turns.start));
    let bank = Bank::slow(Duration::from_millis(5)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut environment = bank.environment().to_vec();
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    environment.push(("FAREBOX_LEDGER", ledger));
    if late {
        environment.push(("FAREBOX_SETTLE_WITHIN", "100".to_owned()));
    }
    let mut era = Era { folder, environment, deaths: Vec::new(), late };
    let declined = bank.method(DECLINED_CARD).await;
    let mut deaths: Vec<Death> = turns.map(|turn| Death::of_turn(turn, &mut choices)).collect();
    deaths.reverse();
    let mut death = deaths.pop();
    let mut program = era.start(death.as_ref()).await;
    let (set_url, url) = watch::channel(program.url.clone());
    let (cards, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    // Commands about cards write everything. Where spending may be late, it is to be alone.
    let rounds = if late { 60 } else { 6 };
    let load = Arc::new(Load { bank, url, cards, declined, rounds, stop });
    let workers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(load.clone().work())).collect();
    while let Some(now) = death {
        era.die(program, &now, found).await;
        death = deaths.pop();
        let started = Instant::now();
        program = era.start(death.as_ref()).await;
        found.restarts.push(started.elapsed());
        set_url.send_replace(program.url.clone());
    }
    load.stop.store(true, Ordering::SeqCst);
    let workers = join_all(workers).await;
    let mut spenders: Vec<Spender> = workers.into_iter().flat_map(Result::unwrap).collect();
    let (http, url) = (reqwest::Client::new(), program.url.clone());
    let mut missing = HashMap::new();
    for spender in &mut spenders {
        let units = spender.audit(&load, &http, &url).await;
        missing.insert(spender.payer(), units);
    }
    drop(http);
    program.terminate().await;
    assert!(program.end().await.success());
    let models = era.judge(found);
    settle_accounts(&load.bank, &spenders, &models, &missing, found);
}

/// What the bank, the payers, the record and the balances over HTTP say of each card is the same.
fn settle_accounts(
    bank: &Bank,
    spenders: &[Spender],
    models: &HashMap<PayerId, Model>,
    missing: &HashMap<PayerId, i64>,
    found: &mut Found,
) {
    let may_lose: i64 = found.lost.iter().map(|(_, _, micros, _)| micros / 100).sum();
    let mut lost = 0;
    for spender in spenders {
        let account = models[&spender.payer()].book().head.account(Currency::USD);
        let missing = missing[&spender.payer()];
        assert_eq!(account.received.units_floor().get(), TOP_UP, "what a card paid is credited");
        assert_eq!(account.spent.units_floor().get(), spender.acknowledged + missing);
        assert!(missing <= spender.unanswered * PRICE, "{missing} were created or charged");
        lost += (-missing).max(0);
        found.acknowledged += spender.acknowledged;
        found.unacknowledged += missing.max(0);
        found.top_ups += 1;
    }
    found.forgotten += lost;
    assert!(lost <= may_lose, "{lost} units of what was acknowledged are lost, not {may_lose}");
    let charged = TOP_UP * i64::try_from(spenders.len()).unwrap();
    assert_eq!(bank.charged(), charged, "what cards paid");
}

async fn kills(name: &str, kills: u64, late: bool) -> Found {
    let _machine = whole_machine().await;
    let seed = number("FAREBOX_SEED", u64::try_from(millis() % 1_000_000_007).unwrap());
    println!("FAREBOX_SEED={seed} FAREBOX_KILLS={kills}");
    let (started, mut found) = (Instant::now(), Found::default());
    for first in (0..kills).step_by(usize::try_from(LIVES).unwrap()) {
        era(first..kills.min(first + LIVES), seed, late, &mut found).await;
    }
    found.restarts.sort_unstable();
    println!("{:<20} kills  not reached", "point");
    for (point, (kills, missed)) in &found.kills {
        println!("{point:<20} {kills:>5}  {missed:>11}");
    }
    let restart = |of: usize| found.restarts[(found.restarts.len() - 1) * of / 100];
    println!(
        "{name}: {kills} kills, {} cards: 0 double charges, 0 lost credits, 0 double credits, \
         0 charged failures; {} units acknowledged, {} charged and never answered; {} durable \
         commands answered, all there; restart p50 {:?}, p99 {:?}; {:?}",
        found.top_ups,
        found.acknowledged,
        found.unacknowledged,
        found.durable,
        restart(50),
        restart(99),
        started.elapsed(),
    );
    let missed: u32 = found.kills.values().map(|(_, missed)| missed).sum();
    assert!(u64::from(missed) * 20 <= kills, "{missed} points were not reached");
    assert!(found.acknowledged > 0);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_at_any_command_loses_nothing_that_it_answered() {
    let found = kills("kill -9", number("FAREBOX_KILLS", 100), false).await;
    assert_eq!((found.lost.iter().map(|lost| lost.1).sum::<usize>(), found.forgotten), (0, 0));
}

/// The bound that the provider named, and a commit: on a busy machine in debug, a slow one.
const BOUND_MILLIS: i64 = 100 + 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settling_late_loses_what_was_spent_within_the_bound_and_nothing_else() {
    let count = (number("FAREBOX_KILLS", 100) / 5).max(20);
    let found = kills("kill -9, settle_within(100 ms)", count, true).await;
    for (n, (point, charges, micros, age)) in found.lost.iter().enumerate() {
        println!(
            "kill {n:>3} {point:<20} lost {charges:>3} charges, {micros:>7} micros, {age:>3} ms old"
        );
        assert!(*age <= BOUND_MILLIS, "spent {age} ms before the kill, and lost");
    }
    let lost = found.lost.iter().filter(|lost| lost.1 > 0).count();
    let (kills, forgotten) = (found.lost.len(), found.forgotten);
    println!(
        "{lost} of {kills} kills lost something; {forgotten} acknowledged units are forgotten"
    );
    assert!(lost > 0, "nothing was late");
}
