//! The embedded store's file: who may open it.

use farebox_ledger::{FirstRecord, Ledger, OpenError, Options};

fn ledger_in(folder: &tempfile::TempDir) -> String {
    format!("embedded:{}", folder.path().join("ledger.redb").display())
}

fn first() -> FirstRecord {
    FirstRecord::new("check", "test", Some("acct_1"))
}

#[tokio::test(start_paused = true)]
async fn a_second_opener_waits_and_is_then_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = ledger_in(&folder);
    let _open = Ledger::open(&url, &first(), Options::default()).await.unwrap();
    let started = tokio::time::Instant::now();
    let refused = Ledger::open(&url, &first(), Options::default()).await.unwrap_err();
    assert!(matches!(refused, OpenError::Locked(_)), "{refused}");
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_ledger_is_bound_to_its_key_mode_and_account() {
    let folder = tempfile::tempdir().unwrap();
    let url = ledger_in(&folder);
    drop(Ledger::open(&url, &first(), Options::default()).await.unwrap());
    let refused = |check: &'static str, mode: &'static str, account: &'static str| {
        let url = url.clone();
        async move {
            let other = FirstRecord::new(check, mode, Some(account));
            Ledger::open(&url, &other, Options::default()).await.unwrap_err().to_string()
        }
    };
    assert!(refused("other", "test", "acct_1").await.contains("another secret"));
    assert!(refused("check", "live", "acct_1").await.contains("mode test"));
    assert!(refused("check", "test", "acct_2").await.contains("account acct_1"));
    // Stripe out of reach: the account is not known, and the ledger keeps the one it has.
    drop(
        Ledger::open(&url, &FirstRecord::new("check", "test", None), Options::default())
            .await
            .unwrap(),
    );
    assert!(refused("check", "test", "acct_2").await.contains("account acct_1"));
}

#[tokio::test]
async fn a_url_that_names_no_store_is_refused() {
    for url in ["", "farebox.redb", "embedded:", "memory:x", "sqlite:x"] {
        let refused = Ledger::open(url, &first(), Options::default()).await.unwrap_err();
        assert!(matches!(refused, OpenError::Url(_)), "{url}: {refused}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_a_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ledger.redb"), b"not a database at all").unwrap();
    let refused =
        Ledger::open(&ledger_in(&folder), &first(), Options::default()).await.unwrap_err();
    assert!(matches!(refused, OpenError::File { .. }), "{refused}");
}
