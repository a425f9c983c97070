//! Files that are not what they were: each is refused with a sentence, and left as it is, or it
//! opens with everything in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farebox_ledger::conformance::{Model, agrees, step, timed_histories};
use farebox_ledger::store::{Embedded, fund};
use farebox_ledger::{Book, FirstRecord, Ledger, OpenError, Options, Store as _};
use farebox_protocol::{PayerId, usd};
use proptest::strategy::{Strategy as _, ValueTree as _};
use redb::{Database, TableDefinition};

use crate::disk::{Dice, Disk};
use crate::stores::{clock, options, runner};

const PAYERS: u8 = 16;

fn first() -> FirstRecord {
    FirstRecord::new("check", "sandbox", None)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn url(path: &Path) -> String {
    format!("embedded:{}", path.display())
}

async fn open(path: &Path) -> Result<Ledger, OpenError> {
    let (url, first) = (url(path), first());
    let opened = Ledger::open(&url, &first, options(&clock()));
    tokio::time::timeout(Duration::from_secs(20), opened).await.unwrap()
}

/// A ledger of some payers, closed as it should be, and what is in it.
fn good(path: &Path) -> Vec<(PayerId, Book)> {
    let mut runner = runner();
    block_on(async {
        let ledger = open(path).await.unwrap();
        let mut books = Vec::new();
        for payer in 0..PAYERS {
            let payer = PayerId::from_bytes([payer; 32]);
            let history = timed_histories(30).new_tree(&mut runner).unwrap().current();
            let mut model = Model::default();
            for (_, command) in &history {
                step(&ledger, &payer, &mut model, command).await.unwrap();
            }
            step(&ledger, &payer, &mut model, &farebox_ledger::Command::RevokeCredentials)
                .await
                .unwrap();
            agrees(&ledger, &payer, &model).await.unwrap();
            books.push((payer, model.restarted().book().clone()));
        }
        books
    })
}

fn is_a_sentence(error: &OpenError) {
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.contains("panicked"), "{text}");
    assert!(text.len() < 400 && text.starts_with("the ledger "), "{text}");
}

/// Whether the file opens; then everything is in it.
fn opens_with(folder: &Path, bytes: &[u8], books: &[(PayerId, Book)], what: &str) -> bool {
    let path = &folder.join(what); // the one before may still be closing
    std::fs::write(path, bytes).unwrap();
    let opens = block_on(async {
        match open(path).await {
            Ok(ledger) => {
                for (payer, book) in books {
                    let found = ledger.book(payer).await;
                    assert_eq!(found.as_ref().ok(), Some(book), "{what} lost something");
                }
                true
            }
            Err(error) => {
                is_a_sentence(&error);
                let left = std::fs::read(path).unwrap();
                assert!(left == bytes, "{what} was refused and changed: {error}");
                false
            }
        }
    });
    std::fs::remove_file(path).unwrap();
    opens
}

#[test]
fn a_damaged_file_is_refused_and_left_alone_or_opens_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let books = good(&path);
    // Whoever closed it has let go of it.
    while Database::open(&path).is_err() {}
    let bytes = std::fs::read(&path).unwrap();
    let path = folder.path();
    assert!(opens_with(path, &bytes, &books, "nothing"));
    let mut dice = Dice(7);
    let (mut opened, mut refused) = (0, 0);
    let mut count = |opens: bool| if opens { opened += 1 } else { refused += 1 };
    for cut in 0..40 {
        // Not to nothing: an empty file is a new ledger.
        let len = if cut < 8 { 1 << cut } else { dice.below(bytes.len()).max(1) };
        count(opens_with(path, &bytes[..len], &books, &format!("cut to {len}")));
    }
    for flip in 0..300 {
        let mut bytes = bytes.clone();
        // Headers and what is written first are at the front.
        let at = if flip % 3 == 0 { dice.below(4_096) } else { dice.below(bytes.len()) };
        bytes[at] ^= 1 << dice.below(8);
        count(opens_with(path, &bytes, &books, &format!("a bit flipped at {at}")));
    }
    for page in (0..bytes.len() / 4_096).take(60) {
        let mut bytes = bytes.clone();
        bytes[page * 4_096..][..4_096].fill(0);
        count(opens_with(path, &bytes, &books, &format!("page {page} of zeros")));
    }
    println!(
        "{} damaged files of {} bytes: {refused} refused in a sentence and left alone, {opened} \
         opened with everything",
        opened + refused,
        bytes.len()
    );
    assert!(refused > 50 && opened > 50, "{refused} {opened}");
}

#[test]
fn a_file_that_a_kill_left_opens_whole_and_damaged_it_is_refused_or_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let (bytes, books) = block_on(async {
        let ledger = open(&path).await.unwrap();
        let mut books = Vec::new();
        for payer in 0..PAYERS {
            let payer = PayerId::from_bytes([payer; 32]);
            fund(&ledger, &payer, usd!("5")).await.unwrap();
            books.push((payer, ledger.book(&payer).await.unwrap()));
        }
        (std::fs::read(&path).unwrap(), books) // it is still open
    });
    assert!(opens_with(folder.path(), &bytes, &books, "killed"));
    let (mut dice, mut opened, mut refused) = (Dice(11), 0, 0);
    for flip in 0..120 {
        let mut bytes = bytes.clone();
        let at = if flip % 3 == 0 { dice.below(4_096) } else { dice.below(bytes.len()) };
        bytes[at] ^= 1 << dice.below(8);
        let path = folder.path().join(format!("flip {flip}"));
        std::fs::write(&path, &bytes).unwrap();
        block_on(async {
            match open(&path).await {
                Ok(ledger) => {
                    let audit = farebox_ledger::audit::audit(&ledger, |_, _| ()).await.unwrap();
                    assert!(audit.is_clean(), "a bit flipped at {at}: {audit:?}");
                    opened += 1;
                }
                Err(error) => {
                    is_a_sentence(&error);
                    assert!(std::fs::read(&path).unwrap() == bytes, "at {at}: {error}");
                    refused += 1;
                }
            }
        });
        std::fs::remove_file(&path).unwrap();
    }
    println!("of a killed process: {refused} refused and left alone, {opened} consistent");
}

#[test]
fn damage_that_is_met_later_is_an_error_and_no_panic() {
    let disk = Disk::default();
    let mut dice = Dice(3);
    block_on(async {
        let ledger = Embedded::open_in(disk.storage(), &first(), Options::default()).unwrap();
        for payer in 0..64 {
            fund(&ledger, &PayerId::from_bytes([payer; 32]), usd!("5")).await.unwrap();
        }
    });
    disk.wait();
    let bytes = disk.bytes();
    let (mut errors, mut fine, mut refused) = (0, 0, 0);
    for round in 0..400_u32 {
        let mut bytes = bytes.clone();
        // What is written of a page is at its front.
        let page = 1 + dice.below(bytes.len() / 4_096 - 1);
        for _ in 0..=round % 5 {
            let at = page * 4_096 + dice.below(if round % 2 == 0 { 64 } else { 4_096 });
            bytes[at] = [0, 1, 0x80, 0xff][dice.below(4)];
        }
        // Without the examination that a file has.
        let disk = Disk::with(bytes);
        let ledger = match Embedded::open_in(disk.storage(), &first(), Options::default()) {
            Ok(ledger) => std::sync::Arc::new(ledger),
            Err(error) => {
                is_a_sentence(&error);
                refused += 1;
                continue;
            }
        };
        let payer = PayerId::from_bytes([u8::try_from(round % 64).unwrap(); 32]);
        let asked = block_on(async {
            tokio::spawn(async move {
                let book = ledger.book(&payer).await.map(|_| ());
                let due = ledger.due().await.map(|_| ());
                let observe = crate::machine::observe(1, 1, usd!("6").micros());
                let observed = ledger.apply(&payer, &observe).await.map(|_| ());
                let funded = fund(&*ledger, &payer, usd!("1")).await;
                [book, due, observed, funded]
            })
            .await
        });
        for answer in asked.unwrap() {
            match answer {
                Ok(()) => fine += 1,
                Err(error) => {
                    assert!(!error.to_string().contains('\n'), "{error}");
                    errors += 1;
                }
            }
        }
    }
    println!("{refused} refused, {errors} answers were errors, {fine} were not, none a panic");
    assert!(refused > 5 && errors > 5);
}

#[tokio::test]
async fn what_is_no_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("text"), "this is my shopping list\n".repeat(400)).unwrap();
    std::fs::write(at("zeros"), vec![0; 1 << 16]).unwrap();
    for path in [at("folder"), at("text"), at("zeros"), at("no/such/folder")] {
        let before = std::fs::read(&path).ok();
        let refused = open(&path).await.unwrap_err();
        is_a_sentence(&refused);
        assert_eq!(std::fs::read(&path).ok(), before, "{}", path.display());
        let is_file = before.is_some();
        assert_eq!(refused.to_string().contains("it is not a ledger"), is_file, "{refused}");
    }
    assert!(Ledger::open_existing(&url(&at("missing"))).await.is_err());
    assert!(!at("missing").exists());

    // A database of somebody else's is not taken over by who only looks.
    drop(Database::create(at("other")).unwrap());
    let refused = Ledger::open_existing(&url(&at("other"))).await.unwrap_err();
    assert!(refused.to_string().contains("not a ledger"), "{refused}");
    // An empty file is what `touch` left: a new ledger.
    std::fs::write(at("empty"), b"").unwrap();
    assert!(open(&at("empty")).await.unwrap().payers().await.unwrap().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    drop(open(&path).await.unwrap());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner reads it");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    if std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
        println!("skipped: root may write to every file");
        return;
    }
    is_a_sentence(&open(&path).await.unwrap_err());
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o500)).unwrap();
    is_a_sentence(&open(&folder.path().join("new.redb")).await.unwrap_err());
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_row_of_an_unknown_kind_is_an_error_and_not_skipped() {
    const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
    let (disk, payer) = (Disk::default(), PayerId::from_bytes([1; 32]));
    let ledger = Embedded::open_in(disk.storage(), &first(), Options::default()).unwrap();
    fund(&ledger, &payer, usd!("5")).await.unwrap();
    drop(ledger);
    disk.wait();
    let db = Database::builder().create_with_backend(disk.storage()).unwrap();
    let transaction = db.begin_write().unwrap();
    let key = [payer.as_bytes().as_slice(), b"zrow"].concat();
    transaction.open_table(ENTRIES).unwrap().insert(&*key, b"{}".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    disk.wait();
    let ledger = Embedded::open_in(disk.storage(), &first(), Options::default()).unwrap();
    let refused = ledger.book(&payer).await.unwrap_err().to_string();
    assert!(refused.contains("does not know"), "{refused}");
    // Another payer's book is none the worse for it.
    fund(&ledger, &PayerId::from_bytes([2; 32]), usd!("5")).await.unwrap();
}

/// Two start at one time where no file is: one makes it, the other waits for it.
#[test]
fn a_new_file_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let made = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for payer in 0..4 {
            let (path, made) = (&path, &made);
            scope.spawn(move || {
                block_on(async {
                    let ledger = open(path).await.unwrap();
                    let payer = PayerId::from_bytes([payer; 32]);
                    fund(&ledger, &payer, usd!("5")).await.unwrap();
                    made.store(true, Ordering::SeqCst);
                });
            });
        }
    });
    let payers = block_on(async { open(&path).await.unwrap().payers().await.unwrap() });
    assert_eq!(payers.len(), 4);
}
