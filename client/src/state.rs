//! The books of one agent, in memory and in a file, and the turns of its origins.
//!
//! A write goes to a temporary file, is synced and then renamed over the old one: a crash leaves
//! either the old or the new books. A payment is sent only after its entry was written.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farebox_protocol::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::books::Books;
use crate::error::StateError;
use crate::origin::Origin;

const SCHEMA: u32 = 1;
const FILE_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
const GATES_MAX: usize = 1_024;

/// What an agent knows, shared by all its clients.
pub(crate) struct State {
    books: Mutex<Books>,
    file: Option<Mutex<StateFile>>,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
}

/// Lets one payment at a time go to an origin.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) turn: tokio::sync::Mutex<()>,
    sent: AtomicU64,
    last: Mutex<Option<ErrorCode>>,
}

impl Gate {
    /// How many payments were sent. Who waited for a turn while it moved has news.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(crate) fn set_sent(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.sent.fetch_add(1, Ordering::AcqRel);
    }

    /// How the last payment was refused, if it was.
    pub(crate) fn refused(&self) -> Option<ErrorCode> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_refused(&self, code: ErrorCode) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
    }
}

impl State {
    pub(crate) fn in_memory() -> State {
        State { books: Mutex::default(), file: None, gates: Mutex::default() }
    }

    pub(crate) fn open(path: &Path) -> Result<State, StateError> {
        let file = StateFile::open(path)?;
        let books = file.read()?;
        Ok(State {
            books: Mutex::new(books),
            file: Some(Mutex::new(file)),
            gates: Mutex::default(),
        })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gate(&self, origin: &Origin) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() >= GATES_MAX {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        Arc::clone(gates.entry(origin.key().to_owned()).or_default())
    }

    /// Writes the books to the file, if there is one; they are durable when this returns.
    pub(crate) async fn save(self: &Arc<Self>) -> Result<(), StateError> {
        if self.file.is_none() {
            return Ok(());
        }
        let state = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || state.write()).await;
        written.unwrap_or(Err(StateError::Interrupted))
    }

    /// The same, on this thread.
    pub(crate) fn write(&self) -> Result<(), StateError> {
        let Some(file) = &self.file else { return Ok(()) };
        // The file before the books: a later write never carries earlier books.
        let file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let json = serde_json::to_vec(&Stored { schema: SCHEMA, books: &*self.books() });
        let json = json.map_err(|error| file.failed(error.into()))?;
        file.replace(&json).map_err(|error| file.failed(error))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored<B> {
    schema: u32,
    #[serde(flatten)]
    books: B,
}

struct StateFile {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl StateFile {
    fn open(path: &Path) -> Result<StateFile, StateError> {
        let path = std::path::absolute(path)
            .map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        // The lock is a file of its own, because the state file is replaced at every write.
        let lock = private().create(true).truncate(false).open(beside(&path, ".lock"));
        let lock = lock.map_err(|source| StateError::Io { path: path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => Ok(StateFile { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(path)),
            Err(TryLockError::Error(source)) => Err(StateError::Io { path, source }),
        }
    }

    fn read(&self) -> Result<Books, StateError> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Books::default()),
            Err(error) => return Err(self.failed(error)),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return Err(StateError::Malformed(self.path.clone()));
            }
            Ok(_) => {}
        }
        let json = fs::read(&self.path).map_err(|error| self.failed(error))?;
        let stored: Result<Stored<Books>, _> = serde_json::from_slice(&json);
        match stored {
            Ok(Stored { schema: SCHEMA, books }) => Ok(books),
            _ => Err(StateError::Malformed(self.path.clone())),
        }
    }

    fn replace(&self, json: &[u8]) -> io::Result<()> {
        let temporary = beside(&self.path, ".tmp");
        // What a crash left behind may have other permissions.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).open(&temporary)?;
        file.write_all(json)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // The rename itself is durable once the directory is.
        #[cfg(unix)]
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> StateError {
        StateError::Io { path: self.path.clone(), source }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A file that only its owner can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
