//! Opening the file: who may, and what an older version left in it.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition, TableError, TableHandle as _, WriteTransaction,
};

use super::draft::Draft;
use super::rows::{self, DUE, ENTRIES, FIRST, HEADS, META};
use super::{Fault, caught};
use crate::book::{Entry, EntryId, Observation, TopUp, TopUpState};
use crate::store::{FirstRecord, OpenError, SCHEMA, sync_folder};
use farebox_protocol::TopUpId;

/// How long a start waits for another process to let go of the file.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(100);
/// What of the file is held in memory while it is examined.
const EXAMINE_CACHE_BYTES: usize = 64 << 20;

/// The open file. Closing it writes, and may panic on damage.
pub(super) struct File(Option<Database>);

impl File {
    pub(super) fn new(db: Database) -> File {
        File(Some(db))
    }
}

impl Deref for File {
    type Target = Database;

    #[expect(clippy::expect_used, reason = "only Drop takes it")]
    fn deref(&self) -> &Database {
        self.0.as_ref().expect("an open file")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let db = self.0.take();
        let _ = caught(|| {
            drop(db);
            Ok(())
        });
    }
}

/// Opens the file, alone. `make`: a file that is not there is made.
pub(super) async fn lock(path: &Path, make: bool) -> Result<File, OpenError> {
    let mut waited = Duration::ZERO;
    let name = path.display().to_string();
    loop {
        let owned: PathBuf = path.to_owned();
        let open = move || caught(|| open(&owned, make).map_err(Fault::from));
        let error = match tokio::task::spawn_blocking(open).await {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        if !matches!(error.downcast_ref(), Some(DatabaseError::DatabaseAlreadyOpen)) {
            return Err(unusable(&name, &reason(&error)));
        }
        if waited >= LOCK_WAIT {
            return Err(OpenError::Locked(name));
        }
        tokio::time::sleep(LOCK_POLL).await;
        waited += LOCK_POLL;
    }
}

/// What is wrong with the file, in words for its operator.
fn reason(error: &Fault) -> String {
    match error.downcast_ref() {
        Some(DatabaseError::Storage(StorageError::Io(error))) => match error.kind() {
            ErrorKind::InvalidData => "it is not a ledger".to_owned(),
            _ => error.to_string(),
        },
        Some(DatabaseError::Storage(StorageError::Corrupted(what))) => {
            format!("it is damaged, restore a backup ({what})")
        }
        _ => error.to_string(),
    }
}

pub(super) fn unusable(path: &str, reason: &(impl std::fmt::Display + ?Sized)) -> OpenError {
    OpenError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Opens the file, whole, or makes one that only its owner can read: the PaymentMethods in it can
/// spend.
fn open(path: &Path, make: bool) -> Result<File, DatabaseError> {
    let io = |error| DatabaseError::from(StorageError::Io(error));
    if make && !path.try_exists().map_err(io)? {
        create(path)?;
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() > 0 {
        examine(file)?;
    }
    match make {
        true => Database::create(path), // also in a file that is empty
        false => Database::open(path),
    }
    .map(File::new)
}

/// Makes a new file beside its place, and puts it there whole: a crash leaves no half of one.
fn create(path: &Path) -> Result<(), DatabaseError> {
    let io = |error| DatabaseError::from(StorageError::Io(error));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Another process, or another task of this one, may be making one too.
    static MADE: AtomicUsize = AtomicUsize::new(0);
    name.push(format!(".{}-{}.new", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    let new = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(&new).map_err(io)?);
    drop(Database::create(&new)?);
    // A link, because it never takes the place of a file that another process made meanwhile.
    let placed = match fs::hard_link(&new, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(_) => return fs::rename(&new, path).and_then(|()| sync_folder(path)).map_err(io),
        Ok(()) => Ok(()),
    };
    let removed = fs::remove_file(&new);
    placed.and(removed).and_then(|()| sync_folder(path)).map_err(io)
}

/// Reads the file from end to end and compares its checksums, without writing to it: the database
/// would mend a damaged file by going back to what it was before the last change.
fn examine(file: fs::File) -> Result<(), DatabaseError> {
    let opened = Database::builder()
        .set_cache_size(EXAMINE_CACHE_BYTES)
        // After a crash, opening compares the checksums, and has when it is past its first half.
        .set_repair_callback(|repair| {
            if repair.progress() > 0.5 {
                repair.abort();
            }
        })
        .create_with_backend(Draft::of(FileBackend::new(file)?)?);
    match opened {
        Err(DatabaseError::RepairAborted) => Ok(()),
        Err(error) => Err(error),
        Ok(mut db) => match db.check_integrity()? {
            true => Ok(()),
            false => Err(StorageError::Corrupted("a checksum is wrong".to_owned()).into()),
        },
    }
}

/// Compares the first record with `expected`, makes what is missing, and brings an older ledger
/// to this version's schema: all of it in one transaction, or nothing.
pub(super) fn prepare(
    db: &Database,
    path: &str,
    expected: Option<&FirstRecord>,
) -> Result<FirstRecord, OpenError> {
    let fault = |error: Fault| unusable(path, &*error);
    let found = caught(|| read_first(db)).map_err(fault)?;
    let first = match (found.as_ref(), expected) {
        (Some(found), expected) => found.accept(expected)?,
        (None, Some(expected)) => expected.clone(),
        (None, None) => return Err(unusable(path, "it is not a ledger")),
    };
    let prepare = || -> Result<(), Fault> {
        let transaction = db.begin_write()?;
        transaction.open_table(HEADS)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(DUE)?;
        if found.is_some_and(|found| found.schema() < SCHEMA) {
            migrate(&transaction)?;
        }
        transaction.open_table(META)?.insert(FIRST, &*serde_json::to_vec(&first)?)?;
        transaction.commit()?;
        Ok(())
    };
    caught(prepare).map_err(fault)?;
    Ok(first)
}

fn read_first(db: &Database) -> Result<Option<FirstRecord>, Fault> {
    let meta = match db.begin_read()?.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let value = meta.get(FIRST)?;
    Ok(value.map(|bytes| serde_json::from_slice(bytes.value())).transpose()?)
}

/// Where schema 1 kept top-ups, by their id as text.
const TOP_UPS_1: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("top_ups");

/// From schema 1: top-ups move to the other entries, and remember what was observed.
fn migrate(transaction: &WriteTransaction) -> Result<(), Fault> {
    if !transaction.list_tables()?.any(|table| table.name() == TOP_UPS_1.name()) {
        return Ok(());
    }
    {
        let old = transaction.open_table(TOP_UPS_1)?;
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut due = transaction.open_table(DUE)?;
        for row in old.iter()? {
            let (id, row) = row?;
            let id: TopUpId = id.value().parse()?;
            let mut top_up: TopUp = serde_json::from_slice(row.value())?;
            if matches!(top_up.state, TopUpState::Succeeded { .. }) {
                top_up.history = vec![Observation { at: top_up.opened, totals: top_up.totals }];
            }
            let entry_id = EntryId::TopUp(id.currency, id.number);
            let Some(key) = rows::entry_key(&id.payer, entry_id) else { continue };
            let entry = Entry::from(top_up);
            entries.insert(key.as_slice(), &*serde_json::to_vec(&entry)?)?;
            if let Some(key) = rows::due_key(&id.payer, entry_id, &entry) {
                due.insert(key.as_slice(), [].as_slice())?;
            }
        }
    }
    transaction.delete_table(TOP_UPS_1)?;
    Ok(())
}
