//! Many tasks of several processes pay at several providers from one budget, and no order of
//! theirs takes more from the card than it allows.
//!
//! `FAREBOX_ROUNDS` is how often they do: twice, with a state per process and with one for all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farebox_client::{Budget, PaymentError, PaymentErrorExt as _, Reason, Rule};
use serde::{Deserialize, Serialize};

use crate::processes::{Process, errand, say};
use crate::support::{client, tokenizer};
use crate::till::{Caller, Kind, Till, agent, counted, times};

const TEST: &str = "crowd::agents_of_many_tasks_and_processes_never_overshoot_their_budget";
const PROCESSES: usize = 4;
const TASKS: usize = 64;
const PROVIDERS: usize = 4;
/// What the budget allows.
const TOP_UPS: usize = 30;

/// What one process of the crowd is sent for.
#[derive(Serialize, Deserialize)]
struct Errand {
    state: PathBuf,
    budget: PathBuf,
    stripe: String,
    urls: Vec<String>,
    /// Exists when all are there.
    start: PathBuf,
}

/// Every task calls until the budget is spent.
fn member(errand: &str) {
    let errand: Errand = serde_json::from_str(errand).unwrap();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let agent = agent(times(TOP_UPS), &errand.stripe).state(&errand.state).unwrap();
        let agent = agent.budget(Budget::file(&errand.budget).unwrap());
        let http = client(&agent);
        say("ready");
        while !Path::new(&errand.start).exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let urls = errand.urls.iter().cycle().take(TASKS).cloned();
        let tasks: Vec<_> = urls
            .map(|url| Caller { http: http.clone(), url, name: None })
            .map(|caller| tokio::spawn(call_until_it_is_spent(caller)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn call_until_it_is_spent(caller: Caller) {
    loop {
        let result = caller.call().await;
        let Err(error) = result else { continue };
        match error.payment() {
            Some(PaymentError::Refused(Reason::Policy(refusal))) => {
                assert_eq!(refusal.rule(), Rule::PerDay);
                return;
            }
            _ => panic!("{error:?}"),
        }
    }
}

/// Lets a crowd at its budget; answers how many top-ups the providers took.
async fn round(one_state: bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let stripe = tokenizer().await;
    let mut tills = Vec::new();
    for _ in 0..PROVIDERS {
        tills.push(Till::open(Kind::Knowing, 1, Box::new(|_| ())).await);
    }
    let urls: Vec<_> = tills.iter().map(|(_, server)| server.url("/joke")).collect();
    let (budget, start) = (at("budget"), at("start"));
    let mut processes = Vec::new();
    for n in 0..PROCESSES {
        let state = if one_state { at("state") } else { at(&format!("state {n}")) };
        let (budget, start) = (budget.clone(), start.clone());
        let errand = Errand { state, budget, stripe: stripe.url(""), urls: urls.clone(), start };
        processes.push(Process::send(TEST, &serde_json::to_string(&errand).unwrap()));
    }
    for process in &mut processes {
        assert_eq!(process.hear().as_deref(), Some("ready"));
    }
    fs::write(&start, "").unwrap();
    for process in processes {
        tokio::task::spawn_blocking(|| process.end()).await.unwrap();
    }
    let charges = tills.iter().map(|(till, _)| till.charges()).sum::<usize>();
    let usage = Budget::file(&budget).unwrap().usage().await.unwrap();
    assert_eq!(counted(&usage), times(charges));
    charges
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_many_tasks_and_processes_never_overshoot_their_budget() {
    if let Some(errand) = errand() {
        return std::thread::spawn(move || member(&errand)).join().unwrap();
    }
    let rounds = std::env::var("FAREBOX_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let started = Instant::now();
    for n in 0..rounds {
        // They stop when nothing is left, and not before.
        assert_eq!(round(n % 2 == 0).await, TOP_UPS);
    }
    println!(
        "{rounds} rounds of {PROCESSES} processes with {TASKS} tasks: overshoot 0 of {}, {:?}",
        times(TOP_UPS),
        started.elapsed()
    );
}
