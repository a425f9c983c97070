//! Opening the file: who may, and what an older version left in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    TableError, TableHandle as _, WriteTransaction,
};

use super::Fault;
use super::rows::{self, DUE, ENTRIES, FIRST, HEADS, META};
use crate::book::{Entry, EntryId, Observation, TopUp, TopUpState};
use crate::store::{FirstRecord, OpenError, SCHEMA, sync_folder};
use farebox_protocol::TopUpId;

/// How long a start waits for another process to let go of the file.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Opens the file, alone. `make`: a file that is not there is made.
pub(super) async fn lock(path: &Path, make: bool) -> Result<Database, OpenError> {
    let mut waited = Duration::ZERO;
    loop {
        let owned: PathBuf = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || match make {
            true => create(&owned),
            false => Database::open(&owned),
        });
        return match opened.await {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) if waited < LOCK_WAIT => {
                tokio::time::sleep(LOCK_POLL).await;
                waited += LOCK_POLL;
                continue;
            }
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                Err(OpenError::Locked(path.display().to_string()))
            }
            Ok(Err(error)) => Err(unusable(&path.display().to_string(), &error)),
            // The database panics on some damage.
            Err(_) => Err(unusable(&path.display().to_string(), &"it is damaged")),
        };
    }
}

pub(super) fn unusable(path: &str, reason: &(impl std::fmt::Display + ?Sized)) -> OpenError {
    OpenError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Opens the file, or makes one that only its owner can read: the PaymentMethods in it can spend.
fn create(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.open(path).map_err(redb::StorageError::Io)?);
    let db = Database::create(path)?;
    sync_folder(path).map_err(redb::StorageError::Io)?;
    Ok(db)
}

/// Compares the first record with `expected`, makes what is missing, and brings an older ledger
/// to this version's schema: all of it in one transaction, or nothing.
pub(super) fn prepare(
    db: &Database,
    path: &str,
    expected: Option<&FirstRecord>,
) -> Result<FirstRecord, OpenError> {
    let fault = |error: Fault| unusable(path, &*error);
    let found = read_first(db).map_err(fault)?;
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
    prepare().map_err(fault)?;
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
        for row in old.iter()? {
            let (id, row) = row?;
            let id: TopUpId = id.value().parse()?;
            let mut top_up: TopUp = serde_json::from_slice(row.value())?;
            if matches!(top_up.state, TopUpState::Succeeded { .. }) {
                top_up.history = vec![Observation { at: top_up.opened, totals: top_up.totals }];
            }
            let entry_id = EntryId::TopUp(id.currency, id.number);
            let Some(key) = rows::entry_key(&id.payer, entry_id) else { continue };
            entries.insert(key.as_slice(), &*serde_json::to_vec(&Entry::from(top_up))?)?;
        }
    }
    transaction.delete_table(TOP_UPS_1)?;
    Ok(())
}
