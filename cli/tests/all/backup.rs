//! Backups, and ledgers made of them.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::{FILE, Place, spender};

fn backup(place: &Place) -> String {
    place.print(&["backup", "--out", "a.backup"]);
    fs::read_to_string(place.path("a.backup")).unwrap()
}

#[tokio::test]
async fn a_restored_ledger_audits_the_same_and_backs_up_to_the_same_bytes() {
    let place = Place::with_ledger().await;
    let bytes = backup(&place);
    let new = place.url("new.redb");
    place.print(&["restore", "a.backup", "--ledger", &new]);
    let audit = place.print(&["audit"]);
    assert_eq!(place.print(&["audit", "--ledger", &new]), audit);
    assert_eq!(place.print(&["backup", "--out", "-", "--ledger", &new]), bytes);
    let statement = ["account", "statement", &spender(), "--json"];
    let restored = [&statement[..], &["--ledger", &new]].concat();
    assert_eq!(place.print(&restored), place.print(&statement));
}

#[tokio::test]
async fn a_ledger_moves_through_a_pipe() {
    let place = Place::with_ledger().await;
    let bytes = backup(&place);
    let new = place.url("new.redb");
    let mut restore = place.command(&["restore", "-", "--ledger", &new]);
    let mut restore = restore.stdin(Stdio::piped()).spawn().unwrap();
    restore.stdin.take().unwrap().write_all(bytes.as_bytes()).unwrap();
    assert!(restore.wait().unwrap().success());
    assert_eq!(place.print(&["audit", "--ledger", &new]), place.print(&["audit"]));
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_written() {
    let place = Place::with_ledger().await;
    let whole = backup(&place);
    let last = whole.trim_end().rfind('\n').unwrap() + 1;
    let damaged = [
        (whole[..last].to_owned(), "cut short"),
        (whole[..last - 10].to_owned(), "cut short"),
        (whole.replace("4987700", "5987700"), "altered"),
        (whole.replace(&spender(), &"0".repeat(64)), "altered"),
        (whole.replace(r#""head""#, r#""hand""#), "line 2"),
        ("{\"what\":1}\n".to_owned(), "not a backup"),
        (String::new(), "cut short"),
    ];
    let new = place.url("new.redb");
    for (bytes, expected) in damaged {
        assert_ne!(bytes, whole);
        fs::write(place.path("damaged"), bytes).unwrap();
        let refused = place.refusal(&["restore", "damaged", "--ledger", &new]);
        assert!(refused.contains(expected), "{expected}: {refused}");
        assert!(!place.path("new.redb").exists(), "{expected}");
    }
}

#[tokio::test]
async fn a_ledger_that_is_in_use_is_not_restored_into() {
    let place = Place::with_ledger().await;
    backup(&place);
    let before = place.print(&["audit"]);
    let refused = place.refusal(&["restore", "a.backup", "--ledger", &place.url(FILE)]);
    assert!(refused.contains("in use already"), "{refused}");
    assert_eq!(place.print(&["audit"]), before);
}

#[tokio::test]
async fn a_backup_is_its_owners_and_replaces_nothing_but_backups() {
    let place = Place::with_ledger().await;
    backup(&place);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode;
        let file = fs::metadata(place.path("a.backup")).unwrap();
        assert_eq!(mode(&file.permissions()) & 0o777, 0o600);
    }
    backup(&place); // again, over the one before
    let refused = place.refusal(&["backup", "--out", FILE]);
    assert!(refused.contains("is no backup"), "{refused}");
    assert_eq!(place.json(&["audit"])["clean"], true);
    let refused = place.refusal(&["backup", "--out", "no/such/folder/a.backup"]);
    assert!(refused.contains("cannot be written"), "{refused}");
    // Nothing is left behind beside what was asked for.
    let mut names: Vec<_> = fs::read_dir(place.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a.backup", FILE]);
}
