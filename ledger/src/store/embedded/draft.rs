//! A file that is read, and whose changes are forgotten.

use std::collections::HashMap;
use std::fmt;
use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend, StorageError};

const BLOCK: usize = 4_096;

/// A file that is read, and whose changes are forgotten.
pub(super) struct Draft {
    file: FileBackend,
    changes: Mutex<Changes>,
}

struct Changes {
    len: u64,
    /// How much of the file is still seen.
    file: u64,
    blocks: HashMap<u64, [u8; BLOCK]>,
}

impl Draft {
    pub(super) fn of(file: FileBackend) -> Result<Draft, DatabaseError> {
        let len = file.len().map_err(StorageError::Io)?;
        Ok(Draft { file, changes: Mutex::new(Changes { len, file: len, blocks: HashMap::new() }) })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of a block as it is now.
    fn read_part(&self, changes: &Changes, part: &Part, out: &mut [u8]) -> Result<(), Error> {
        if let Some(block) = changes.blocks.get(&part.block) {
            out.copy_from_slice(&block[part.from..part.from + part.len]);
            return Ok(());
        }
        out.fill(0);
        let start = part.block * BLOCK as u64 + part.from as u64;
        let there = usize::try_from(changes.file.saturating_sub(start)).unwrap_or(usize::MAX);
        self.file.read(start, &mut out[..part.len.min(there)])
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draft(..)")
    }
}

/// A part of one block.
struct Part {
    block: u64,
    from: usize,
    len: usize,
}

/// The blocks of a range of bytes.
fn parts(mut at: u64, mut left: usize) -> impl Iterator<Item = Part> {
    std::iter::from_fn(move || {
        let from = usize::try_from(at % BLOCK as u64).ok().filter(|_| left > 0)?;
        let len = left.min(BLOCK - from);
        let part = Part { block: at / BLOCK as u64, from, len };
        (at, left) = (at + len as u64, left - len);
        Some(part)
    })
}

impl StorageBackend for Draft {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.changes().len)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> Result<(), Error> {
        let changes = self.changes();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > changes.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for part in parts(offset, out.len()) {
            let (head, rest) = out.split_at_mut(part.len);
            self.read_part(&changes, &part, head)?;
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut changes = self.changes();
        changes.len = len;
        changes.file = changes.file.min(len);
        changes.blocks.retain(|block, _| block * (BLOCK as u64) < len);
        let (block, kept) = (len / BLOCK as u64, usize::try_from(len % BLOCK as u64));
        if let (Some(block), Ok(kept)) = (changes.blocks.get_mut(&block), kept) {
            block[kept..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> Result<(), Error> {
        let mut changes = self.changes();
        for part in parts(offset, data.len()) {
            let mut bytes = [0; BLOCK];
            let whole = Part { block: part.block, from: 0, len: BLOCK };
            self.read_part(&changes, &whole, &mut bytes)?;
            let (head, rest) = data.split_at(part.len);
            bytes[part.from..part.from + part.len].copy_from_slice(head);
            changes.blocks.insert(part.block, bytes);
            data = rest;
        }
        Ok(())
    }

    fn close(&self) -> Result<(), Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
