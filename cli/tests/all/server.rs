//! On a running server.

use farebox_ledger::Store as _;
use farebox_ledger::store::Memory;

use crate::admin::{TOKEN, serve};
use crate::{Ended, FILE, Place, fill, payer, spender};

async fn running() -> String {
    let ledger = Memory::default();
    fill(&ledger).await;
    serve(ledger).await
}

fn run(place: &Place, url: &str, arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    command.env("FAREBOX_ADMIN_URL", url).env("FAREBOX_ADMIN_TOKEN", TOKEN);
    Ended::from(command.output().unwrap())
}

fn print(place: &Place, url: &str, arguments: &[&str]) -> String {
    let ended = run(place, url, arguments);
    assert_eq!(ended.status, 0, "{arguments:?}: {}", ended.errors);
    ended.output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_answers_what_its_ledger_would() {
    let (file, place, memory) = (Place::new(), Place::new(), Memory::default());
    fill(&memory).await;
    let ledger = file.open(FILE).await;
    for payer in memory.payers().await.unwrap() {
        ledger.restore(payer, memory.book(&payer).await.unwrap()).await.unwrap();
    }
    drop(ledger);
    let url = serve(memory).await;
    let same: [&[&str]; 6] = [
        &["account", "show", &spender()],
        &["account", "statement", &spender(), "--all"],
        &["account", "statement", &spender(), "--limit", "2"],
        &["account", "statement", &spender(), "--chart"],
        &["account", "list"],
        &["audit"],
    ];
    for command in same {
        assert_eq!(print(&place, &url, command), file.print(command), "{command:?}");
    }
    let refused = run(&place, &url, &["account", "show", &payer(9).to_string()]);
    assert!(refused.errors.contains("there is no payer 0909"), "{}", refused.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_freezes_revokes_and_is_backed_up() {
    let (place, url) = (Place::new(), running().await);
    let freeze = |what| print(&place, &url, &["account", what, &spender(), "--reason", "operator"]);
    assert!(freeze("freeze").contains("is frozen for operator"));
    assert!(freeze("freeze").contains("already"));
    assert!(freeze("unfreeze").contains("It may spend"));
    let revoke = ["account", "revoke", &spender()];
    let one = [&revoke[..], &["--credential", "1"]].concat();
    assert!(print(&place, &url, &one).contains("Credential 1 is revoked"));
    assert!(print(&place, &url, &revoke).contains("generation 2"));
    print(&place, &url, &["backup", "--out", "a.backup"]);
    place.print(&["restore", "a.backup", "--ledger", &place.url("new.redb")]);
    let restored = place.print(&["audit", "--ledger", &place.url("new.redb")]);
    assert_eq!(print(&place, &url, &["audit"]), restored);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_between_the_command_and_the_server_is_named() {
    let (place, url) = (Place::new(), running().await);
    let says = |arguments: &[&str]| place.refusal(&[&["audit"], arguments].concat());
    assert!(says(&["--url", &url]).contains("set FAREBOX_ADMIN_TOKEN"));
    assert!(says(&["--url", &url, "--token", "wrong"]).contains("refuses the token"));
    let token = ["--token", TOKEN];
    let at = |url: &str| says(&[&["--url", url], &token[..]].concat());
    assert!(at("http://127.0.0.1:1").contains("no server answers"));
    assert!(at("http://example.com:4029").contains("in the clear"));
    assert!(at("127.0.0.1:4029").contains("not the address of a server"));
    let elsewhere = url.replace("/admin", "/");
    assert!(at(&elsewhere).contains("no admin routes"), "{}", at(&elsewhere));
    assert!(says(&token).contains("--url"));
}
