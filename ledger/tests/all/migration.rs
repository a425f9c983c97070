//! A ledger that the first version wrote, and one that a later version wrote.

use farebox_ledger::book::TopUpState;
use farebox_ledger::statement::{self, What};
use farebox_ledger::store::Embedded;
use farebox_ledger::{
    Command, Due, FirstRecord, Ledger, OpenError, Outcome, Proof, Store as _, Totals,
};
use farebox_protocol::{Currency, Micros, PayerId, TopUpId};
use redb::{Database, ReadableDatabase as _, TableDefinition, TableHandle as _};

use crate::disk::{Dice, Disk, Op, apply};
use crate::stores::{clock, options};

const USD: Currency = Currency::USD;
const HEADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("heads");
const TOP_UPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("top_ups");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const PAYER: PayerId = PayerId::from_bytes([0xab; 32]);
const CARD: PayerId = PayerId::from_bytes([0xcd; 32]);
const PAYER_HEX: &str = "abababababababababababababababababababababababababababababababab";
const CARD_HEX: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

/// As commit 9a4a3c9 wrote them: reservations of 250000 were in flight when it stopped.
const HEAD: &str = r#"{"seq":41,"last":1699999990000,"generation":3,"customer":"cus_1","known":["pm_3","pm_1"],"accounts":{"usd":{"available":3000000,"reserved":250000,"spent":1250000,"received":5000000,"refunded":500000,"withdrawn":0,"open":3,"ended":2}}}"#;
const CARD_HEAD: &str = r#"{"seq":1,"last":1699999980000,"generation":1,"owner":"abababababababababababababababababababababababababababababababab"}"#;
const FIRST: &str = r#"{"schema":1,"identity_check":"check","mode":"sandbox","account":"acct_1"}"#;

fn top_ups() -> [(String, String); 3] {
    let id = |number| format!("tu_{PAYER_HEX}_usd_{number}");
    let none = r#"{"received":0,"refunded":0,"withdrawn":0}"#;
    let totals = r#"{"received":5000000,"refunded":500000,"withdrawn":0}"#;
    let row = |opened: i64, state: &str, totals: &str, version: u64| {
        format!(
            r#"{{"opened":{opened},"method":"pm_1","card":"{CARD_HEX}","state":{state},"totals":{totals},"version":{version}}}"#
        )
    };
    [
        (id(1), row(1_699_999_900_000, r#"{"succeeded":{"intent":"pi_1"}}"#, totals, 2)),
        (id(2), row(1_699_999_950_000, r#"{"failed":{"code":"card_declined"}}"#, none, 0)),
        (id(3), row(1_699_999_990_000, r#"{"open":{"call":"amount=500"}}"#, none, 0)),
    ]
}

fn write(first: &str) -> Disk {
    let disk = Disk::default();
    let db = Database::builder().create_with_backend(disk.storage()).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut heads = transaction.open_table(HEADS).unwrap();
        heads.insert(PAYER.as_bytes().as_slice(), HEAD.as_bytes()).unwrap();
        heads.insert(CARD.as_bytes().as_slice(), CARD_HEAD.as_bytes()).unwrap();
        let mut rows = transaction.open_table(TOP_UPS).unwrap();
        for (id, row) in top_ups() {
            rows.insert(id.as_str(), row.as_bytes()).unwrap();
        }
        transaction.open_table(META).unwrap().insert("first", first.as_bytes()).unwrap();
    }
    transaction.commit().unwrap();
    drop(db);
    disk.wait();
    disk
}

fn first() -> FirstRecord {
    FirstRecord::new("check", "sandbox", Some("acct_1"))
}

fn open(disk: &Disk) -> Result<Ledger, OpenError> {
    disk.wait();
    Embedded::open_in(disk.storage(), &first(), options(&clock())).map(Ledger::Embedded)
}

fn micros(n: i64) -> Micros {
    Micros::new(n).unwrap()
}

async fn is_all_there(ledger: &Ledger) {
    let book = ledger.book(&PAYER).await.unwrap();
    book.check().unwrap();
    let account = book.head.account(USD);
    assert_eq!((account.available, account.reserved), (micros(3_250_000), Micros::ZERO));
    assert_eq!((account.spent, account.received), (micros(1_250_000), micros(5_000_000)));
    assert_eq!((account.refunded, account.open, account.ended), (micros(500_000), Some(3), 2));
    assert_eq!((book.head.generation, book.head.customer.as_deref()), (3, Some("cus_1")));
    assert!(["pm_1", "pm_3"].map(|m| book.head.knows(&m.parse().unwrap())) == [true, true]);
    assert_eq!(ledger.load(&CARD).await.unwrap().owner, Some(PAYER));

    let top_up = |number| TopUpId { payer: PAYER, currency: USD, number };
    let state = async |number| ledger.top_up(&top_up(number)).await.unwrap().unwrap().state;
    assert!(matches!(state(1).await, TopUpState::Succeeded { intent } if intent == "pi_1"));
    assert!(matches!(state(2).await, TopUpState::Failed { .. }));
    assert!(matches!(state(3).await, TopUpState::Open { call } if call == "amount=500"));
    assert_eq!(ledger.due().await.unwrap(), [Due::TopUp(top_up(3))]);
    let lines: Vec<_> =
        statement::page(&book, None, 10).lines.into_iter().map(|line| line.what).collect();
    let (received, refunded) = (micros(5_000_000), micros(500_000));
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(matches!(lines[0], What::Opened { top_up: 3 }));
    assert!(matches!(lines[1], What::Failed { top_up: 2, .. }));
    assert!(lines.contains(&What::Received { top_up: 1, amount: received }));
    assert!(lines.contains(&What::Refunded { top_up: 1, amount: refunded }));
}

/// The schema of the first record, and whether top-ups are where schema 1 has them.
fn layout(disk: &Disk) -> (u64, bool) {
    disk.wait();
    let db = Database::builder().create_with_backend(disk.storage()).unwrap();
    let read = db.begin_read().unwrap();
    let old = read.list_tables().unwrap().any(|table| table.name() == "top_ups");
    let meta = read.open_table(META).unwrap();
    let first: serde_json::Value =
        serde_json::from_slice(meta.get("first").unwrap().unwrap().value()).unwrap();
    (first["schema"].as_u64().unwrap(), old)
}

#[tokio::test]
async fn a_ledger_of_the_first_version_is_brought_to_this_one() {
    let disk = write(FIRST);
    for _ in 0..2 {
        is_all_there(&open(&disk).unwrap()).await;
        assert_eq!(layout(&disk), (2, false));
    }
    // And it goes on from there.
    let ledger = open(&disk).unwrap();
    let totals = Totals { received: micros(5_000_000), ..Totals::default() };
    let intent = "pi_3".to_owned();
    let observe = Command::Observe { currency: USD, number: 3, intent, seen_version: 0, totals };
    let difference = totals.received;
    let outcome = ledger.apply(&PAYER, &observe).await.unwrap().outcome;
    assert_eq!(outcome, Outcome::Observed { difference });
    let totals = Totals { received: difference, withdrawn: difference, ..Totals::default() };
    let intent = "pi_1".to_owned();
    let dispute = Command::Observe { currency: USD, number: 1, intent, seen_version: 2, totals };
    let outcome = ledger.apply(&PAYER, &dispute).await.unwrap().outcome;
    assert_eq!(outcome, Outcome::Observed { difference: micros(-4_500_000) });
    assert!(ledger.due().await.unwrap().is_empty());
    let proof = Proof::Credential { generation: 2, number: None };
    let Command::Reserve { id, currency, amount, ttl, claim, .. } =
        crate::machine::reserve(1, Micros::ZERO)
    else {
        unreachable!()
    };
    let revoked = Command::Reserve { id, currency, amount, ttl, claim, proof };
    assert_eq!(ledger.apply(&PAYER, &revoked).await.unwrap().outcome, Outcome::Unauthorized);
}

#[test]
fn a_migration_that_is_killed_has_done_all_or_nothing() {
    let disk = write(FIRST);
    let before = disk.bytes();
    disk.record();
    drop(open(&disk).unwrap());
    disk.wait();
    let (log, mut dice) = (disk.log(), Dice(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut old, mut new) = (0, 0);
    for kept in 0..=log.len() {
        for lossy in [false, true, true] {
            let synced = log[..kept].iter().rposition(|op| matches!(op, Op::Sync)).unwrap_or(0);
            let mut bytes = before.clone();
            for (n, op) in log[..kept].iter().enumerate() {
                if !lossy || n < synced || dice.below(2) == 0 {
                    apply(&mut bytes, op);
                }
            }
            match layout(&Disk::with(bytes.clone())) {
                (1, true) => old += 1,
                (2, false) => new += 1,
                mixed => panic!("{mixed:?} after {kept} operations"),
            }
            runtime.block_on(is_all_there(&open(&Disk::with(bytes)).unwrap()));
        }
    }
    println!("{} images: {old} old, {new} new", old + new);
    assert!(old > 0 && new > 0);
}

#[test]
fn a_ledger_of_a_later_version_is_refused_and_left_alone() {
    let disk = write(&FIRST.replace(r#""schema":1"#, r#""schema":3"#));
    let refused = open(&disk).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 3, .. }), "{refused}");
    assert!(refused.to_string().contains("newer"), "{refused}");
    assert_eq!(layout(&disk), (3, true));
}
