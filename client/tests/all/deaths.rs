//! The process of an agent is killed between any two steps of a payment by card, and at random.
//! No call is charged twice, every charge is counted at all times, and once the outcome is known
//! no more than the charges.
//!
//! `FAREBOX_KILLS` is how often it is killed at random: 60 times.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use farebox_client::{Agent, Budget, Money, PaymentError, PaymentErrorExt as _, usd};
use farebox_protocol::ErrorCode;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::processes::{Process, errand, say};
use crate::support::{Server, client, tokenizer};
use crate::till::{Caller, KINDS, Kind, Till, agent, counted, times};

const AT_A_STEP: &str = "deaths::an_agent_that_is_killed_at_any_step_pays_once_and_counts_all";
/// Calls until every payment is resolved that can be.
const CALLS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// The points that a kind of provider leads an agent through, with how often it was there before
/// it dies. `arrived` and `charged` are points of the provider.
fn points(kind: Kind) -> Vec<(&'static str, usize)> {
    let sent = ["announced", "held", "payment method", "journal", "arrived"];
    let (charged, counted) = (["charged", "sent"], ["counted", "closed"]);
    let returned = ["sent", "given back", "released", "closed"];
    let once = |names: &[&'static str]| names.iter().map(|name| (*name, 1)).collect::<Vec<_>>();
    match kind {
        Kind::Knowing | Kind::V1 => once(&[&sent[..], &charged, &counted].concat()),
        Kind::Declining | Kind::Credited => once(&[&sent[..], &returned].concat()),
        Kind::Pending | Kind::Losing => {
            let resumed = vec![("arrived", 2), ("sent", 2)];
            [once(&[&sent[..], &charged, &counted].concat()), resumed].concat()
        }
    }
}

/// Points at which the journal says that a hold is on its way.
const ON_ITS_WAY: [&str; 5] = ["announced", "held", "payment method", "given back", "released"];

/// Where an agent keeps what it knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    state: PathBuf,
    /// A Redis and a name in it; otherwise the budget is beside the state.
    redis: Option<(String, String)>,
}

impl Place {
    async fn agent(&self, limit: Money, stripe: &str) -> Agent {
        let agent = agent(limit, stripe).state(&self.state).unwrap();
        match self.budget().await {
            Some(budget) => agent.budget(budget),
            None => agent,
        }
    }

    #[cfg(feature = "redis")]
    async fn budget(&self) -> Option<Budget> {
        let (url, name) = self.redis.as_ref()?;
        Some(Budget::redis(url, name).await.unwrap())
    }

    #[cfg(not(feature = "redis"))]
    async fn budget(&self) -> Option<Budget> {
        None
    }
}

/// What a process that dies at a step is sent for.
#[derive(Serialize, Deserialize)]
struct Errand {
    place: Place,
    url: String,
    stripe: String,
    limit: Money,
    named: bool,
    /// Where it dies, and how often it is there before.
    point: (String, usize),
}

fn victim(errand: &str) {
    let errand: Errand = serde_json::from_str(errand).unwrap();
    runtime().block_on(async {
        let (point, nth) = errand.point;
        let times = AtomicUsize::new(0);
        let agent = errand.place.agent(errand.limit, &errand.stripe).await;
        let agent = agent.at_each_step(move |step| {
            say(step);
            if step == point && times.fetch_add(1, Ordering::SeqCst) + 1 == nth {
                say("here");
                loop {
                    thread::park();
                }
            }
        });
        for _ in 0..CALLS {
            let _ = Caller::new(&agent, &errand.url, errand.named).call().await;
        }
        say("done");
    });
}

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
}

/// One death, and what comes after it.
#[derive(Clone, Debug)]
struct Cell {
    kind: Kind,
    point: (&'static str, usize),
    /// The next process finds a hold on its way, and dies when it has released it.
    again: bool,
    named: bool,
    redis: bool,
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for redis in if cfg!(feature = "redis") { vec![false, true] } else { vec![false] } {
        for named in [true, false] {
            for kind in KINDS {
                for point in points(kind) {
                    let again = false;
                    let cell = Cell { kind, point, again, named, redis };
                    cells.push(cell.clone());
                    if ON_ITS_WAY.contains(&point.0) {
                        cells.push(Cell { again: true, ..cell });
                    }
                }
            }
        }
    }
    cells
}

/// A provider that waits where its agent is to die.
struct Scene {
    till: Arc<Till>,
    server: Server,
    stripe: Server,
    here: Receiver<()>,
    go: Sender<()>,
}

impl Scene {
    async fn set(kind: Kind, point: (&'static str, usize)) -> Scene {
        let ((set_here, here), (go, gone)) = (channel(), channel());
        let (times, gone) = (AtomicUsize::new(0), Mutex::new(gone));
        let meet = move |at: &'static str| {
            if at == point.0 && times.fetch_add(1, Ordering::SeqCst) + 1 == point.1 {
                set_here.send(()).unwrap();
                // When the test has failed, nobody says so any more.
                let _ = gone.lock().unwrap().recv();
            }
        };
        let (till, server) = Till::open(kind, 100, Box::new(meet)).await;
        Scene { till, server, stripe: tokenizer().await, here, go }
    }
}

impl Cell {
    fn limit(&self) -> Money {
        // A server of version 1 may be paid again by another call. Nobody else needs more.
        if self.kind == Kind::V1 { usd!("10") } else { usd!("5") }
    }

    fn play(&self, place: &Place) -> Vec<String> {
        runtime().block_on(async {
            let scene = Scene::set(self.kind, self.point).await;
            let mut steps = self.die(&scene, place, self.point);
            if self.again {
                steps.extend(self.die(&scene, place, ("recovered", 1)));
            }
            let agent = place.agent(self.limit(), &scene.stripe.url("")).await;
            let ahead = async || {
                let counted = counted(&agent.usage().await.unwrap());
                let taken = scene.till.taken();
                assert!(counted.micros() >= taken.micros(), "{self:?}: {counted} of {taken}");
                counted
            };
            ahead().await;
            let caller = Caller::new(&agent, &scene.server.url("/joke"), self.named);
            let mut last = None;
            for _ in 0..CALLS {
                let called = tokio::time::timeout(PATIENCE, caller.call()).await;
                let result = called.unwrap_or_else(|_| panic!("{self:?}: nothing comes of it"));
                ahead().await;
                let resolved = agent.known().await.unwrap().iter().all(|k| k.unresolved.is_none());
                last = Some(result);
                if resolved {
                    break;
                }
            }
            self.check_answer(&last.unwrap());
            let excess = if self.is_lost_for_good() { 1 } else { 0 };
            assert_eq!(ahead().await, times(scene.till.charges() + excess), "{self:?}");
            self.check_sheet(&agent, place).await;
            steps
        })
    }

    /// Sends a process that dies, and answers what it did before.
    fn die(&self, scene: &Scene, place: &Place, point: (&'static str, usize)) -> Vec<String> {
        let errand = Errand {
            place: place.clone(),
            url: scene.server.url("/joke"),
            stripe: scene.stripe.url(""),
            limit: self.limit(),
            named: self.named,
            point: (point.0.to_owned(), point.1),
        };
        let mut process = Process::send(AT_A_STEP, &serde_json::to_string(&errand).unwrap());
        let mut steps = Vec::new();
        if ["arrived", "charged"].contains(&point.0) {
            let here = scene.here.recv_timeout(PATIENCE);
            here.unwrap_or_else(|_| panic!("{self:?}: the provider is never there"));
        } else {
            loop {
                match process.hear().as_deref() {
                    Some("here") => break,
                    Some("done") | None => panic!("{self:?}: never there, but at {steps:?}"),
                    Some(step) => steps.push(step.to_owned()),
                }
            }
        }
        process.kill();
        let _ = scene.go.send(());
        steps
    }

    /// What is open in the budget is open in the journal. A payment there may be counted already.
    async fn check_sheet(&self, agent: &Agent, place: &Place) {
        if self.redis {
            return;
        }
        let sheet = std::fs::read(place.state.with_extension("budget")).unwrap();
        let sheet: serde_json::Value = serde_json::from_slice(&sheet).unwrap();
        let known = agent.known().await.unwrap();
        let unresolved = known.iter().filter(|known| known.unresolved.is_some()).count();
        let open = sheet["holds"].as_object().unwrap().len();
        assert!(open <= unresolved, "{self:?}: {open} of {unresolved}");
        let state = std::fs::read_to_string(&place.state).unwrap();
        assert!(!state.contains("\"held\""), "{self:?}: {state}");
    }

    /// Whether nobody can know that the first payment took nothing: a provider of version 1 does
    /// not say what it has seen, and one with credit not whose it is.
    fn is_lost_for_good(&self) -> bool {
        match self.kind {
            Kind::V1 => self.point.0 == "journal",
            Kind::Credited => ["journal", "arrived", "sent"].contains(&self.point.0),
            _ => false,
        }
    }

    fn check_answer(&self, result: &Result<reqwest::Response, reqwest_middleware::Error>) {
        let sent = ["journal", "arrived", "charged", "sent", "counted"];
        let error = result.as_ref().err().and_then(|error| error.payment());
        let right = match self.kind {
            Kind::Declining => {
                matches!(error, Some(PaymentError::Declined(ErrorCode::CardDeclined)))
            }
            // It may charge a repeat, so a named call has none.
            Kind::V1 if self.named && sent.contains(&self.point.0) => {
                matches!(error, Some(PaymentError::Unknown))
            }
            _ => result.as_ref().is_ok_and(|response| response.status() == 200),
        };
        assert!(right, "{self:?}: {result:?}");
    }
}

#[test]
fn an_agent_that_is_killed_at_any_step_pays_once_and_counts_all() {
    if let Some(errand) = errand() {
        return victim(&errand);
    }
    #[cfg(feature = "redis")]
    let redis = crate::redis_server::Server::start();
    let folder = tempfile::tempdir().unwrap();
    let place = |n: usize, in_redis: bool| {
        #[cfg(feature = "redis")]
        let redis = in_redis.then(|| (redis.url(), n.to_string()));
        #[cfg(not(feature = "redis"))]
        let redis = in_redis.then(|| unreachable!());
        Place { state: folder.path().join(n.to_string()), redis }
    };
    let (started, cells, next) = (Instant::now(), cells(), AtomicUsize::new(0));
    let seen = Mutex::new(BTreeSet::new());
    let work = || {
        while let Some((n, cell)) = {
            let n = next.fetch_add(1, Ordering::SeqCst);
            cells.get(n).map(|cell| (n, cell))
        } {
            let steps = cell.play(&place(n, cell.redis));
            seen.lock().unwrap().extend(steps);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    println!("{} deaths, {:?}", cells.len(), started.elapsed());
    assert_eq!(cells.len(), (58 + 6 * 3 + 2 * 2) * 2 * if cfg!(feature = "redis") { 2 } else { 1 });
    let table = KINDS.into_iter().flat_map(points).map(|(name, _)| name);
    let table: BTreeSet<_> = table.chain(["recovered"]).collect();
    let untold = seen.into_inner().unwrap();
    let untold: Vec<_> = untold.into_iter().filter(|step| !table.contains(step.as_str())).collect();
    assert!(untold.is_empty(), "steps at which nobody dies: {untold:?}");
}

const AT_RANDOM: &str = "deaths::an_agent_that_is_killed_at_random_counts_all_that_was_taken";
/// Tasks per origin of a process that is killed at random.
const TASKS: usize = 3;

/// Names for calls, of which some are used again by later processes.
const NAMES: u32 = 400;

/// What a process that dies at random is sent for.
#[derive(Serialize, Deserialize)]
struct Spree {
    place: Place,
    urls: Vec<String>,
    stripe: String,
}

/// Pays until it is killed.
fn spender(errand: &str) {
    let spree: Spree = serde_json::from_str(errand).unwrap();
    runtime().block_on(async {
        let agent = spree.place.agent(usd!("1000000"), &spree.stripe).await;
        let http = client(&agent);
        for url in spree.urls.iter().cycle().take(TASKS * spree.urls.len()) {
            let mut caller = Caller { http: http.clone(), url: url.clone(), name: None };
            tokio::spawn(async move {
                loop {
                    let random = getrandom::u32().unwrap();
                    caller.name =
                        random.is_multiple_of(2).then(|| format!("task-{}", random % NAMES));
                    let _ = caller.call().await;
                    say("called");
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

fn kill_at_random(place: &Place, kills: usize) {
    runtime().block_on(async {
        let mut tills = Vec::new();
        for kind in [Kind::Knowing, Kind::Pending, Kind::Losing] {
            tills.push(Till::open(kind, 1, Box::new(|_| ())).await);
        }
        let urls = tills.iter().map(|(_, server)| server.url("/joke")).collect();
        let stripe = tokenizer().await;
        let agent = place.agent(usd!("1000000"), &stripe.url("")).await;
        let spree = Spree { place: place.clone(), urls, stripe: stripe.url("") };
        let charges = || tills.iter().map(|(till, _)| till.charges()).sum::<usize>();
        let ahead = async |now: usize| {
            let (taken, counted) = (times(charges()), counted(&agent.usage().await.unwrap()));
            assert!(counted.micros() >= taken.micros(), "{counted} of {taken}, kill {now}");
            counted
        };
        for now in 0..kills {
            let errand = serde_json::to_string(&spree).unwrap();
            let mut process = Process::send(AT_RANDOM, &errand);
            for _ in 0..1 + getrandom::u32().unwrap() % 40 {
                assert_eq!(process.hear().as_deref(), Some("called"));
            }
            thread::sleep(Duration::from_micros(u64::from(getrandom::u32().unwrap() % 20_000)));
            process.kill();
            ahead(now).await;
        }
        for url in &spree.urls {
            let paid = Caller::new(&agent, url, false).call().await;
            assert_eq!(paid.unwrap().status(), 200);
        }
        assert_eq!(ahead(kills).await, times(charges()), "nothing else is counted");
        println!("{kills} random kills, {} charges", charges());
        assert!(charges() > kills);
    });
}

#[test]
fn an_agent_that_is_killed_at_random_counts_all_that_was_taken() {
    if let Some(errand) = errand() {
        return spender(&errand);
    }
    let kills = std::env::var("FAREBOX_KILLS").map_or(60, |kills| kills.parse().unwrap());
    let (folder, started) = (tempfile::tempdir().unwrap(), Instant::now());
    kill_at_random(&Place { state: folder.path().join("agent"), redis: None }, kills);
    println!("{:?}", started.elapsed());
}
