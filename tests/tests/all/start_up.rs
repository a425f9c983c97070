//! Starts that must fail, starts that must not, and an orderly end.

use std::time::Duration;

use farebox_protocol::{Payment, Units};
use tempfile::TempDir;

use crate::support::{
    Answer, Bank, Program, balance, by_card, by_credential, card, eventually, get, refusal,
};

const SECRET: &str = "a secret of thirty-two bytes ...";

fn ledger(folder: &TempDir) -> (&'static str, String) {
    ("FAREBOX_LEDGER", format!("embedded:{}", folder.path().join("books.redb").display()))
}

async fn joke(program: &Program, payment: &Payment) -> Answer {
    get(&reqwest::Client::new(), &format!("{}/api/joke", program.url), payment).await.unwrap()
}

async fn units(program: &Program, credential: &str) -> i64 {
    let url = format!("{}/account/balance", program.url);
    balance(&get(&reqwest::Client::new(), &url, &by_credential(credential)).await.unwrap())
}

async fn stop(program: Program) {
    program.terminate().await;
    let status = program.end().await;
    assert!(status.success(), "{status}");
}

/// What stops a start: what the operator is told, and the variables that are wrong.
const MISTAKES: [(&str, &[(&str, &str)]); 9] = [
    ("another secret", &[("FAREBOX_SECRET", "the secret of another ledger ....")]),
    ("at least 32 bytes", &[("FAREBOX_SECRET", "too short")]),
    (
        "must be set",
        &[
            ("STRIPE_SECRET_KEY", "sk_live_1"),
            ("STRIPE_PUBLISHABLE_KEY", "pk_live_1"),
            ("STRIPE_API_BASE", ""),
        ],
    ),
    (
        "https://api.stripe.com",
        &[("STRIPE_SECRET_KEY", "sk_live_1"), ("STRIPE_PUBLISHABLE_KEY", "pk_live_1")],
    ),
    ("both be test keys or both be live keys", &[("STRIPE_PUBLISHABLE_KEY", "pk_live_1")]),
    ("STRIPE_SECRET_KEY is not set", &[("STRIPE_SECRET_KEY", "")]),
    ("is not a ledger", &[("FAREBOX_SECRET", SECRET), ("FAREBOX_LEDGER", "postgres://x")]),
    ("every process that shares this ledger", &[("FAREBOX_LEDGER", "redis://127.0.0.1:1")]),
    ("base URL must be https", &[("STRIPE_API_BASE", "http://example.com")]),
];

/// A ledger that was made with `SECRET`, and what each of the mistakes makes of a start.
async fn mistakes() -> Vec<(&'static str, String)> {
    let (bank, folder) = (Bank::open().await, tempfile::tempdir().unwrap());
    let with = |change: &[(&'static str, &str)]| {
        let mut environment = bank.environment().to_vec();
        environment.push(ledger(&folder));
        environment.extend(change.iter().map(|(name, value)| (*name, (*value).to_owned())));
        environment
    };
    let program = Program::start("paid-api", &with(&[("FAREBOX_SECRET", SECRET)])).await;
    assert_eq!(units(&program, "nobody").await, 0);
    stop(program).await;
    let mut told = Vec::new();
    for (words, change) in MISTAKES {
        told.push((words, refusal(&with(change)).await));
    }
    told
}

#[tokio::test]
async fn a_start_that_cannot_work_fails_and_prints_no_secret() {
    for (mistake, stderr) in mistakes().await {
        assert!(!stderr.is_empty(), "{mistake}: nothing is said");
        for secret in ["sk_live_", "sk_test_", SECRET, "the secret of another"] {
            assert!(!stderr.contains(secret), "{mistake}: `{secret}` in `{stderr}`");
        }
    }
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why_in_one_sentence() {
    let told = mistakes().await;
    let is_told = |(words, stderr): &&(&str, String)| {
        stderr.trim().lines().last().is_some_and(|line| line.contains(words))
    };
    let untold: Vec<_> = told.iter().filter(|one| !is_told(one)).collect();
    assert!(untold.is_empty(), "what should be said, and what is: {untold:#?}");
}

/// Where its own sandbox is, and the key for cards.
fn own_sandbox(program: &Program) -> (String, String) {
    let value = |name: &str| {
        let line = program.said.iter().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {:?}", program.said)).to_owned()
    };
    (value("STRIPE_API_BASE="), value("STRIPE_PUBLISHABLE_KEY="))
}

#[tokio::test]
async fn without_keys_it_brings_a_sandbox_and_a_second_start_keeps_the_credit() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [ledger(&folder)];
    let program = Program::start("paid-api", &environment).await;
    let (bank, key) = own_sandbox(&program);
    let first = joke(&program, &by_card(&Bank::method_at(&bank, &key, &card(1)).await)).await;
    assert_eq!((first.status, first.remaining()), (200, 49_900), "{first:?}");
    let credential = first.credential();
    stop(program).await;

    let program = Program::start("paid-api", &environment).await;
    let (bank, key) = own_sandbox(&program);
    let from_credit = joke(&program, &by_credential(&credential)).await;
    assert_eq!((from_credit.status, from_credit.remaining()), (200, 49_800), "{from_credit:?}");
    let new_card = joke(&program, &by_card(&Bank::method_at(&bank, &key, &card(2)).await)).await;
    assert_eq!((new_card.status, new_card.remaining()), (200, 49_900), "{new_card:?}");

    // The new sandbox does not know the first payer's customer: it is made anew.
    let (client_id, min_credit) = (credential.parse().ok(), Units::new(60_000));
    let method = Bank::method_at(&bank, &key, &card(1)).await;
    let again = joke(&program, &Payment { client_id, min_credit, ..by_card(&method) }).await;
    assert_eq!((again.status, again.remaining()), (200, 99_700), "{again:?}");
    stop(program).await;
}

#[tokio::test]
async fn sigterm_lets_a_slow_top_up_finish_and_its_credit_is_kept() {
    let bank = Bank::slow(Duration::from_secs(2)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut environment = bank.environment().to_vec();
    environment.push(ledger(&folder));
    let program = Program::start("paid-api", &environment).await;
    let payment = by_card(&bank.method(&card(1)).await);
    let (served, ()) = tokio::join!(joke(&program, &payment), async {
        let charged = async || bank.charges().len();
        eventually(Duration::from_secs(20), charged, |charges| *charges == 1).await;
        program.terminate().await;
    });
    assert_eq!((served.status, served.remaining()), (200, 49_900), "{served:?}");
    let status = program.end().await;
    assert_eq!(status.code(), Some(0), "{status}");

    let program = Program::start("paid-api", &environment).await;
    assert_eq!(units(&program, &served.credential()).await, 49_900);
    assert_eq!(bank.charges().len(), 1);
    stop(program).await;
}

/// A client that hung up does not cut its top-up, and neither does the end of the server.
#[tokio::test]
async fn sigterm_waits_for_a_top_up_whose_client_is_gone() {
    let bank = Bank::slow(Duration::from_secs(1)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut environment = bank.environment().to_vec();
    environment.push(ledger(&folder));
    let program = Program::start("paid-api", &environment).await;
    let payment = by_card(&bank.method(&card(1)).await);
    let charged = async || bank.charges().len();
    tokio::select! {
        answer = joke(&program, &payment) => panic!("answered too early: {answer:?}"),
        _ = eventually(Duration::from_secs(20), charged, |charges| *charges == 1) => {}
    }
    stop(program).await;
    let calls = bank.charge_calls();

    let program = Program::start("paid-api", &environment).await;
    let served = joke(&program, &payment).await;
    assert_eq!((served.status, served.remaining()), (200, 49_900), "{served:?}");
    assert_eq!((bank.charges().len(), bank.charge_calls()), (1, calls), "it was credited before");
    stop(program).await;
}
