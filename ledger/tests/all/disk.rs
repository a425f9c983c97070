//! A disk that tests can look into: it records what is done to it, it fails, and it is slow.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redb::StorageBackend;

/// One operation on a disk.
#[derive(Clone)]
pub(crate) enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    log: Option<Vec<Op>>,
    operations: u64,
    syncs: u64,
    failure: Option<Failure>,
    slow: Duration,
    users: usize,
}

/// When a disk fails, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) at: u64,
    pub(crate) error: ErrorKind,
    /// Whether every later operation fails too.
    pub(crate) stays: bool,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(crate) fn with(bytes: Vec<u8>) -> Disk {
        let disk = Disk::default();
        disk.state().bytes = bytes;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The storage of a database on this disk.
    pub(crate) fn storage(&self) -> Storage {
        self.state().users += 1;
        Storage(self.clone())
    }

    /// Waits until no database uses it.
    pub(crate) fn wait(&self) {
        let since = Instant::now();
        while self.state().users > 0 {
            assert!(since.elapsed() < Duration::from_secs(30), "the disk is still in use");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub(crate) fn record(&self) {
        self.state().log = Some(Vec::new());
    }

    pub(crate) fn log(&self) -> Vec<Op> {
        self.state().log.clone().unwrap_or_default()
    }

    /// How many operations were recorded.
    pub(crate) fn recorded(&self) -> usize {
        self.state().log.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(crate) fn fail(&self, failure: Failure) {
        self.state().failure = Some(failure);
    }

    pub(crate) fn slow(&self, each_sync: Duration) {
        self.state().slow = each_sync;
    }

    fn operate(&self, op: impl FnOnce() -> Op) -> Result<(), Error> {
        let mut state = self.state();
        state.operations += 1;
        if let Some(failure) = state.failure {
            let now = state.operations;
            if now == failure.at || (failure.stays && now > failure.at) {
                return Err(failure.error.into());
            }
        }
        let op = op();
        apply(&mut state.bytes, &op);
        state.syncs += u64::from(matches!(op, Op::Sync));
        if let Some(log) = &mut state.log {
            log.push(op);
        }
        Ok(())
    }
}

/// Does one operation.
pub(crate) fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            // What was cut off and is written again, in an image that reorders.
            bytes.resize(bytes.len().max(start + data.len()), 0);
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Op::SetLen(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
        Op::Sync => {}
    }
}

pub(crate) struct Storage(Disk);

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Storage(..)")
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.0.state().users -= 1;
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let state = self.0.state();
        let start = usize::try_from(offset).unwrap();
        let bytes = state.bytes.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.0.operate(|| Op::SetLen(len))
    }

    fn sync_data(&self) -> Result<(), Error> {
        let slow = self.0.state().slow;
        std::thread::sleep(slow);
        self.0.operate(|| Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.0.operate(|| Op::Write(offset, data.to_vec()))
    }
}

/// Random numbers that a seed repeats: splitmix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}
