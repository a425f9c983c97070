//! `canary FOLDER [TARGET...]`: searches all files of a folder for secrets.
//!
//! Exit status: 0 nothing was found, 1 a secret was, 2 it could not look, or one of the targets
//! logged nothing, so that nothing was to be found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use farebox_canary::{Kind, hits};

/// So much of a line is shown.
const SHOWN: usize = 300;
/// So many lines of a kind and a file are shown.
const LINES_MAX: usize = 3;
/// What programs print for whoever starts them: the keys of a sandbox, and the books in a backup.
const PRINTED: [&str; 4] =
    ["STRIPE_SECRET_KEY=", "STRIPE_PUBLISHABLE_KEY=", "STRIPE_WEBHOOK_SECRET=", "{\"payer\":"];

#[derive(Default)]
struct Search {
    files: usize,
    bytes: u64,
    wanted: BTreeSet<String>,
    found: BTreeMap<Kind, usize>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: canary FOLDER [TARGET...]");
        return ExitCode::from(2);
    };
    let wanted = arguments.map(|target| target.to_string_lossy().into_owned()).collect();
    let mut search = Search { wanted, ..Search::default() };
    if let Err(error) = search.folder(&folder) {
        eprintln!("canary: {}: {error}", folder.display());
        return ExitCode::from(2);
    }
    println!("{} files, {} MB", search.files, search.bytes / 1_000_000);
    for (kind, lines) in &search.found {
        println!("{kind}: {lines} lines");
    }
    match (search.found.is_empty(), search.wanted.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => {
            println!("nothing was logged by {:?}", search.wanted);
            ExitCode::from(2)
        }
        (true, true) => {
            println!("no secret was found");
            ExitCode::SUCCESS
        }
    }
}

impl Search {
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        let entries: io::Result<Vec<_>> = folder.read_dir()?.collect();
        let mut paths: Vec<_> = entries?.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() { self.folder(&path)? } else { self.file(&path)? }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
        let (mut line, mut number) = (Vec::new(), 0);
        let mut shown: BTreeMap<Kind, usize> = BTreeMap::new();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        while reader.read_until(b'\n', &mut line)? > 0 {
            number += 1;
            self.bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
            if is_log {
                self.see(&line);
            }
            let kinds = if !is_log && is_printed(&line) { BTreeSet::new() } else { hits(&line) };
            for kind in kinds {
                *self.found.entry(kind).or_default() += 1;
                let shown = shown.entry(kind).or_default();
                *shown += 1;
                if *shown <= LINES_MAX {
                    let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
                    println!("{}:{number}: {kind}: {}", path.display(), text.trim_end());
                }
            }
            line.clear();
        }
        self.files += 1;
        Ok(())
    }

    /// Strikes out a target that logged something.
    fn see(&mut self, line: &[u8]) {
        if self.wanted.is_empty() {
            return;
        }
        let head = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
        self.wanted.retain(|target| {
            !head.contains(&format!(" {target}::")) && !head.contains(&format!(" {target}:"))
        });
    }
}

fn is_printed(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_start();
    let text = text.strip_prefix("export ").unwrap_or(text);
    PRINTED.iter().any(|name| text.starts_with(name))
}
