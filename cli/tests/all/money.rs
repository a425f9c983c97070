//! `reconcile` and `account refund`: what is asked of a server, and how its answers are told. With
//! a real server and cards, they are tested in `tests/`.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use farebox_ledger::{Command as Do, Store as _, Totals};
use farebox_protocol::{Currency, Money, TopUpId, usd};
use serde_json::{Value, json};

use crate::{Ended, FILE, Place, payer, spender};

/// A server that answers what it was told to, and remembers what it was asked.
struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Stub {
    /// Accounts are available micros by currency; only payers 1 and 2 are known.
    async fn serve(accounts: &[(&str, i64)], answer: Value) -> Stub {
        let rows: Vec<Value> = accounts
            .iter()
            .map(|(currency, available)| {
                json!({
                    "currency": currency, "available": available, "reserved": 0, "refunding": 0,
                    "spent": 0, "received": 0, "refunded": 0, "withdrawn": 0, "openTopUp": null,
                    "topUps": 2,
                })
            })
            .collect();
        let account = move |path: axum::extract::Path<String>| async move {
            let known = [payer(1), payer(2)].map(|payer| payer.to_string());
            match known.contains(&path.0) {
                false => (StatusCode::NOT_FOUND, Json(json!({"error": "no such payer"}))),
                true => {
                    let told = json!({
                        "payer": path.0, "generation": 1, "frozen": [], "credentials": [],
                        "knownCards": 1, "accounts": rows,
                    });
                    (StatusCode::OK, Json(told))
                }
            }
        };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let answer = move |Json(body): Json<Value>| async move {
            heard.lock().unwrap().push(body);
            Json(answer)
        };
        let app = Router::new()
            .route("/accounts/{payer}", get(account))
            .route("/accounts/{payer}/refund", post(answer.clone()))
            .route("/reconcile", post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Stub { url, asked }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let place = Place::new();
        let mut command = place.command(arguments);
        command.env("FAREBOX_ADMIN_URL", &self.url).env("FAREBOX_ADMIN_TOKEN", "any");
        Ended::from(command.output().unwrap())
    }

    /// What a run that could not be done says; nothing was asked that changes anything.
    fn refusal(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.status, ended.output.as_str()), (1, ""), "{arguments:?}");
        assert_eq!(*self.asked.lock().unwrap(), Vec::<Value>::new());
        ended.errors
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn totals(received: i64, refunded: i64, withdrawn: i64) -> Value {
    json!({"received": received, "refunded": refunded, "withdrawn": withdrawn})
}

fn top_up(n: u8, currency: &str, number: u64) -> String {
    format!("tu_{}_{currency}_{number}", payer(n))
}

fn booked() -> Value {
    let (ledger, stripe) = (totals(5_000_000, 0, 0), totals(5_000_000, 1_230_000, 0));
    json!({
        "topUp": top_up(1, "usd", 1), "intent": "pi_1", "kind": "totals", "ledger": ledger,
        "stripe": stripe,
    })
}

fn lost(n: u8, intent: &str) -> Value {
    json!({
        "topUp": top_up(n, "jpy", 12), "intent": intent, "kind": "not_in_ledger",
        "worth": 700_000_000,
    })
}

fn unpaid() -> Value {
    json!({
        "topUp": top_up(1, "usd", 10), "intent": "pi_10", "kind": "not_at_stripe",
        "worth": 12_500_000,
    })
}

fn found(differences: &[Value], unread: &[&str]) -> Value {
    json!({"charges": 40, "topUps": 41, "differences": differences, "unread": unread})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_is_told_with_what_to_do_next() {
    let differences = [booked(), unpaid(), lost(2, "pi_2"), lost(9, "pi_9")];
    let stub = Stub::serve(&[], found(&differences, &["pi_lost"])).await;
    let ended = stub.run(&["reconcile", "--since", "2026-11-01"]);
    assert_eq!(ended.status, 4, "{}", ended.errors);
    let begins = "Since 2026-11-01 00:00 UTC: 40 charges at Stripe, 41 top-ups in the ledger, 4 ";
    assert!(ended.output.starts_with(begins), "{}", ended.output);
    let told = [
        format!("\nPayer {}\n", payer(1)),
        "top-up  intent  ledger  Stripe       what differs   done\n".to_owned(),
        "     1  pi_1      5.00    3.77  usd  refunded       booked\n".to_owned(),
        "    10  pi_10    12.50    0.00  usd  not at Stripe  payer frozen\n".to_owned(),
        "    12  pi_2         0     700  jpy  not in the ledger  payer frozen\n".to_owned(),
        "    12  pi_9         0     700  jpy  not in the ledger  nothing: no payer of".to_owned(),
        "pi_lost could not be read\n".to_owned(),
        "--reason unbooked_INTENT\n".to_owned(),
        "--reason unpaid_INTENT\n".to_owned(),
        "run it again".to_owned(),
    ];
    for line in told {
        assert!(ended.output.contains(&line), "{line:?} is not in\n{}", ended.output);
    }
    let asked = stub.asked();
    assert_eq!(asked, [json!({"since": 1_793_491_200, "repair": true})]);

    let mut json = found(&differences, &["pi_lost"]);
    let ended = stub.run(&["reconcile", "--since", "2026-11-01", "--dry-run", "--json"]);
    json["since"] = 1_793_491_200.into();
    json["repair"] = false.into();
    assert_eq!(serde_json::from_str::<Value>(&ended.output).unwrap(), json);
    assert_eq!((ended.status, ended.output.lines().count()), (4, 1));
    assert_eq!(stub.asked(), [json!({"since": 1_793_491_200, "repair": false})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_look_at_is_status_4_and_what_is_mended_is_not() {
    let run = async |differences: &[Value], unread: &[&str], arguments: &[&str]| {
        let stub = Stub::serve(&[], found(differences, unread)).await;
        let ended = stub.run(&[&["reconcile"], arguments].concat());
        (ended.status, ended.output)
    };
    let agree = run(&[], &[], &["--dry-run"]).await;
    assert!(agree.0 == 0 && agree.1.contains("Stripe and the ledger agree."), "{agree:?}");
    assert_eq!(run(&[booked()], &[], &[]).await.0, 0);
    let dry = run(&[booked()], &[], &["--dry-run"]).await;
    assert!(dry.0 == 4 && dry.1.contains("not changed (--dry-run)"), "{dry:?}");
    assert_eq!(run(&[lost(2, "pi_2")], &[], &[]).await.0, 4);
    assert_eq!(run(&[unpaid()], &[], &[]).await.0, 4);
    assert_eq!(run(&[], &["pi_1"], &[]).await.0, 4);
    let half = run(&[booked()], &["pi_1"], &[]).await;
    assert!(half.0 == 4 && half.1.contains("could not be booked"), "{half:?}");
    assert!(!half.1.contains("Booked:"), "{half:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_days_are_compared_unless_something_else_is_said() {
    let stub = Stub::serve(&[], found(&[], &[])).await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert_eq!(stub.run(&["reconcile"]).status, 0);
    assert_eq!(stub.run(&["reconcile", "--since", "24h"]).status, 0);
    let since: Vec<u64> = stub.asked().iter().map(|body| body["since"].as_u64().unwrap()).collect();
    for (since, days) in since.iter().zip([7, 1]) {
        assert!(now.abs_diff(since + days * 86_400) < 60, "{since} is not {days} days ago");
    }
    assert_eq!(stub.run(&["reconcile", "--since", "7m"]).status, 2);
    assert!(stub.refusal(&["reconcile", "--since", "2999-01-01"]).contains("in the future"));
}

/// Runs a refund to payer 1.
fn refund(stub: &Stub, arguments: &[&str]) -> Ended {
    stub.run(&[&["account", "refund", &spender()], arguments].concat())
}

fn part(number: u64, amount: i64, state: &str) -> Value {
    json!({"topUp": top_up(1, "usd", number), "amount": amount, "state": state})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_tells_its_parts_and_what_remains() {
    let given = json!({"currency": "usd", "parts": [
        part(12, 3_000_000, "done"), part(3, 200_000, "done"),
    ]});
    let stub = Stub::serve(&[("usd", 4_987_700)], given.clone()).await;
    let ended = refund(&stub, &["--amount", "3.2", "--yes"]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""));
    assert_eq!(
        ended.output,
        "top-up  amount\n    12    3.00  usd  given back\n     3    0.20  usd  given back\n\n\
         3.20 usd is given back. The payer has 4.9877 usd left.\n"
    );
    assert_eq!(stub.asked(), [json!({"currency": "usd", "amount": 3_200_000})]);

    let ended = refund(&stub, &["--top-up", "12", "--yes", "--json"]);
    let mut json = given;
    json["payer"] = spender().into();
    json["available"] = 4_987_700.into();
    assert_eq!(serde_json::from_str::<Value>(&ended.output).unwrap(), json);
    assert_eq!(stub.asked(), [json!({"currency": "usd", "topUp": 12})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_not_whole_is_status_4() {
    let run = async |parts: &[Value], arguments: &[&str]| {
        let given = json!({"currency": "usd", "parts": parts});
        let stub = Stub::serve(&[("usd", 9_000_000)], given).await;
        let ended = refund(&stub, &[&["--yes"], arguments].concat());
        (ended.status, ended.output)
    };
    assert_eq!(run(&[part(1, 9_000_000, "done")], &[]).await.0, 0);
    // The payer spent the rest meanwhile.
    assert_eq!(run(&[part(1, 2_000_000, "done")], &["--amount", "3"]).await.0, 4);
    let (status, said) = run(&[part(1, 9_000_000, "pending")], &[]).await;
    assert!(status == 4 && said.contains("not known yet; the server goes on with it"), "{said}");
    let parts = [part(2, 5_000_000, "refused"), part(1, 4_000_000, "done")];
    let (status, said) = run(&parts, &[]).await;
    assert!(status == 4 && said.contains("refused by Stripe; it is credit again"), "{said}");
    assert!(said.contains("4.00 usd is given back.") && said.contains("dashboard"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_that_cannot_go_back_exactly_is_refused_before_anything_is_asked() {
    let stub = Stub::serve(&[("jpy", 700_000_000), ("usd", 4_987_700)], Value::Null).await;
    let says = |arguments: &[&str]| {
        stub.refusal(&[&["account", "refund", &spender(), "--yes"], arguments].concat())
    };
    let usd = |amount: &str| says(&["--currency", "usd", "--amount", amount]);
    for amount in ["3.205", "0.0000001"] {
        assert!(usd(amount).contains("too many decimals for usd"), "{}", usd(amount));
    }
    assert!(usd("3.205").contains("multiples of 0.01 usd"), "{}", usd("3.205"));
    for amount in ["", "abc", "3,20", "1e3", "3.", ".5", "9007199254740993"] {
        assert!(usd(amount).contains("is no amount"), "{amount}: {}", usd(amount));
    }
    assert!(usd("0").contains("above zero"));
    assert!(usd("4.99").contains("only 4.98 usd can be given back"));
    let jpy = says(&["--currency", "JPY", "--amount", "1.5"]);
    assert!(jpy.contains("too many decimals for jpy") && jpy.contains("of 1 jpy"), "{jpy}");
    let several = says(&[]);
    assert!(several.contains("say --currency, one of jpy, usd"), "{several}");
    assert!(says(&["--currency", "eur"]).contains("no account in eur, only in jpy, usd"));
    assert_eq!(refund(&stub, &["--yes", "--currency", "xyz"]).status, 2);
    assert_eq!(refund(&stub, &["--yes", "--top-up", "0"]).status, 2);
    let stub = Stub::serve(&[("usd", 9_999)], Value::Null).await;
    let nothing = stub.refusal(&["account", "refund", &spender(), "--yes"]);
    assert!(nothing.contains("nothing to give back: 0.009999 usd is unspent"), "{nothing}");
    let stub = Stub::serve(&[], Value::Null).await;
    let nobody = stub.refusal(&["account", "refund", &payer(9).to_string(), "--yes"]);
    assert!(nobody.contains("there is no payer 0909"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nobody_is_asked_so_yes_must_be_said() {
    let stub = Stub::serve(&[("usd", 5_000_000)], Value::Null).await;
    let refused = stub.refusal(&["account", "refund", &spender()]);
    assert!(refused.contains("say --yes"), "{refused}");
}

#[tokio::test]
async fn on_the_ledger_itself_what_is_missing_is_named() {
    let place = Place::with_ledger().await;
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = place.command(arguments);
        for name in ["STRIPE_SECRET_KEY", "STRIPE_PUBLISHABLE_KEY", "FAREBOX_SECRET"] {
            command.env_remove(name);
        }
        let ended = command.envs(variables.iter().copied()).output().unwrap();
        let ended = Ended::from(ended);
        assert_eq!((ended.status, ended.output.as_str()), (1, ""), "{arguments:?}");
        ended.errors
    };
    let keys = [
        ("STRIPE_API_BASE", "http://127.0.0.1:1"),
        ("STRIPE_PUBLISHABLE_KEY", "pk_test_1"),
        ("STRIPE_SECRET_KEY", "sk_test_1"),
    ];
    for arguments in [&["reconcile"][..], &["account", "refund", &spender(), "--yes"]] {
        let said = run(arguments, &keys[..2]);
        assert!(said.contains("STRIPE_SECRET_KEY is not set") && said.contains("--url"), "{said}");
        let said = run(arguments, &keys);
        assert!(said.contains("FAREBOX_SECRET is not set") && said.contains(".secret"), "{said}");
    }
    assert!(!place.path(&format!("{FILE}.secret")).exists(), "no secret is made up");
    let missing = run(&["reconcile", "--ledger", &place.url("missing")], &keys);
    assert!(missing.contains("cannot be opened"), "{missing}");
    assert!(!place.path("missing").exists());
    // The secret of another ledger.
    let secret = ("FAREBOX_SECRET", "a secret of at least thirty-two bytes");
    let other = run(&["reconcile"], &[&keys[..], &[secret]].concat());
    assert!(other.starts_with("farebox: the ledger "), "{other}");
    assert_eq!(place.json(&["audit"])["clean"], true);
}

#[tokio::test]
async fn what_a_payer_is_frozen_for_is_explained() {
    let place = Place::with_ledger().await;
    let explained = [
        ("dp_1", "a dispute"),
        ("du_1", "a dispute"),
        ("issfr_1", "warns of fraud"),
        ("operator", "an operator froze it"),
        ("unbooked_pi_1", "a card paid, with no place here"),
        ("unpaid_pi_2", "there is credit that no charge at Stripe paid"),
        ("vacation", "a reason of your own"),
    ];
    for (reason, _) in explained {
        place.print(&["account", "freeze", &spender(), "--reason", reason]);
    }
    let shown = place.print(&["account", "show", &spender()]);
    for (reason, meaning) in explained {
        let line = shown.lines().find(|line| line.trim_start().starts_with(&format!("{reason} ")));
        assert!(line.is_some_and(|line| line.contains(meaning)), "{reason}: {shown}");
    }
    let lift = format!("farebox account unfreeze {} --reason REASON", spender());
    assert!(shown.contains(&lift), "{shown}");
}

#[tokio::test]
async fn money_that_is_on_its_way_or_was_taken_back_is_told() {
    let place = Place::with_ledger().await;
    let show = || place.print(&["account", "show", &spender()]);
    assert!(!show().contains("on its way") && !show().contains("was taken back"), "{}", show());
    let (currency, number, call) = (Currency::USD, 1, "a call".to_owned());
    let ledger = place.open(FILE).await;
    let refund = Do::OpenRefund { currency, number, refund: 1, amount: usd!("2").micros(), call };
    ledger.apply(&payer(1), &refund).await.unwrap();
    drop(ledger);
    assert!(show().contains("2.00 usd is on its way back to a card"), "{}", show());

    let ledger = place.open(FILE).await;
    let observe = async |refunded: Money, withdrawn: Money| {
        let id = TopUpId { payer: payer(1), currency, number };
        let known = ledger.top_up(&id).await.unwrap().unwrap();
        let totals = Totals {
            received: usd!("5").micros(),
            refunded: refunded.micros(),
            withdrawn: withdrawn.micros(),
        };
        let intent = "pi_test_1".to_owned();
        let seen_version = known.version;
        let observe = Do::Observe { currency, number, intent, seen_version, totals };
        ledger.apply(&payer(1), &observe).await.unwrap();
    };
    observe(usd!("2"), usd!("3")).await;
    observe(usd!("0"), usd!("5")).await;
    drop(ledger);
    assert!(show().contains("More usd was taken back than was unspent"), "{}", show());
    let statement = place.print(&["account", "statement", &spender()]);
    assert!(statement.contains("refunded       top-up 1"), "{statement}");
    assert!(statement.contains("refund failed  top-up 1"), "{statement}");
}
