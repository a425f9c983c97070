//! `farebox backup` and `farebox restore`: a ledger as a file, and a file as a new ledger.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};

use farebox_ledger::audit::Audit;
use farebox_ledger::backup::{Reader, Writer};
use farebox_ledger::clock::{Clock as _, SystemClock};
use farebox_ledger::store::sync_folder;
use farebox_ledger::{Book, Entry, Ledger, OpenError, Store as _};
use farebox_protocol::PayerId;

use crate::Fault;
use crate::source::{Place, Source, refuse_memory};
use crate::terminal::Progress;

/// How many books are written to a ledger at once: they share what the disk is waited for.
const BATCH: usize = 500;

#[derive(clap::Args)]
#[command(
    after_help = "The backup is what a crash at that moment would leave: requests in flight \
    are not in it. Of a running server (--url), each book is of one moment, all of them are not. \
    The same books are the same bytes.\n\nKeep it like the ledger itself: it holds PaymentMethods \
    that can spend. It does not hold FAREBOX_SECRET, without which no payer is found again: keep \
    that apart."
)]
pub(crate) struct Backup {
    /// Where to write it, or `-` for standard output. The file appears under its name when it is
    /// whole, for its owner only; a backup of that name gives way.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
#[command(after_help = "This is also how a ledger moves to another store: stop the server, then \
    `farebox backup --out - | farebox restore - --ledger redis://...`, and start the server on the \
    new one with the same FAREBOX_SECRET. Never run servers on both: each would spend the same \
    credit.\n\nWhat happened after the backup is not in it: what was spent since then can be \
    spent once more.")]
pub(crate) struct Restore {
    /// The backup, or `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The new ledger: `embedded:PATH` or a `redis` URL. It must not have any payers.
    #[arg(long, value_name = "LEDGER")]
    ledger: String,
}

pub(crate) async fn backup(Backup { out, place }: Backup) -> Result<(), Fault> {
    let source = place.open().await?;
    if out == Path::new("-") {
        let books = write(&source, BufWriter::new(io::stdout().lock())).await?.1;
        anstream::eprintln!("{books} books were written.");
        return Ok(());
    }
    refuse_to_replace(&out)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let unwritable =
        |error: io::Error| format!("{} cannot be written ({error}): name another", out.display());
    // Made for its owner only, and gone if anything goes wrong.
    let file = tempfile::Builder::new().prefix(".farebox-backup-").tempfile_in(folder);
    let file = file.map_err(unwritable)?;
    let written = tokio::select! {
        written = write(&source, BufWriter::new(file)) => written?,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            return Err("it was interrupted, and no backup was written: run it again".into());
        }
    };
    let file = written.0.into_inner().map_err(|error| unwritable(error.into_error()))?;
    file.as_file().sync_all().map_err(unwritable)?;
    file.persist(&out).map_err(|error| unwritable(error.error))?;
    sync_folder(&out).map_err(unwritable)?;
    anstream::eprintln!("{} books were written to {}.", written.1, out.display());
    Ok(())
}

/// Only a backup gives way to a backup: never a ledger whose name was given by mistake.
fn refuse_to_replace(out: &Path) -> Result<(), Fault> {
    let mut begins = Vec::new();
    match File::open(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(file) => file.take(17).read_to_end(&mut begins).ok(),
        Err(_) => None,
    };
    let is_file = out.metadata().is_ok_and(|known| known.is_file());
    if is_file && (begins.is_empty() || begins.starts_with(b"{\"farebox_backup\"")) {
        return Ok(());
    }
    Err(format!("{} is there and is no backup: name another file", out.display()).into())
}

/// Writes all books to `out`; how many.
async fn write<W: Write>(source: &Source, out: W) -> Result<(W, usize), Fault> {
    let mut books = source.books().await?;
    let mut writer = Writer::begin(out, books.first()?, books.payers())?;
    let progress = Progress::new("backing up");
    let mut written = 0;
    while let Some((payer, book)) = books.next().await? {
        writer.add(payer, book)?;
        written += 1;
        progress.show(written, books.payers());
    }
    Ok((writer.finish()?, written))
}

pub(crate) async fn restore(Restore { file, ledger: url }: Restore) -> Result<(), Fault> {
    refuse_memory(&url)?;
    let mut file = open(&file)?;
    // All of it is read before anything is written.
    let expected = check(&mut file)?;
    let mut reader = reread(&mut file)?;
    let ledger = match Ledger::open(&url, reader.first(), farebox_ledger::Options::default()).await
    {
        Err(OpenError::Mode { .. } | OpenError::IdentityKey | OpenError::Account { .. }) => {
            return Err(in_use(&url));
        }
        opened => opened?,
    };
    if !ledger.payers().await?.is_empty() {
        return Err(in_use(&url));
    }
    let half = |error: Fault| -> Fault {
        format!("{error}; {url} is not whole: remove it, and restore into a new ledger").into()
    };
    fill(&ledger, &mut reader).await.map_err(half)?;
    ledger.flush().await.map_err(|error| half(error.into()))?;
    compare(&ledger, &mut reread(&mut file)?, &expected).await.map_err(half)?;
    anstream::eprintln!(
        "{} books were restored and read back: every total agrees.",
        expected.books
    );
    Ok(())
}

fn in_use(url: &str) -> Fault {
    format!("the ledger {url} is in use already: name one that does not exist yet").into()
}

/// The backup's file. Standard input is kept in a file without a name, because it is read three
/// times.
fn open(path: &Path) -> Result<File, Fault> {
    if path == Path::new("-") {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut io::stdin().lock(), &mut file)?;
        return Ok(file);
    }
    File::open(path).map_err(|error| {
        format!("{} cannot be read ({error}): name a backup", path.display()).into()
    })
}

fn reread(file: &mut File) -> Result<Reader<BufReader<&File>>, Fault> {
    file.rewind()?;
    Ok(Reader::begin(BufReader::new(&*file))?)
}

/// Reads the whole backup, and audits it.
fn check(file: &mut File) -> Result<Audit, Fault> {
    let mut reader = reread(file)?;
    let progress = Progress::new("checking");
    let mut audit = Audit::default();
    while let Some((payer, book)) = reader.next_book()? {
        audit.add(payer, &book);
        progress.show(audit.books, reader.payers());
    }
    match audit.broken.first() {
        None => Ok(audit),
        Some(first) => Err(format!(
            "the backup is of a ledger that contradicts itself, first the book of payer {} ({}): \
             use another one",
            first.payer, first.broken
        )
        .into()),
    }
}

async fn fill<R: io::BufRead>(ledger: &Ledger, reader: &mut Reader<R>) -> Result<(), Fault> {
    let progress = Progress::new("restoring");
    let mut done = 0;
    loop {
        let mut batch: Vec<(PayerId, Book)> = Vec::new();
        while batch.len() < BATCH
            && let Some(book) = reader.next_book()?
        {
            batch.push(book);
        }
        if batch.is_empty() {
            return Ok(());
        }
        done += batch.len();
        let writes = batch.into_iter().map(|(payer, book)| ledger.restore(payer, book));
        futures_util::future::try_join_all(writes).await?;
        progress.show(done, reader.payers());
    }
}

/// Reads the ledger back beside the backup. Usage that is old enough to be forgotten may be gone.
async fn compare<R: io::BufRead>(
    ledger: &Ledger,
    reader: &mut Reader<R>,
    expected: &Audit,
) -> Result<(), Fault> {
    let progress = Progress::new("comparing");
    let mut found = Audit::default();
    while let Some((payer, told)) = reader.next_book()? {
        let book = ledger.book(&payer).await?;
        let usage = |book: &Book| {
            let mut book = book.clone();
            book.forget_usage(SystemClock.now());
            book.usage
        };
        if book.head != told.head
            || top_ups(&book) != top_ups(&told)
            || usage(&book) != usage(&told)
        {
            return Err(format!("the book of payer {payer} is not what the backup says").into());
        }
        found.add(payer, &book);
        progress.show(found.books, expected.books);
    }
    if found != *expected || ledger.payers().await?.len() != expected.books {
        return Err("the totals are not those of the backup".into());
    }
    Ok(())
}

fn top_ups(book: &Book) -> std::collections::BTreeMap<farebox_ledger::EntryId, &Entry> {
    let top_ups = book.entries.iter().filter(|(_, entry)| matches!(entry, Entry::TopUp(_)));
    top_ups.map(|(id, entry)| (*id, entry)).collect()
}
