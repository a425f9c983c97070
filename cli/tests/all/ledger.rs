//! On a ledger's own file.

use redb::ReadableTable as _;

use crate::{FILE, Place, payer, spender};

#[tokio::test]
async fn an_account_is_shown_with_its_balances_to_the_micro() {
    let place = Place::with_ledger().await;
    let text = place.print(&["account", "show", &spender()]);
    for expected in ["available       4.9877\n", "spent           0.0123\n", "agent-1", "never"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let json = place.json(&["account", "show", &spender(), "--json"]);
    assert_eq!(json["accounts"][0]["available"], 4_987_700);
    assert_eq!(json["accounts"][0]["topUps"], 1);
    assert_eq!(json["credentials"][0]["label"], "agent-1");
    let yen = place.print(&["account", "show", &payer(2).to_string()]);
    assert!(yen.contains("available       700\n"), "{yen}");
}

#[tokio::test]
async fn a_statement_is_newest_first_a_page_at_a_time_or_whole() {
    let place = Place::with_ledger().await;
    let statement = ["account", "statement", &spender()];
    let text = place.print(&statement);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].contains("received") && lines[1].ends_with("+5.00    usd"), "{text}");
    assert!(lines[2].contains("/joke") && lines[2].ends_with("-0.0123  usd"), "{text}");

    let page = place.json(&[&statement[..], &["--limit", "1", "--json"]].concat());
    assert_eq!(page["lines"].as_array().unwrap().len(), 1);
    let next = page["next"].as_str().unwrap();
    let rest = place.json(&[&statement[..], &["--cursor", next, "--json"]].concat());
    assert_eq!(rest["lines"][0]["kind"], "spent");
    let all = place.json(&[&statement[..], &["--all", "--json"]].concat());
    assert_eq!(all["lines"].as_array().unwrap().len(), 2);
    assert!(all["next"].is_null());
    let failed = place.print(&["account", "statement", &payer(3).to_string()]);
    assert!(failed.contains("failed") && failed.contains("top-up 1, card_declined"), "{failed}");
}

#[tokio::test]
async fn spending_is_drawn_as_a_bar_for_each_day() {
    let place = Place::with_ledger().await;
    let chart = place.print(&["account", "statement", &spender(), "--chart"]);
    assert!(chart.starts_with("Spent: 0.0123 usd, by day (UTC)\n"), "{chart}");
    assert!(chart.contains(&"█".repeat(40)), "{chart}");
    let none = place.print(&["account", "statement", &payer(2).to_string(), "--chart"]);
    assert_eq!(none, "Nothing was spent in the last 30 days.\n");
}

#[tokio::test]
async fn payers_are_listed_by_balance() {
    let place = Place::with_ledger().await;
    let list = place.json(&["account", "list", "--json"]);
    assert_eq!(list["usd"][0]["payer"], spender());
    assert_eq!(list["usd"][1]["available"], 0);
    assert_eq!(list["jpy"][0]["available"], 700_000_000);
    assert!(place.print(&["account", "list", "--limit", "1"]).contains("4.9877"));
}

#[tokio::test]
async fn a_payer_is_frozen_for_as_long_as_a_reason_remains() {
    let place = Place::with_ledger().await;
    let act =
        |what: &str, reason: &str| place.print(&["account", what, &spender(), "--reason", reason]);
    assert!(act("freeze", "operator").contains("is frozen for operator. It can neither spend"));
    assert!(act("freeze", "operator").contains("was frozen for operator already"));
    assert!(act("freeze", "dp_1").contains("also because of operator"));
    assert!(act("unfreeze", "operator").contains("also because of dp_1"));
    let shown = place.print(&["account", "show", &spender()]);
    assert!(shown.contains("Frozen: dp_1\n"), "{shown}");
    assert!(act("unfreeze", "dp_1").contains("It may spend and pay."));
    assert!(act("unfreeze", "dp_1").contains("nothing changed"));
}

#[tokio::test]
async fn credentials_are_revoked_one_or_all() {
    let place = Place::with_ledger().await;
    let revoke = ["account", "revoke", &spender()];
    let unknown = place.refusal(&[&revoke[..], &["--credential", "7"]].concat());
    assert!(unknown.contains("no credential 7"), "{unknown}");
    assert!(place.print(&[&revoke[..], &["--credential", "1"]].concat()).contains("1 is revoked"));
    let sheet = place.json(&["account", "show", &spender(), "--json"]);
    assert_eq!(
        (&sheet["generation"], sheet["credentials"].as_array().unwrap().len()),
        (&1.into(), 0)
    );
    assert!(place.print(&revoke).contains("generation 2"));
}

#[tokio::test]
async fn a_payer_who_does_not_exist_is_not_made() {
    let place = Place::with_ledger().await;
    let nobody = payer(9).to_string();
    for command in [&["show"][..], &["statement"], &["revoke"], &["freeze", "--reason", "x"]] {
        let refused = place.refusal(&[&["account"], command, &[&nobody]].concat());
        assert!(refused.contains("there is no payer 0909"), "{refused}");
    }
    assert_eq!(place.json(&["audit"])["books"], 3);
    // A command line that is wrong is another status.
    assert_eq!(place.run(&["account", "show", "0909"]).status, 2);
}

#[tokio::test]
async fn an_audit_of_a_sound_ledger_is_one_line_and_status_0() {
    let place = Place::with_ledger().await;
    let ended = place.run(&["audit"]);
    assert_eq!((ended.status, ended.errors.as_str()), (0, ""));
    assert_eq!(ended.output.lines().count(), 1);
    let audit: serde_json::Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!(audit["clean"], true);
    assert_eq!(audit["totals"]["usd"]["income"], 12_300);
    assert_eq!(audit["totals"]["usd"]["unspent"], 4_987_700);
    assert_eq!(audit["totals"]["usd"]["received"], 5_000_000);
}

/// Gives payer 1 a dollar behind the ledger's back.
fn doctor(place: &Place) {
    let heads: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("heads");
    let db = redb::Database::open(place.path(FILE)).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut heads = transaction.open_table(heads).unwrap();
        let key = payer(1);
        let head = heads.get(key.as_bytes().as_slice()).unwrap().unwrap().value().to_vec();
        let doctored = String::from_utf8(head).unwrap().replace("4987700", "5987700");
        heads.insert(key.as_bytes().as_slice(), doctored.as_bytes()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn an_audit_of_a_doctored_ledger_names_the_payer_and_is_status_3() {
    let place = Place::with_ledger().await;
    assert_eq!(place.json(&["audit"])["clean"], true);
    doctor(&place);
    let ended = place.run(&["audit"]);
    assert_eq!(ended.status, 3, "{}", ended.errors);
    let audit: serde_json::Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!(audit["clean"], false);
    assert_eq!(audit["broken"][0]["payer"], spender());
    assert_eq!(audit["broken"].as_array().unwrap().len(), 1);
    // Nor does its backup become a ledger.
    place.print(&["backup", "--out", "doctored.backup"]);
    let refused = place.refusal(&["restore", "doctored.backup", "--ledger", &place.url("new")]);
    assert!(refused.contains("contradicts itself") && refused.contains(&spender()), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_a_server_has_open_leads_to_the_server() {
    let place = Place::with_ledger().await;
    let _server = place.open(FILE).await;
    let refused = place.refusal(&["audit"]);
    assert!(refused.contains("--url"), "{refused}");
}

#[test]
fn an_audit_that_cannot_be_made_is_status_1() {
    let place = Place::new();
    assert!(place.refusal(&["audit"]).contains("say where the ledger is"));
    let missing = place.refusal(&["audit", "--ledger", &place.url("missing")]);
    assert!(missing.contains("cannot be opened"), "{missing}");
    assert!(!place.path("missing").exists());
    assert!(place.refusal(&["audit", "--ledger", "memory:"]).contains("ends with its process"));
    std::fs::write(place.path(FILE), "not a ledger").unwrap();
    assert!(place.refusal(&["audit"]).contains("cannot be opened"));
    // Both at once is a wrong command line.
    assert_eq!(place.run(&["audit", "--ledger", "x", "--url", "http://127.0.0.1:1"]).status, 2);
}

#[tokio::test]
async fn the_command_line_goes_before_the_environment() {
    let place = Place::with_ledger().await;
    let ledger = place.url(FILE);
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = place.command(arguments);
        crate::Ended::from(command.envs(variables.iter().copied()).output().unwrap())
    };
    let other = [("FAREBOX_LEDGER", "embedded:other"), ("FAREBOX_ADMIN_URL", "http://127.0.0.1:1")];
    assert_eq!(run(&["audit", "--ledger", &ledger], &other).status, 0);
    assert_eq!(run(&["audit"], &[("FAREBOX_LEDGER", &ledger)]).status, 0);
    assert_eq!(run(&["audit"], &[("FAREBOX_LEDGER", "")]).status, 0);
    let both = run(&["audit"], &other);
    assert!(both.errors.contains("are both set"), "{}", both.errors);
}

#[tokio::test]
async fn colours_never_reach_a_pipe() {
    let place = Place::with_ledger().await;
    let commands: [&[&str]; 4] = [
        &["account", "show", &spender()],
        &["account", "statement", &spender()],
        &["account", "statement", &spender(), "--chart"],
        &["account", "list"],
    ];
    for command in commands {
        assert!(!place.print(command).contains('\x1b'), "{command:?}");
        // There are some, for whoever insists.
        let forced = place.command(command).env("CLICOLOR_FORCE", "1").output().unwrap();
        assert!(crate::Ended::from(forced).output.contains('\x1b'), "{command:?}");
    }
}

#[test]
fn only_a_redis_ledger_is_adopted() {
    let place = Place::new();
    for url in [place.url("ledger"), "memory:".to_owned()] {
        let refused = place.refusal(&["ledger", "adopt", "--ledger", &url]);
        assert!(refused.contains("nothing to adopt"), "{refused}");
    }
}
