//! A backup: a ledger as lines of JSON, to keep, or to move to another store.
//!
//! | line | what |
//! |---|---|
//! | first | `{"farebox_backup":1,"first":{..},"payers":N}`: what the ledger was made for |
//! | one per payer, in their order | `{"payer":"..","book":{..}}` |
//! | last | `{"end":N,"sha256":".."}`: how many books, and the hash of all bytes before it |
//!
//! The last line shows that none was lost on the way; it guards against accidents, not against
//! somebody who can write the file. The same books are the same bytes. Requests in flight are no
//! part of it: a backup is what a crash at that moment would have left.
//!
//! ```
//! use farebox_ledger::backup::{Reader, Writer};
//! use farebox_ledger::store::{Memory, fund};
//! use farebox_ledger::{FirstRecord, Store};
//! use farebox_protocol::{PayerId, usd};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let (ledger, payer) = (Memory::default(), PayerId::from_bytes([1; 32]));
//! fund(&ledger, &payer, usd!("5")).await?;
//! let book = ledger.book(&payer).await?;
//!
//! let mut writer = Writer::begin(Vec::new(), &FirstRecord::new("check", "test", None), 1)?;
//! writer.add(payer, book.clone())?;
//! let bytes = writer.finish()?;
//!
//! let mut reader = Reader::begin(bytes.as_slice())?;
//! assert_eq!(reader.next_book()?, Some((payer, book)));
//! assert_eq!(reader.next_book()?, None);
//! // A file that was cut short is noticed.
//! let mut reader = Reader::begin(&bytes[..bytes.len() - 1])?;
//! reader.next_book()?;
//! assert!(reader.next_book().is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, Write};

use farebox_protocol::PayerId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::book::Book;
use crate::store::{FirstRecord, OpenError};

/// The format that this version writes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct FirstLine {
    farebox_backup: u32,
    first: FirstRecord,
    payers: usize,
}

#[derive(Serialize, Deserialize)]
struct BookLine {
    payer: PayerId,
    book: Book,
}

#[derive(Serialize, Deserialize)]
struct LastLine {
    end: usize,
    sha256: String,
}

/// How the last line begins, and no other.
const LAST: &str = r#"{"end":"#;

/// Why a backup cannot be used; the text is one sentence for whoever restores it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file is something else.
    #[error("it is not a backup: name a file that `farebox backup` wrote")]
    NotABackup,
    /// A newer version wrote it.
    #[error("the backup has format {0}, newer than the {known} of this version: update farebox", known = FORMAT)]
    Newer(u32),
    /// The last line is missing.
    #[error("the backup was cut short, its last line is missing: use another one")]
    Cut,
    /// Its hash is another one.
    #[error("the backup was altered since it was written: use another one")]
    Altered,
    /// A line cannot be read, or stands where it must not.
    #[error("line {line} of the backup is damaged ({reason}): use another one")]
    Line {
        /// Which, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The ledger it was made of is of a kind that this version does not know.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// The operating system's.
    #[error("the backup cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

/// Writes a backup, line by line.
pub struct Writer<W> {
    out: W,
    hash: Sha256,
    books: usize,
    last: Option<PayerId>,
}

impl<W: Write> Writer<W> {
    /// Writes the first line. `payers` says how many are expected; a ledger that is in use may
    /// have more by the end.
    ///
    /// # Errors
    ///
    /// `out`'s.
    pub fn begin(out: W, first: &FirstRecord, payers: usize) -> Result<Writer<W>, BackupError> {
        let mut writer = Writer { out, hash: Sha256::new(), books: 0, last: None };
        writer.line(&FirstLine { farebox_backup: FORMAT, first: first.clone(), payers })?;
        Ok(writer)
    }

    /// Writes a book, without its requests in flight. Payers come in their order.
    ///
    /// # Errors
    ///
    /// `out`'s, and [`BackupError::Line`] for a payer that does not come after the one before.
    pub fn add(&mut self, payer: PayerId, mut book: Book) -> Result<(), BackupError> {
        follows(self.last, payer, self.books + 2)?;
        book = book.interrupted();
        self.line(&BookLine { payer, book })?;
        self.last = Some(payer);
        self.books += 1;
        Ok(())
    }

    /// Writes the last line.
    ///
    /// # Errors
    ///
    /// `out`'s.
    pub fn finish(mut self) -> Result<W, BackupError> {
        let last = LastLine { end: self.books, sha256: hex(self.hash.clone()) };
        self.line(&last)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), BackupError> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::from)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.out.write_all(&text)?;
        Ok(())
    }
}

/// Reads a backup. Its books may be used only once [`Reader::next_book`] has answered `None`:
/// before that it is not known whether the file is whole.
pub struct Reader<R> {
    input: R,
    hash: Sha256,
    first: FirstRecord,
    payers: usize,
    books: usize,
    last: Option<PayerId>,
    ended: bool,
    text: String,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    ///
    /// [`BackupError`].
    pub fn begin(mut input: R) -> Result<Reader<R>, BackupError> {
        let mut text = String::new();
        read_line(&mut input, &mut text).map_err(|error| match error {
            BackupError::Line { .. } => BackupError::NotABackup, // not even text
            other => other,
        })?;
        let format: serde_json::Value =
            serde_json::from_str(&text).map_err(|_| BackupError::NotABackup)?;
        let format = format["farebox_backup"].as_u64().ok_or(BackupError::NotABackup)?;
        if format != u64::from(FORMAT) {
            return Err(BackupError::Newer(u32::try_from(format).unwrap_or(u32::MAX)));
        }
        let line: FirstLine = parse(&text, 1)?;
        let (first, payers) = (line.first.accept(None)?, line.payers);
        let hash = Sha256::new_with_prefix(&text);
        Ok(Reader { input, hash, first, payers, books: 0, last: None, ended: false, text })
    }

    /// What the ledger was made for.
    pub fn first(&self) -> &FirstRecord {
        &self.first
    }

    /// About how many books follow.
    pub fn payers(&self) -> usize {
        self.payers
    }

    /// The next book; `None` after the last one, if the file is whole.
    ///
    /// # Errors
    ///
    /// [`BackupError`].
    pub fn next_book(&mut self) -> Result<Option<(PayerId, Book)>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let number = self.books + 2;
        self.text.clear();
        read_line(&mut self.input, &mut self.text).map_err(|error| match error {
            BackupError::Line { reason, .. } => BackupError::Line { line: number, reason },
            other => other,
        })?;
        if self.text.starts_with(LAST) {
            return self.end(number).map(|()| None);
        }
        let BookLine { payer, mut book } = parse(&self.text, number)?;
        follows(self.last, payer, number)?;
        self.hash.update(&self.text);
        self.last = Some(payer);
        self.books += 1;
        book = book.interrupted(); // a writer of somebody else's may have left some
        Ok(Some((payer, book)))
    }

    fn end(&mut self, number: usize) -> Result<(), BackupError> {
        let LastLine { end, sha256 } = parse(&self.text, number)?;
        if end != self.books || sha256 != hex(self.hash.clone()) {
            return Err(BackupError::Altered);
        }
        if !self.input.fill_buf()?.is_empty() {
            let reason = "nothing may follow the last line".to_owned();
            return Err(BackupError::Line { line: number + 1, reason });
        }
        self.ended = true;
        Ok(())
    }
}

/// Reads a line with its end; one without an end was cut.
fn read_line(input: &mut impl BufRead, text: &mut String) -> Result<(), BackupError> {
    match input.read_line(text) {
        Ok(_) if text.ends_with('\n') => Ok(()),
        Ok(_) => Err(BackupError::Cut),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(BackupError::Line { line: 1, reason: "it is not text".to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, line: usize) -> Result<T, BackupError> {
    serde_json::from_str(text)
        .map_err(|error| BackupError::Line { line, reason: error.to_string() })
}

/// Refuses a payer who does not come after `last`: no book is there twice.
fn follows(last: Option<PayerId>, payer: PayerId, line: usize) -> Result<(), BackupError> {
    if last.is_some_and(|last| last >= payer) {
        let reason = "its payer is not in order".to_owned();
        return Err(BackupError::Line { line, reason });
    }
    Ok(())
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

impl<W> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("books", &self.books).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("books", &self.books).finish_non_exhaustive()
    }
}
