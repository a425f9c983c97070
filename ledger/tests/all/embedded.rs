//! The embedded store's file: who may open it.

use farebox_ledger::book::{ClaimKey, Fingerprint, Line, Route};
use farebox_ledger::machine::ClaimOf;
use farebox_ledger::store::{Embedded, Memory, fund};
use farebox_ledger::{
    Clock as _, Command, Due, EntryId, FirstRecord, Ledger, OpenError, Options, Outcome, Proof,
    Store as _, Then,
};
use farebox_protocol::{Currency, Micros, PayerId, TopUpId, usd};

use crate::disk::Disk;
use crate::stores::{clock, options};

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

fn sandbox() -> FirstRecord {
    FirstRecord::new("check", "sandbox", None)
}

fn micros(n: i64) -> Micros {
    Micros::new(n).unwrap()
}

/// A keyed request, served and charged.
async fn charge(ledger: &Ledger, payer: &PayerId, key: u8) {
    let (id, claim) = (u128::from(key).into(), ClaimKey::from_bytes([key; 32]));
    let reserve = Command::Reserve {
        id,
        currency: Currency::USD,
        amount: micros(100),
        ttl: 60_000,
        proof: Proof::Credential { generation: 1, number: None },
        claim: Some(ClaimOf { key: claim, fingerprint: Fingerprint::from_bytes([0; 32]) }),
    };
    ledger.apply(payer, &reserve).await.unwrap();
    let lines = vec![Line { route: Route::new("/joke"), spent: micros(100) }];
    let settle = Command::Settle { id, claim: Some(claim), lines, then: Then::Close };
    let outcome = ledger.apply(payer, &settle).await.unwrap().outcome;
    assert!(matches!(outcome, Outcome::Settled { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_charged_key_leaves_the_file_a_day_later_also_if_its_payer_does_not_return() {
    let (disk, clock, payer) = (Disk::default(), clock(), PayerId::from_bytes([1; 32]));
    let open = || {
        disk.wait();
        let store = Embedded::open_in(disk.storage(), &sandbox(), options(&clock));
        Ledger::Embedded(store.unwrap())
    };
    let ledger = open();
    fund(&ledger, &payer, usd!("5")).await.unwrap();
    for key in 0..20 {
        charge(&ledger, &payer, key).await;
    }
    assert!(ledger.due().await.unwrap().is_empty());
    clock.set(clock.now().after(25 * 3_600_000));
    // What the sweep of a process does.
    let due = ledger.due().await.unwrap();
    assert_eq!(due.len(), 20);
    for due in due {
        let Due::Entry(payer, id) = due else { panic!("{due:?}") };
        ledger.apply(&payer, &Command::Expire { id }).await.unwrap();
    }
    drop(ledger);
    let ledger = open();
    assert!(ledger.due().await.unwrap().is_empty());
    let entries = ledger.book(&payer).await.unwrap().entries;
    assert!(entries.keys().all(|id| matches!(id, EntryId::TopUp(..))), "{entries:?}");
}

/// The key's old row is forgotten and its new request is in flight when the head is written.
#[tokio::test]
async fn a_request_in_flight_is_never_written_as_charged() {
    let (disk, clock, payer) = (Disk::default(), clock(), PayerId::from_bytes([1; 32]));
    let open = || {
        disk.wait();
        let store = Embedded::open_in(disk.storage(), &sandbox(), options(&clock));
        Ledger::Embedded(store.unwrap())
    };
    let ledger = open();
    fund(&ledger, &payer, usd!("5")).await.unwrap();
    charge(&ledger, &payer, 1).await;
    clock.set(clock.now().after(25 * 3_600_000));
    let (key, fingerprint) = (ClaimKey::from_bytes([1; 32]), Fingerprint::from_bytes([9; 32]));
    let reserve = |id: u128| Command::Reserve {
        id: id.into(),
        currency: Currency::USD,
        amount: micros(100),
        ttl: 60_000,
        proof: Proof::Credential { generation: 1, number: None },
        claim: Some(ClaimOf { key, fingerprint }),
    };
    let outcome = ledger.apply(&payer, &reserve(2)).await.unwrap().outcome;
    assert!(matches!(outcome, Outcome::Reserved { .. }), "{outcome:?}");
    let link = Command::LinkCard { method: "pm_9".parse().unwrap() };
    ledger.apply(&payer, &link).await.unwrap();
    drop(ledger);
    let outcome = open().apply(&payer, &reserve(3)).await.unwrap().outcome;
    assert!(matches!(outcome, Outcome::Reserved { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_restored_book_is_whole_and_its_requests_are_over() {
    let (from, payer) = (Ledger::Memory(Memory::default()), PayerId::from_bytes([1; 32]));
    fund(&from, &payer, usd!("5")).await.unwrap();
    charge(&from, &payer, 1).await;
    from.apply(&payer, &crate::machine::reserve(7, micros(300))).await.unwrap();
    let (currency, call) = (Currency::USD, "refund".to_owned());
    let refund = Command::OpenRefund { currency, number: 1, refund: 1, amount: micros(200), call };
    assert_eq!(from.apply(&payer, &refund).await.unwrap().outcome, Outcome::Opened);
    let backup = from.book(&payer).await.unwrap();
    let expected = backup.clone().interrupted();

    let disk = Disk::default();
    for restored in [false, true] {
        disk.wait();
        let store = Embedded::open_in(disk.storage(), &sandbox(), Options::default()).unwrap();
        let ledger = Ledger::Embedded(store);
        if !restored {
            ledger.restore(payer, backup.clone()).await.unwrap();
            assert!(ledger.restore(payer, backup.clone()).await.is_err(), "it has a book");
        }
        assert_eq!(ledger.book(&payer).await.unwrap(), expected);
        let top_up = TopUpId { payer, currency, number: 1 };
        assert_eq!(ledger.due().await.unwrap(), [Due::TopUp(top_up)]);
        assert_eq!(ledger.load(&payer).await.unwrap().account(currency).reserved, Micros::ZERO);
    }
}

/// Its row is in the file until the commit that removes it has ended.
#[tokio::test]
async fn a_row_that_is_being_removed_is_not_read_again() {
    let (disk, clock, payer) = (Disk::default(), clock(), PayerId::from_bytes([1; 32]));
    let store = Embedded::open_in(disk.storage(), &sandbox(), options(&clock)).unwrap();
    let ledger = Ledger::Embedded(store);
    fund(&ledger, &payer, usd!("5")).await.unwrap();
    charge(&ledger, &payer, 1).await;
    clock.set(clock.now().after(25 * 3_600_000));
    disk.slow(std::time::Duration::from_millis(500));
    let expire = Command::Expire { id: EntryId::Claim(ClaimKey::from_bytes([1; 32])) };
    let expired = ledger.apply(&payer, &expire).await.unwrap().outcome;
    assert_eq!(expired, Outcome::Expired);
    // Before it is written, while it is, and after.
    for _ in 0..40 {
        let again = ledger.apply(&payer, &expire).await.unwrap().outcome;
        assert_eq!(again, Outcome::NotFound);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
