//! The terminal of the process.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, oneshot};

use crate::approval::{Answer, ApprovalId, Approver, ApproverError, Fingerprint, Question};

/// A line that comes sooner was typed before its question could be read.
const READING_TIME: Duration = Duration::from_millis(300);
/// The most that is kept of a line; no accepted answer is as long.
const LINE_BYTES_MAX: usize = 16;
/// Answers whose askers went away before they were given.
const UNHEARD_MAX: usize = 64;

/// An [`Approver`] that asks on the terminal: on `/dev/tty`, or on standard input and error when
/// both are terminals. Questions are asked one after the other.
///
/// Only `y` or `yes`, in any case and alone on its line, approves. Any other line and the end of
/// the input deny. Texts of strangers are shown without control characters.
///
/// A question whose asker went away stays on the terminal; its answer is kept until it is asked
/// for again by this process.
///
/// ```no_run
/// use farebox_client::{Answer, ApprovalId, Approver as _, Question, Terminal, usd};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "https://api.example.com/joke".parse()?;
/// let id = ApprovalId::from_bytes([7; 16]);
/// let question = Question::new(id, 1_700_000_000, &http::Method::GET, &url, usd!("0.02"));
/// let answer = Terminal::new().ask(&question).await?;
/// assert_ne!(answer, Answer::Pending, "a terminal waits");
/// # Ok(())
/// # }
/// ```
#[expect(missing_debug_implementations, reason = "a terminal has nothing to show")]
pub struct Terminal {
    open: Open,
    desk: Mutex<Desk>,
}

/// A reader of lines and a writer for questions; `None` without a terminal.
type Open = Arc<dyn Fn() -> Option<(Box<dyn BufRead>, Box<dyn Write>)> + Send + Sync>;
type Key = (ApprovalId, Fingerprint);
type Asked = Result<Answer, ApproverError>;

#[derive(Default)]
struct Desk {
    /// The question on the terminal.
    current: Option<(Key, oneshot::Receiver<Asked>)>,
    unheard: VecDeque<(Key, Asked)>,
}

impl Terminal {
    /// The terminal of this process. It is looked for at each question.
    pub fn new() -> Terminal {
        Terminal::on(Arc::new(device))
    }

    fn on(open: Open) -> Terminal {
        Terminal { open, desk: Mutex::default() }
    }
}

impl Default for Terminal {
    fn default() -> Terminal {
        Terminal::new()
    }
}

impl Approver for Terminal {
    async fn ask(&self, question: &Question) -> Result<Answer, ApproverError> {
        let key = (question.id, question.fingerprint());
        let mut desk = self.desk.lock().await;
        if let Some((other, answer)) = &mut desk.current
            && *other != key
        {
            let unheard = (*other, heard(answer.await));
            desk.current = None;
            desk.unheard.truncate(UNHEARD_MAX - 1);
            desk.unheard.push_front(unheard);
        }
        if let Some(at) = desk.unheard.iter().position(|(unheard, _)| *unheard == key)
            && let Some((_, answer)) = desk.unheard.remove(at)
        {
            return answer;
        }
        let current = match desk.current.take() {
            Some(current) => current,
            None => (key, put(Arc::clone(&self.open), question.clone())?),
        };
        let (_, answer) = desk.current.insert(current);
        let answer = heard(answer.await);
        desk.current = None;
        answer
    }
}

/// Asks on a thread that dies with the process: the runtime would wait for one of its own, and
/// so for a key that no one presses.
fn put(open: Open, question: Question) -> Result<oneshot::Receiver<Asked>, ApproverError> {
    let (answer, receiver) = oneshot::channel();
    let ask = move || {
        let asked = match open() {
            Some((reader, writer)) => {
                converse(&question, reader, writer, READING_TIME).map_err(ApproverError::Terminal)
            }
            None => Err(ApproverError::NoTerminal),
        };
        // Without a receiver nobody is left to be told.
        let _ = answer.send(asked);
    };
    let thread = thread::Builder::new().name("farebox-approval".to_owned());
    thread.spawn(ask).map_err(ApproverError::Terminal)?;
    Ok(receiver)
}

fn heard(received: Result<Asked, oneshot::error::RecvError>) -> Asked {
    received.unwrap_or_else(|gone| Err(ApproverError::Terminal(io::Error::other(gone))))
}

fn device() -> Option<(Box<dyn BufRead>, Box<dyn Write>)> {
    if let Ok(tty) = File::options().read(true).write(true).open("/dev/tty")
        && let Ok(writer) = tty.try_clone()
    {
        return Some((Box::new(BufReader::new(tty)), Box::new(writer)));
    }
    let (input, error) = (io::stdin(), io::stderr());
    (input.is_terminal() && error.is_terminal()).then(|| -> (Box<dyn BufRead>, Box<dyn Write>) {
        (Box::new(input.lock()), Box::new(error))
    })
}

/// Shows the question and reads the answer. Lines that come within `reading_time` are dropped.
fn converse(
    question: &Question,
    mut reader: impl BufRead,
    mut writer: impl Write,
    reading_time: Duration,
) -> io::Result<Answer> {
    writer.write_all(shown(question).as_bytes())?;
    loop {
        writer.write_all(b"Approve? Only y or yes does: ")?;
        writer.flush()?;
        let asked = Instant::now();
        let Some(line) = line(&mut reader)? else { return Ok(Answer::Denied) };
        if asked.elapsed() >= reading_time {
            return Ok(answer(&line));
        }
        writer.write_all(b"That was typed too early.\n")?;
    }
}

/// Only an explicit yes approves.
fn answer(line: &[u8]) -> Answer {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let yes = text.eq_ignore_ascii_case(b"y") || text.eq_ignore_ascii_case(b"yes");
    if yes { Answer::Approved } else { Answer::Denied }
}

/// The start of the next line, of which everything is read; `None` if the input ends before.
fn line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let read = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read.is_empty() {
            return Ok(None);
        }
        let end = read.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(read.len(), |end| end + 1);
        let room = LINE_BYTES_MAX - line.len();
        line.extend_from_slice(&read[..used.min(room)]);
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

/// What decides comes last, so that a long path cannot push it off the screen.
fn shown(question: &Question) -> String {
    let top_up = question.top_up.map_or_else(
        || "none: it is paid from credit".to_owned(),
        |top_up| format!("{top_up} is charged to the card"),
    );
    let rows = [
        ("request", format!("{} {}", question.method, question.path)),
        ("reason", question.reason.clone()),
        ("price", question.price.to_string()),
        ("top-up", top_up),
        ("paid to", question.origin.clone()),
    ];
    let mut text = "\nAn agent asks to pay:\n".to_owned();
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<8} {}", tame(&value));
    }
    text
}

/// Printable ASCII as it is, everything else escaped: a terminal obeys what it is sent, and
/// letters that look alike are not the same host.
fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for character in text.chars() {
        if character == ' ' || character.is_ascii_graphic() {
            tamed.push(character);
        } else {
            tamed.extend(character.escape_unicode());
        }
    }
    tamed
}
