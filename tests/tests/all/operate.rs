//! The operator's command, on a real server and on its ledger.

use std::process::Output;

use serde_json::Value;

use crate::support::{
    Bank, Persistence, Program, Redis, Setup, by_card, by_credential, card, get, run,
};

const TOKEN: &str = "a-token-of-thirty-two-characters";
pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";

/// Runs `farebox` and answers what it printed.
pub(crate) async fn farebox(environment: &[(&str, String)], line: &str) -> String {
    let output = try_farebox(environment, line).await;
    assert!(output.status.success(), "farebox {line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) async fn try_farebox(environment: &[(&str, String)], line: &str) -> Output {
    let arguments: Vec<&str> = line.split(' ').collect();
    run("farebox", environment, &arguments).await
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A server with an admin listener, and how the operator reaches it.
pub(crate) async fn server(bank: &Bank, ledger: &str) -> (Program, Vec<(&'static str, String)>) {
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_LEDGER", ledger.to_owned()));
    environment.push(("FAREBOX_SECRET", SECRET.to_owned()));
    environment.push(("FAREBOX_ADMIN_TOKEN", TOKEN.to_owned()));
    environment.push(("FAREBOX_ADMIN_LISTEN", "127.0.0.1:0".to_owned()));
    let program = Program::start("paid-api", &environment).await;
    let admin = program.said.iter().find_map(|line| line.strip_prefix("admin on ")).unwrap();
    let operator =
        vec![("FAREBOX_ADMIN_URL", admin.to_owned()), ("FAREBOX_ADMIN_TOKEN", TOKEN.to_owned())];
    (program, operator)
}

#[tokio::test]
async fn a_running_server_is_looked_after_and_moved_to_redis() {
    let bank = Bank::start(farebox_sandbox::Sandbox::builder()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = format!("embedded:{}", folder.path().join("books.redb").display());
    let (program, operator) = server(&bank, &file).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let joke = format!("{}/api/joke", program.url);
    let paid = get(&http, &joke, &by_card(&bank.method(&card(1)).await)).await.unwrap();
    let credential = paid.credential();
    let payer = credential[..64].to_owned();

    let shown = json(&farebox(&operator, &format!("account show {payer} --json")).await);
    assert_eq!(shown["accounts"][0]["available"], 4_990_000, "{shown}");
    let said = farebox(&operator, &format!("account statement {payer}")).await;
    assert!(said.contains("/api/joke") && said.contains("received"), "{said}");

    // Frozen, it neither spends nor pays; unfrozen, it does.
    farebox(&operator, &format!("account freeze {payer} --reason operator")).await;
    let calls = bank.charge_calls();
    assert_eq!(get(&http, &joke, &by_credential(&credential)).await.unwrap().status, 403);
    assert_eq!(bank.charge_calls(), calls);
    farebox(&operator, &format!("account unfreeze {payer} --reason operator")).await;
    assert!(get(&http, &joke, &by_credential(&credential)).await.unwrap().is_served());

    // The file is the server's; the command says how to reach the server instead.
    let locked = try_farebox(&[], &format!("audit --ledger {file}")).await;
    assert_eq!(locked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&locked.stderr).contains("--url"), "{locked:?}");

    let audit = json(&farebox(&operator, "audit").await);
    assert_eq!(
        (&audit["clean"], &audit["totals"]["usd"]["income"]),
        (&true.into(), &20_000.into())
    );
    let backup = folder.path().join("books.jsonl").display().to_string();
    farebox(&operator, &format!("backup --out {backup}")).await;
    program.terminate().await;
    assert!(program.end().await.success());
    // What the file says when nobody has it open is what the server said.
    assert_eq!(json(&farebox(&[], &format!("audit --ledger {file}")).await), audit);

    // In Redis, the payer goes on where it was.
    let redis = Redis::start(Setup::persistent(Persistence::EverySecond)).await;
    let url = redis.url("moved");
    farebox(&[], &format!("restore {backup} --ledger {url}")).await;
    assert_eq!(json(&farebox(&[], &format!("audit --ledger {url}")).await), audit);
    let (program, operator) = server(&bank, &url).await;
    let joke = format!("{}/api/joke", program.url);
    let served = get(&http, &joke, &by_credential(&credential)).await.unwrap();
    assert_eq!((served.is_served(), served.remaining()), (true, 49_700));
    farebox(&operator, &format!("account revoke {payer}")).await;
    assert_eq!(get(&http, &joke, &by_credential(&credential)).await.unwrap().status, 402);
}
