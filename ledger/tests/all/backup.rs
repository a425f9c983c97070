//! Backups: what was written is what is read, and nothing else is.

use farebox_ledger::backup::{BackupError, Reader, Writer};
use farebox_ledger::book::{ClaimKey, ClaimState, Fingerprint, Line, Route};
use farebox_ledger::machine::ClaimOf;
use farebox_ledger::store::{Memory, fund};
use farebox_ledger::{
    Book, Command, Entry, EntryId, FirstRecord, Ledger, Options, Proof, Store, Then,
};
use farebox_protocol::{Currency, PayerId, usd};

fn payer(n: u8) -> PayerId {
    PayerId::from_bytes([n; 32])
}

fn first() -> FirstRecord {
    FirstRecord::new("check", "test", Some("acct_1"))
}

async fn funded(payers: &[u8]) -> Memory {
    let ledger = Memory::default();
    for &n in payers {
        fund(&ledger, &payer(n), usd!("5")).await.unwrap();
    }
    ledger
}

async fn backup(ledger: &impl Store) -> Vec<u8> {
    let mut payers = ledger.payers().await.unwrap();
    payers.sort_unstable();
    let mut writer = Writer::begin(Vec::new(), &first(), payers.len()).unwrap();
    for payer in payers {
        writer.add(payer, ledger.book(&payer).await.unwrap()).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<(PayerId, Book)>, BackupError> {
    let mut reader = Reader::begin(bytes)?;
    let mut books = Vec::new();
    while let Some(book) = reader.next_book()? {
        books.push(book);
    }
    Ok(books)
}

#[tokio::test]
async fn a_backup_that_was_cut_anywhere_is_refused() {
    let bytes = backup(&funded(&[1, 2]).await).await;
    assert_eq!(read(&bytes).unwrap().len(), 2);
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "cut at {end}");
    }
    let longer = [bytes.as_slice(), b"{}\n"].concat();
    assert!(matches!(read(&longer).unwrap_err(), BackupError::Line { line: 5, .. }));
}

#[tokio::test]
async fn a_backup_of_which_one_byte_was_altered_is_refused() {
    let bytes = backup(&funded(&[1, 2]).await).await;
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert!(read(&altered).is_err(), "altered at {at}");
    }
}

#[tokio::test]
async fn a_backup_without_one_of_its_lines_or_with_one_twice_is_refused() {
    let bytes = backup(&funded(&[1, 2]).await).await;
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let [first, one, two, last] = lines.as_slice() else { panic!("{lines:?}") };
    let fewer = [*first, *two, *last].concat();
    assert!(matches!(read(fewer.as_bytes()).unwrap_err(), BackupError::Altered));
    for books in [[*one, *one], [*two, *one]] {
        let wrong = [*first, books[0], books[1], *last].concat();
        assert!(matches!(read(wrong.as_bytes()).unwrap_err(), BackupError::Line { line: 3, .. }));
    }
}

#[tokio::test]
async fn a_backup_of_a_newer_version_says_to_update() {
    let text = String::from_utf8(backup(&funded(&[1]).await).await).unwrap();
    let format = text.replace(r#"{"farebox_backup":1"#, r#"{"farebox_backup":2"#);
    let schema = text.replace(r#""schema":2"#, r#""schema":99"#);
    for newer in [format, schema] {
        assert_ne!(newer, text);
        let refused = read(newer.as_bytes()).unwrap_err().to_string();
        assert!(refused.ends_with("update farebox"), "{refused}");
    }
}

/// Requests that are in flight at the time of a backup: one reserved only, one spent a part, one
/// has a key and spent a part, one has a key and spent nothing.
async fn in_flight(ledger: &impl Store) {
    let amount = usd!("1").micros();
    let line = Line { route: Route::new("/joke"), spent: usd!("0.25").micros() };
    for n in 0..4_u8 {
        let id = u128::from(n).into();
        let key = ClaimKey::from_bytes([n; 32]);
        let fingerprint = Fingerprint::from_bytes([n; 32]);
        let claim = (n >= 2).then_some(ClaimOf { key, fingerprint });
        let proof = Proof::Credential { generation: 1, number: None };
        let currency = Currency::USD;
        let reserve = Command::Reserve { id, currency, amount, ttl: 60_000, proof, claim };
        ledger.apply(&payer(1), &reserve).await.unwrap();
        if n % 2 == 1 {
            let (claim, lines) = (claim.map(|claim| claim.key), vec![line.clone()]);
            let settle = Command::Settle { id, claim, lines, then: Then::Keep };
            ledger.apply(&payer(1), &settle).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_backup_holds_what_was_spent_and_nothing_that_is_in_flight() {
    let ledger = funded(&[1]).await;
    in_flight(&ledger).await;
    let read = read(&backup(&ledger).await).unwrap();
    let (_, book) = &read[0];
    book.check().unwrap();
    let account = book.head.account(Currency::USD);
    assert_eq!((account.available, account.spent), (usd!("4.5").micros(), usd!("0.5").micros()));
    let claims: Vec<_> =
        book.entries.keys().filter(|id| !matches!(id, EntryId::TopUp(..))).collect();
    let done = EntryId::Claim(ClaimKey::from_bytes([3; 32]));
    assert_eq!(claims, [&done]);
    let Entry::Claim(claim) = &book.entries[&done] else { panic!("a claim") };
    let charged = usd!("0.25").micros();
    assert!(matches!(claim.state, ClaimState::Done { charged: c, .. } if c == charged));
}

#[tokio::test]
async fn a_restored_ledger_gives_the_same_backup_again() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", folder.path().join("ledger.redb").display());
    let source = funded(&[1, 2, 3]).await;
    in_flight(&source).await;
    let bytes = backup(&source).await;
    let ledger = Ledger::open(&url, &first(), Options::default()).await.unwrap();
    // Also straight from a ledger that is in use: the requests end on the way.
    for payer in source.payers().await.unwrap() {
        ledger.restore(payer, source.book(&payer).await.unwrap()).await.unwrap();
    }
    assert_eq!(backup(&ledger).await, bytes);
    drop(ledger);
    let (ledger, _) = Ledger::open_existing(&url).await.unwrap();
    assert_eq!(backup(&ledger).await, bytes);
}
