//! A small JSON file that tasks and processes share.
//!
//! A change takes the lock, reads what is there, decides, and replaces the file: written beside
//! it, synced, renamed over it, and the folder synced. It is durable when [`SharedFile::update`]
//! returns, a crash leaves the old or the new content, and a process that dies frees the lock.
//! An error leaves the old content, or, when only the last sync failed, perhaps the new one; the
//! next access reads which.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::StateError;

const FILE_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
const LOCK_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_micros(500);
/// How long a process leaves the lock alone after it had it. Longer than [`POLL`], so that a busy
/// process does not starve another one.
const PAUSE: Duration = Duration::from_millis(1);

/// A value of type `T` in a file, or in memory alone. The file is `{"schema": .., ..T}`; `T`
/// must serialize the same value to the same bytes, so its maps are ordered.
pub(crate) struct SharedFile<T> {
    place: Option<Place>,
    /// Whoever reads or changes the file has the turn of its process.
    turn: Mutex<Turn>,
    /// The content as this process last saw it.
    known: Mutex<Arc<T>>,
}

struct Place {
    path: PathBuf,
    schema: u32,
}

#[derive(Default)]
struct Turn {
    /// The file that `known` was read from or written to; `None` when there was none.
    seen: Option<Seen>,
    released: Option<Instant>,
}

struct Seen {
    stamp: Stamp,
    /// While it is open, its inode is not given to another file.
    _file: File,
    /// `known`, serialized.
    json: Vec<u8>,
}

/// What tells a file from the one that was seen. `None` where the system has nothing that does:
/// there it is read at every access.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl<T> SharedFile<T>
where
    T: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// A value that only this process knows.
    pub(crate) fn in_memory() -> SharedFile<T> {
        SharedFile { place: None, turn: Mutex::default(), known: Mutex::default() }
    }

    /// The value in the file at `path`, the default if there is no file.
    pub(crate) fn open(path: &Path, schema: u32) -> Result<SharedFile<T>, StateError> {
        let path = resolved(path).map_err(|source| failed(path, source))?;
        let place = Place { path, schema };
        place.lock_file().map_err(|source| failed(&place.path, source))?;
        let file = SharedFile { place: Some(place), ..SharedFile::in_memory() };
        file.read()?;
        Ok(file)
    }

    /// The content as this process last saw it, without I/O.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let known = Arc::clone(&lock(&self.known));
        look(&known)
    }

    /// The content as it is. Blocks.
    pub(crate) fn read(&self) -> Result<T, StateError> {
        let mut turn = lock(&self.turn);
        if let Some(place) = &self.place {
            self.refresh(place, &mut turn)?;
        }
        Ok(self.with(T::clone))
    }

    /// Changes the content in one step, which no task and no process can come between. Blocks,
    /// about ten seconds at most if another process does not give the lock back.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, StateError> {
        let started = Instant::now();
        let mut turn = lock(&self.turn);
        let Some(place) = &self.place else {
            let mut content = self.with(T::clone);
            let result = change(&mut content);
            *lock(&self.known) = Arc::new(content);
            return Ok(result);
        };
        if let Some(released) = turn.released {
            sleep(PAUSE.saturating_sub(released.elapsed()));
        }
        let locked = place.lock(started)?;
        let result = self.change(place, &mut turn, change);
        drop(locked);
        turn.released = Some(Instant::now());
        result
    }

    /// Changes the content in memory only, until it is read again or written with the next
    /// change.
    pub(crate) fn change_in_memory(&self, change: impl FnOnce(&mut T)) {
        let _turn = lock(&self.turn);
        let mut content = self.with(T::clone);
        change(&mut content);
        *lock(&self.known) = Arc::new(content);
    }

    /// The same as [`SharedFile::update`] from a task. It goes on to the end when its future is dropped.
    pub(crate) async fn update_async<R: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, StateError> {
        if self.place.is_none() {
            return self.update(change);
        }
        let file = Arc::clone(self);
        blocking(move || file.update(change)).await
    }

    /// [`SharedFile::read`] from a task.
    pub(crate) async fn read_async(self: &Arc<Self>) -> Result<T, StateError> {
        let file = Arc::clone(self);
        blocking(move || file.read()).await
    }

    fn change<R>(
        &self,
        place: &Place,
        turn: &mut Turn,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, StateError> {
        self.refresh(place, turn)?;
        let mut content = self.with(T::clone);
        let before = match &turn.seen {
            Some(seen) => &seen.json,
            None => &place.encode(&content)?,
        };
        let result = change(&mut content);
        let json = place.encode(&content)?;
        if json != *before {
            let file = place.replace(&json).map_err(|source| failed(&place.path, source))?;
            let stamp = file.metadata().ok().and_then(|metadata| stamp(&metadata));
            turn.seen = Some(Seen { stamp, _file: file, json });
            *lock(&self.known) = Arc::new(content);
        }
        Ok(result)
    }

    /// Reads the file again unless it is the one that was last seen.
    fn refresh(&self, place: &Place, turn: &mut Turn) -> Result<(), StateError> {
        let failed = |source| failed(&place.path, source);
        match fs::metadata(&place.path) {
            // A running agent does not forget what it spent because a file was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && turn.seen.is_none() => {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
            Ok(metadata) if !metadata.is_file() => {
                return Err(StateError::Malformed(place.path.clone()));
            }
            Ok(metadata) => {
                let there = stamp(&metadata);
                if there.is_some() && turn.seen.as_ref().is_some_and(|seen| seen.stamp == there) {
                    return Ok(());
                }
            }
        }
        let file = File::open(&place.path).map_err(failed)?;
        let stamp = stamp(&file.metadata().map_err(failed)?);
        let mut json = Vec::new();
        (&file).take(FILE_BYTES_MAX + 1).read_to_end(&mut json).map_err(failed)?;
        let content = match decode::<T>(place.schema, &json) {
            Some(content) if json.len() as u64 <= FILE_BYTES_MAX => content,
            _ => return Err(StateError::Malformed(place.path.clone())),
        };
        turn.seen = Some(Seen { stamp, _file: file, json: place.encode(&content)? });
        *lock(&self.known) = Arc::new(content);
        Ok(())
    }
}

#[cfg(unix)]
fn stamp(of: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    Some((of.dev(), of.ino(), of.mtime(), of.mtime_nsec(), of.len()))
}

#[cfg(not(unix))]
fn stamp(_: &fs::Metadata) -> Stamp {
    None
}

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    schema: u32,
    #[serde(flatten)]
    content: T,
}

/// The JSON of `content`.
pub(crate) fn encode<T: Serialize>(schema: u32, content: &T) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Stored { schema, content })
}

/// What this JSON holds; `None` if that is something else, or of another schema.
pub(crate) fn decode<T: DeserializeOwned>(schema: u32, json: &[u8]) -> Option<T> {
    let stored: Stored<T> = serde_json::from_slice(json).ok()?;
    (stored.schema == schema).then_some(stored.content)
}

impl Place {
    fn encode<T: Serialize>(&self, content: &T) -> Result<Vec<u8>, StateError> {
        let json = encode(self.schema, content);
        let json = json.map_err(|error| failed(&self.path, error.into()))?;
        if json.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(&self.path, io::ErrorKind::FileTooLarge.into()));
        }
        Ok(json)
    }

    /// The lock is a file of its own, because the other one is replaced at every change.
    fn lock_file(&self) -> io::Result<File> {
        private().create(true).truncate(false).open(beside(&self.path, ".lock"))
    }

    /// Waits for the lock until [`LOCK_WAIT`] after `started`, and tries at least once.
    fn lock(&self, started: Instant) -> Result<Locked, StateError> {
        let failed = |source| failed(&self.path, source);
        loop {
            // Opened each time: somebody may have removed it, and made two of it for ever.
            let file = self.lock_file().map_err(failed)?;
            match file.try_lock() {
                Ok(()) => return Ok(Locked(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            if started.elapsed() > LOCK_WAIT {
                return Err(StateError::Locked(self.path.clone()));
            }
            sleep(POLL);
        }
    }

    fn replace(&self, json: &[u8]) -> io::Result<File> {
        let temporary = beside(&self.path, ".tmp");
        let file = write_new(&temporary, json);
        let file = file.and_then(|file| fs::rename(&temporary, &self.path).map(|()| file));
        if file.is_err() {
            // What was written may have filled the disk.
            let _ = fs::remove_file(&temporary);
        }
        let file = file?;
        // The rename itself is durable once the directory is.
        #[cfg(unix)]
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(file)
    }
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StateError> + Send + 'static,
) -> Result<R, StateError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StateError::Interrupted),
        },
    }
}

/// The lock, held until this is dropped. A child process that was just forked may have the file
/// open for a moment longer, so closing it would not be enough.
pub(crate) struct Locked(File);

impl Locked {
    /// Locks `file`, unless somebody has locked it.
    pub(crate) fn try_new(file: File) -> io::Result<Option<Locked>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Locked(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // It is unlocked at the latest when it is closed.
        let _ = self.0.unlock();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(path: &Path, source: io::Error) -> StateError {
    StateError::Io { path: path.to_owned(), source }
}

/// One file has one path, so that it has one lock, whatever links lead to it.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match fs::canonicalize(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error);
            };
            Ok(fs::canonicalize(folder)?.join(name))
        }
        real => real,
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    // What a crash left behind may have other permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A file that only its owner can read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use tempfile::TempDir;

    use super::*;
    use crate::processes::{Process, errand, say};

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Count {
        count: u32,
    }

    fn in_folder() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("count.json");
        (folder, path)
    }

    fn open(path: &Path) -> SharedFile<Count> {
        SharedFile::open(path, 1).unwrap()
    }

    fn add_one(count: &mut Count) -> u32 {
        count.count += 1;
        count.count
    }

    #[test]
    fn every_change_is_made_on_the_last_one() {
        let (_folder, path) = in_folder();
        // All contents have the same length, and follow one another in no time.
        open(&path).update(|count| count.count = 1_000).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let file = open(&path);
                    for _ in 0..200 {
                        file.update(add_one).unwrap();
                    }
                });
            }
        });
        let file = open(&path);
        assert_eq!(
            (file.read().unwrap(), file.with(|count| count.count)),
            (Count { count: 1_800 }, 1_800)
        );
    }

    #[test]
    fn a_new_file_in_the_place_and_at_the_time_of_the_last_one_is_read() {
        let (_folder, path) = in_folder();
        let (one, other) = (open(&path), open(&path));
        for count in 0..10 {
            other.update(|content| content.count = 1_000 + 2 * count).unwrap();
            one.read().unwrap();
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            // The second file would get the inode that the first one set free.
            other.update(add_one).unwrap();
            let last = other.update(add_one).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            assert_eq!(one.read().unwrap(), Count { count: last });
        }
    }

    #[test]
    fn a_look_without_io_is_as_old_as_the_last_access() {
        let (_folder, path) = in_folder();
        let (one, other) = (open(&path), open(&path));
        assert_eq!(one.update(add_one).unwrap(), 1);
        assert_eq!(other.with(Count::clone), Count { count: 0 });
        assert_eq!(other.read().unwrap(), Count { count: 1 });
        assert_eq!(other.with(Count::clone), Count { count: 1 });
    }

    #[test]
    fn what_changes_nothing_is_not_written() {
        let (_folder, path) = in_folder();
        let file = open(&path);
        file.update(|_| ()).unwrap();
        assert!(!path.exists());
        file.update(add_one).unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        file.update(|_| ()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"schema":1,"count":1}"#);
    }

    #[test]
    fn a_panic_changes_nothing_and_frees_the_lock() {
        let (_folder, path) = in_folder();
        for file in [SharedFile::in_memory(), open(&path)] {
            file.update(add_one).unwrap();
            let panicking = AssertUnwindSafe(|| {
                file.update(|count| {
                    add_one(count);
                    panic!("in the middle");
                })
            });
            assert!(catch_unwind(panicking).is_err());
            assert_eq!(file.with(Count::clone), Count { count: 1 });
            assert_eq!(file.update(add_one).unwrap(), 2);
        }
        assert_eq!(open(&path).update(add_one).unwrap(), 3);
    }

    #[test]
    fn a_process_that_dies_frees_the_lock() {
        if let Some(path) = errand() {
            open(Path::new(&path))
                .update(|count| {
                    add_one(count);
                    say("locked");
                    thread::park();
                })
                .unwrap();
        }
        let (_folder, path) = in_folder();
        let test = "file::tests::a_process_that_dies_frees_the_lock";
        let mut process = Process::send(test, path.to_str().unwrap());
        assert_eq!(process.hear().as_deref(), Some("locked"));
        let waiting = thread::spawn(move || open(&path).update(add_one));
        thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished(), "it waits");
        process.kill();
        assert_eq!(waiting.join().unwrap().unwrap(), 1, "what died has changed nothing");
    }

    #[test]
    fn nobody_waits_for_a_lock_for_ever() {
        let (_folder, path) = in_folder();
        let (one, other) = (open(&path), open(&path));
        thread::scope(|scope| {
            one.update(|_| {
                // Those of one process wait together, not one after another.
                let wait = || {
                    let started = Instant::now();
                    (other.update(add_one), started.elapsed())
                };
                let waiting: Vec<_> = (0..4).map(|_| scope.spawn(wait)).collect();
                for waited in waiting {
                    let (result, waited) = waited.join().unwrap();
                    assert!(matches!(result, Err(StateError::Locked(_))), "{result:?}");
                    assert!((LOCK_WAIT..LOCK_WAIT * 2).contains(&waited), "{waited:?}");
                }
            })
            .unwrap();
        });
        assert_eq!(other.update(add_one).unwrap(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn whoever_waits_for_a_lock_that_was_removed_takes_the_new_one() {
        let (_folder, path) = in_folder();
        let (one, other) = (open(&path), open(&path));
        let lock = beside(&path, ".lock");
        one.update(add_one).unwrap();
        let held = one.place.as_ref().unwrap().lock_file().unwrap();
        held.lock().unwrap();
        thread::scope(|scope| {
            // It waits for a lock that is about to be another one.
            let waiting = scope.spawn(|| other.update(add_one));
            thread::sleep(Duration::from_millis(50));
            fs::remove_file(&lock).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), 2);
        });
        assert_eq!(one.update(add_one).unwrap(), 3);
    }

    #[tokio::test]
    async fn a_change_whose_task_is_gone_is_made_to_the_end() {
        let (_folder, path) = in_folder();
        let file = Arc::new(open(&path));
        let (started, release) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let (set_started, set_release) = (started.0, release.0);
        let change = file.update_async(move |count| {
            set_started.send(()).unwrap();
            release.1.recv().unwrap();
            add_one(count)
        });
        let dropped = tokio::time::timeout(Duration::from_millis(50), change).await;
        assert!(dropped.is_err());
        started.1.recv().unwrap();
        set_release.send(()).unwrap();
        assert_eq!(file.read_async().await.unwrap(), Count { count: 1 });
    }

    #[tokio::test]
    #[should_panic(expected = "in the middle")]
    async fn a_panic_reaches_whoever_asked_for_the_change() {
        let (_folder, path) = in_folder();
        let _ = Arc::new(open(&path)).update_async(|_| panic!("in the middle")).await;
    }
}
