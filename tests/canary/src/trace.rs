//! Everything that a process logs, in a file of its own.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{self, Output, Stdio};
use std::sync::{Mutex, Once};

use log::{LevelFilter, Log, Metadata, Record};
use tracing::Level;

/// The folder that everything goes to; without it nothing is written.
const FOLDER: &str = "FAREBOX_TRACE";

/// Writes what this process logs from here on, at every level and through `tracing` and `log`, to
/// `<pid>.log` in the folder that `FAREBOX_TRACE` names. Does nothing without it, or the second time.
///
/// # Panics
///
/// If the file cannot be written, or if somebody else collects the logs of this process.
pub fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let Some(path) = path("log") else { return };
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .with_writer(Mutex::new(append(&path)))
            .finish();
        if tracing::subscriber::set_global_default(subscriber).is_err() {
            panic!("somebody else collects the logs of this process");
        }
        log::set_max_level(LevelFilter::Trace);
        if log::set_boxed_logger(Box::new(Lines(Mutex::new(append(&path))))).is_err() {
            panic!("somebody else collects the logs of this process");
        }
    });
}

/// Where a program that a test starts may write its errors: to the same folder, or nowhere.
pub fn stderr() -> Stdio {
    path("err").map_or_else(Stdio::null, |path| append(&path).into())
}

/// Keeps what a program printed that a test ran.
pub fn keep(output: &Output) {
    if let Some(path) = path("out") {
        let mut file = append(&path);
        let both = [output.stdout.as_slice(), &output.stderr, b"\n"].concat();
        assert!(file.write_all(&both).is_ok(), "what a program printed is not written");
    }
}

fn path(kind: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(FOLDER)?);
    Some(folder.join(format!("{}.{kind}", process::id())))
}

fn append(path: &Path) -> File {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What comes through `log`: reqwest, rustls, mio.
struct Lines(Mutex<File>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}: {}\n", record.level(), record.target(), record.args());
        if let Ok(mut file) = self.0.lock() {
            // A full disk is found by the search: it counts what was written.
            let _ = file.write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
