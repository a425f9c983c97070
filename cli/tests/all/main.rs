//! The `farebox` command, as whoever runs it sees it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod agent;
mod backup;
mod hostile;
mod ledger;
mod money;
mod sandbox;
mod server;

use std::process::{Command, Output, Stdio};

use farebox_ledger::book::{Line, Route};
use farebox_ledger::store::fund;
use farebox_ledger::{Command as Do, FirstRecord, Ledger, Options, Proof, Store, Then};
use farebox_protocol::{Currency, ErrorCode, Micros, Money, PayerId, usd};

/// A folder with a ledger in it.
struct Place {
    folder: tempfile::TempDir,
}

/// The file that a server makes if nothing else is said.
const FILE: &str = "farebox.redb";

impl Place {
    fn new() -> Place {
        farebox_canary::watch();
        Place { folder: tempfile::tempdir().unwrap() }
    }

    /// With three payers: one that spent, one with yen, one with nothing but a failed top-up.
    async fn with_ledger() -> Place {
        let place = Place::new();
        fill(&place.open(FILE).await).await;
        place
    }

    fn url(&self, file: &str) -> String {
        format!("embedded:{}", self.path(file).display())
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.folder.path().join(file)
    }

    async fn open(&self, file: &str) -> Ledger {
        Ledger::open(&self.url(file), &first(), Options::default()).await.unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["FAREBOX_LEDGER", "FAREBOX_ADMIN_URL", "FAREBOX_ADMIN_TOKEN"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().unwrap())
    }

    /// What a run that succeeds prints.
    fn print(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.status, 0, "{arguments:?}: {}", ended.errors);
        ended.output
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.print(arguments)).unwrap()
    }

    /// What a run that fails says: one sentence, and nothing else.
    fn refusal(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.status, ended.output.as_str()), (1, ""), "{arguments:?}");
        assert!(ended.errors.starts_with("farebox: "), "{}", ended.errors);
        assert_eq!(ended.errors.lines().count(), 1, "{}", ended.errors);
        ended.errors
    }
}

/// How a run ended.
#[derive(Debug)]
struct Ended {
    status: i32,
    output: String,
    errors: String,
}

impl From<Output> for Ended {
    fn from(ended: Output) -> Ended {
        farebox_canary::keep(&ended);
        Ended {
            status: ended.status.code().unwrap(),
            output: String::from_utf8(ended.stdout).unwrap(),
            errors: String::from_utf8(ended.stderr).unwrap(),
        }
    }
}

fn first() -> FirstRecord {
    FirstRecord::new("check", "test", Some("acct_1"))
}

fn payer(n: u8) -> PayerId {
    PayerId::from_bytes([n; 32])
}

/// The payer who spent.
fn spender() -> String {
    payer(1).to_string()
}

async fn fill(ledger: &impl Store) {
    fund(ledger, &payer(1), usd!("5")).await.unwrap();
    for (n, spent) in [(1, usd!("0.01")), (2, usd!("0.0023"))] {
        spend(ledger, payer(1), n, spent).await;
    }
    let (label, limit) = ("agent-1".parse().unwrap(), None);
    let issue = Do::IssueCredential { number: 1, label, limit };
    ledger.apply(&payer(1), &issue).await.unwrap();
    let jpy = Currency::USD.code().replace("usd", "jpy").parse().unwrap();
    fund(ledger, &payer(2), Money::new(Micros::new(700_000_000).unwrap(), jpy)).await.unwrap();
    let method = "pm_1".parse().unwrap();
    let (currency, number, call) = (Currency::USD, 1, "secret-call".to_owned());
    let open = Do::OpenTopUp { currency, number, needed: None, method, card: payer(3), call };
    ledger.apply(&payer(3), &open).await.unwrap();
    let fail = Do::FailTopUp { currency, number, code: ErrorCode::CardDeclined };
    ledger.apply(&payer(3), &fail).await.unwrap();
}

async fn spend(ledger: &impl Store, payer: PayerId, id: u128, money: Money) {
    let (id, currency, amount) = (id.into(), money.currency(), money.micros());
    let proof = Proof::Credential { generation: 1, number: None };
    let reserve = Do::Reserve { id, currency, amount, ttl: 60_000, proof, claim: None };
    ledger.apply(&payer, &reserve).await.unwrap();
    let lines = vec![Line { route: Route::new("/joke"), spent: amount }];
    let settle = Do::Settle { id, claim: None, lines, then: Then::Close };
    ledger.apply(&payer, &settle).await.unwrap();
}
