//! The process of an agent is killed at every step of a payment at a real server. The next one
//! gets what was asked for, the card is charged once, and that is what the budget counts.

use std::path::Path;
use std::thread;
use std::time::Duration;

use farebox_client::{
    Agent, Card, Currency, Micros, Money, PaymentError, PaymentErrorExt as _, PaymentKey, Policy,
    usd,
};

use crate::processes::{Process, errand, say};
use crate::support::{Bank, Program, card};

const TEST: &str = "agent_deaths::an_agent_that_is_killed_at_any_step_is_charged_once";
const STEPS: [&str; 7] =
    ["announced", "held", "payment method", "journal", "sent", "counted", "closed"];

fn agent(bank: &str, state: &str) -> Agent {
    let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.10"));
    let policy = policy.per_top_up(usd!("5")).per_day(usd!("5"));
    let card: Card = format!("{}:12:34:123", card(1)).parse().unwrap();
    Agent::new(policy).card(card).tokenizer(bank).unwrap().state(state).unwrap()
}

/// Calls until the outcome is known. A named call was served once if its answer is lost.
async fn call(agent: &Agent, url: &str, named: bool) {
    let http = agent.client(reqwest::Client::builder().no_proxy()).unwrap().build();
    for _ in 0..100 {
        let request = http.get(url);
        let request = match named {
            true => request.with_extension(PaymentKey::new("task-17").unwrap()),
            false => request,
        };
        let result = request.send().await;
        match result.as_ref().map_err(|error| error.payment()) {
            Err(Some(error)) if error.is_unknown() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(Some(PaymentError::AlreadyCharged)) if named => return,
            Ok(response) if response.status() == 200 => return,
            _ => panic!("{result:?}"),
        }
    }
    panic!("pending for ever")
}

/// Pays, and waits at a step to be killed.
async fn victim(errand: &str) {
    let [bank, state, url, named, at] = errand.split('\n').collect::<Vec<_>>()[..] else {
        panic!("{errand}")
    };
    let at = at.to_owned();
    let agent = agent(bank, state).at_each_step(move |step| {
        say(step);
        if step == at {
            say("here");
            loop {
                thread::park();
            }
        }
    });
    call(&agent, url, named == "named").await;
}

/// A server with a ledger of its own, beside the state of its agent.
async fn server(bank: &Bank, state: &Path) -> Program {
    let ledger = format!("embedded:{}", state.with_extension("redb").display());
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_LEDGER", ledger));
    Program::start("paid-api", &environment).await
}

async fn counted(agent: &Agent) -> Money {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    agent.usage().await.unwrap().held(Currency::USD, i64::try_from(now).unwrap())
}

fn taken(bank: &Bank) -> Money {
    Money::new(Micros::new(bank.charged() * 100).unwrap(), Currency::USD)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_at_any_step_is_charged_once() {
    if let Some(errand) = errand() {
        return victim(&errand).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut deaths = 0;
    for name in ["named", "unnamed"] {
        for step in STEPS {
            let bank = Bank::open().await;
            let state = folder.path().join(format!("{name} {step}"));
            let api = server(&bank, &state).await;
            let url = format!("{}/api/joke", api.url);
            let state = state.to_str().unwrap();
            let errand = [bank.url(), state, &url, name, step].join("\n");
            let mut process = Process::send(TEST, &errand);
            let said = std::iter::from_fn(|| process.hear()).take_while(|said| said != "here");
            assert_eq!(said.last().as_deref(), Some(step));
            process.kill();

            let agent = agent(bank.url(), state);
            let before = (counted(&agent).await, taken(&bank));
            assert!(before.0.micros() >= before.1.micros(), "{name}, {step}: {before:?}");
            call(&agent, &url, name == "named").await;
            assert_eq!(bank.charges().len(), 1, "{name}, {step}");
            assert_eq!(counted(&agent).await, taken(&bank), "{name}, {step}");
            deaths += 1;
        }
    }
    assert_eq!(deaths, 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_by_card_has_the_steps_at_which_agents_are_killed() {
    let (bank, folder) = (Bank::open().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("agent");
    let api = server(&bank, &state).await;
    let url = format!("{}/api/joke", api.url);
    let errand = [bank.url(), state.to_str().unwrap(), &url, "unnamed", "no step"].join("\n");
    let mut said = Process::send(TEST, &errand).end();
    said.dedup();
    assert_eq!(said, STEPS);
    assert_eq!(bank.charges().len(), 1);
}
