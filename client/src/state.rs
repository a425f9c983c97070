//! What an agent knows, in memory or in a file that several processes share, and the turns of its
//! origins.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farebox_protocol::{ErrorCode, Money};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use crate::books::{Books, Glimpse};
use crate::error::StateError;
use crate::file::{Locked, SharedFile, beside, private};
use crate::origin::Origin;

const SCHEMA: u32 = 2;
const GATES_MAX: usize = 1_024;
/// How often a process looks whether another one is done paying an origin.
const TURN_POLL: Duration = Duration::from_millis(20);

/// What an agent knows, shared by all its clients.
pub(crate) struct State {
    books: Arc<SharedFile<Books>>,
    /// Where the locks of origins are; `None` without a file.
    turns: Option<PathBuf>,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    /// How many payments by card were sent and how many answered, at all origins together. Who
    /// has seen this many has news of an origin whose last one has a higher number.
    sent: AtomicU64,
}

/// Lets one payment at a time go to an origin, and tells the others what became of it.
#[derive(Default)]
pub(crate) struct Gate {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The number of the last payment that was sent or answered.
    sent: AtomicU64,
    last: Mutex<Last>,
}

/// What the last answers of an origin said, to this process.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    refused: Option<ErrorCode>,
    remaining: Option<Money>,
    /// A top-up ahead of need did not come about at this time.
    unwanted_at: Option<i64>,
    /// Paid requests that were sent, and those of them that are not answered.
    started: u64,
    open: u64,
}

/// A paid request that is under way.
pub(crate) struct Flight {
    gate: Arc<Gate>,
    /// Its number, if no other one was under way when it began.
    alone: Option<u64>,
}

/// The right to pay an origin: of this task in its process, and of its process among others that
/// use the same state.
pub(crate) struct Turn {
    _here: OwnedMutexGuard<()>,
    _among_processes: Option<Locked>,
}

impl Gate {
    /// Whether a payment was sent or answered after so many of all origins.
    pub(crate) fn sent_since(&self, seen: u64) -> bool {
        self.sent.load(Ordering::Acquire) > seen
    }

    /// How the last payment was refused, if it was.
    pub(crate) fn refused(&self) -> Option<ErrorCode> {
        self.last().refused
    }

    pub(crate) fn set_refused(&self, code: ErrorCode) {
        self.last().refused = Some(code);
    }

    /// What could be spent there after the last answer; returns what it was before.
    pub(crate) fn set_remaining(&self, remaining: Money) -> Option<Money> {
        self.last().remaining.replace(remaining)
    }

    pub(crate) fn remaining(&self) -> Option<Money> {
        self.last().remaining
    }

    /// When a top-up ahead of need last came to nothing.
    pub(crate) fn unwanted_at(&self) -> Option<i64> {
        self.last().unwanted_at
    }

    pub(crate) fn set_unwanted(&self, now: i64) {
        self.last().unwanted_at = Some(now);
    }

    /// A paid request is sent.
    pub(crate) fn depart(self: &Arc<Self>) -> Flight {
        let mut last = self.last();
        last.started += 1;
        last.open += 1;
        let alone = (last.open == 1).then_some(last.started);
        Flight { gate: Arc::clone(self), alone }
    }

    /// Whether somebody of this process is paying.
    pub(crate) fn is_busy(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Whether no other paid request of this process was under way beside it so far. Then what
    /// the credit fell by is what it cost.
    pub(crate) fn was_alone(&self) -> bool {
        self.alone == Some(self.gate.last().started)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.gate.last().open -= 1;
    }
}

impl State {
    pub(crate) fn in_memory() -> State {
        State::new(SharedFile::in_memory(), None)
    }

    pub(crate) fn open(path: &Path) -> Result<State, StateError> {
        let books = SharedFile::open(path, SCHEMA)?;
        let turns = beside(path, ".turns");
        make_private_folder(&turns).map_err(|source| io_error(&turns, source))?;
        Ok(State::new(books, Some(turns)))
    }

    fn new(books: SharedFile<Books>, turns: Option<PathBuf>) -> State {
        let gates = Mutex::default();
        State { books: Arc::new(books), turns, gates, sent: AtomicU64::new(0) }
    }

    /// How many payments by card were sent or answered.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// A payment was sent through this gate, or answered.
    pub(crate) fn set_sent(&self, gate: &Gate) {
        gate.last().refused = None;
        let number = self.sent.fetch_add(1, Ordering::AcqRel) + 1;
        gate.sent.fetch_max(number, Ordering::AcqRel);
    }

    pub(crate) fn gate(&self, origin: &Origin) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(origin.key()) {
            return Arc::clone(gate);
        }
        if gates.len() >= GATES_MAX {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        Arc::clone(gates.entry(origin.key().to_owned()).or_default())
    }

    /// Waits for the right to pay `origin`. A process that dies gives it back.
    pub(crate) async fn turn(&self, origin: &Origin, gate: &Gate) -> Result<Turn, StateError> {
        let here = Arc::clone(&gate.turn).lock_owned().await;
        let among_processes = match &self.turns {
            None => None,
            Some(turns) => Some(lock_file(&turn_file(turns, origin)).await?),
        };
        Ok(Turn { _here: here, _among_processes: among_processes })
    }

    /// The same, if nobody is paying.
    pub(crate) fn try_turn(&self, origin: &Origin, gate: &Gate) -> Option<Turn> {
        let here = Arc::clone(&gate.turn).try_lock_owned().ok()?;
        let among_processes = match &self.turns {
            None => None,
            Some(turns) => Some(try_lock_file(&turn_file(turns, origin)).ok()??),
        };
        Some(Turn { _here: here, _among_processes: among_processes })
    }

    /// What is known of a route of `origin`, as this process last saw it.
    pub(crate) fn glimpse(&self, origin: &Origin, route: &str) -> Glimpse {
        self.books.with(|books| books.glimpse(origin, route))
    }

    /// Looks into the books as this process last saw them.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&Books) -> R) -> R {
        self.books.with(look)
    }

    /// Reads what other processes wrote.
    pub(crate) async fn refresh(&self) -> Result<(), StateError> {
        if self.turns.is_none() {
            return Ok(());
        }
        let books = Arc::clone(&self.books);
        let read = tokio::task::spawn_blocking(move || books.read().map(drop)).await;
        read.unwrap_or(Err(StateError::Interrupted))
    }

    /// Changes the books; the change is durable when this returns. It goes on to the end when its
    /// future is dropped, and changes nothing when it fails.
    pub(crate) async fn update<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Books) -> R + Send + 'static,
    ) -> Result<R, StateError> {
        self.books.update_async(change).await
    }

    /// Keeps what an answer said. The money is where it is: if the file cannot be written, the
    /// change stays in memory, and is told to the log.
    pub(crate) async fn keep(&self, change: impl Fn(&mut Books) + Clone + Send + 'static) {
        if let Err(error) = self.update(change.clone()).await {
            warn!(%error, "the state was not written");
            self.books.change_in_memory(change);
        }
    }
}

/// One lock per origin. Its name is a hash: an origin may hold what a file's name must not.
fn turn_file(turns: &Path, origin: &Origin) -> PathBuf {
    let digest = Sha256::digest(origin.key());
    let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    turns.join(name)
}

async fn lock_file(path: &Path) -> Result<Locked, StateError> {
    loop {
        match try_lock_file(path) {
            Ok(Some(locked)) => return Ok(locked),
            Ok(None) => tokio::time::sleep(TURN_POLL).await,
            Err(source) => return Err(io_error(path, source)),
        }
    }
}

fn try_lock_file(path: &Path) -> io::Result<Option<Locked>> {
    Locked::try_new(private().create(true).truncate(false).open(path)?)
}

fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn io_error(path: &Path, source: io::Error) -> StateError {
    StateError::Io { path: path.to_owned(), source }
}
