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
    reading_time: Duration,
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
        Terminal { open: Arc::new(device), reading_time: READING_TIME, desk: Mutex::default() }
    }

    /// Asks on a thread that dies with the process: the runtime would wait for one of its own,
    /// and so for a key that no one presses.
    fn put(&self, question: Question) -> Result<oneshot::Receiver<Asked>, ApproverError> {
        let (answer, receiver) = oneshot::channel();
        let (open, reading_time) = (Arc::clone(&self.open), self.reading_time);
        let ask = move || {
            let asked = open().ok_or(ApproverError::NoTerminal).and_then(|(reader, writer)| {
                converse(&question, reader, writer, reading_time).map_err(ApproverError::Terminal)
            });
            // Without a receiver nobody is left to be told.
            let _ = answer.send(asked);
        };
        let thread = thread::Builder::new().name("farebox-approval".to_owned());
        thread.spawn(ask).map_err(ApproverError::Terminal)?;
        Ok(receiver)
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
            None => (key, self.put(question.clone())?),
        };
        let (_, answer) = desk.current.insert(current);
        let answer = heard(answer.await);
        desk.current = None;
        answer
    }
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::{Mutex as StdMutex, mpsc};

    use farebox_protocol::usd;
    use http::Method;
    use proptest::prelude::*;

    use super::*;

    fn question(id: u8) -> Question {
        let url = "https://api.example.com/joke?lang=en".parse().unwrap();
        let id = ApprovalId::from_bytes([id; 16]);
        let question = Question::new(id, 1_700_000_000, &Method::GET, &url, usd!("0.02"));
        question.top_up(usd!("5")).reason("above 0.01 usd")
    }

    /// The answer to what is typed, and what is shown.
    fn typed(input: &[u8], question: &Question) -> (Answer, String) {
        let mut shown = Vec::new();
        let answer = converse(question, Cursor::new(input), &mut shown, Duration::ZERO).unwrap();
        (answer, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn only_an_explicit_yes_approves() {
        let approving: [&[u8]; 7] =
            [b"y\n", b"Y\n", b"yes\n", b"YES\n", b"Yes\r\n", b"y\r\n", b"y\nn\n"];
        for input in approving {
            assert_eq!(typed(input, &question(1)).0, Answer::Approved, "{input:?}");
        }
        let denying: [&[u8]; 19] = [
            b"n\n",
            b"no\n",
            b"\n",
            b"",
            b"y",
            b"yes",
            b"yes\x1b\n",
            b"\x1b[Ay\n",
            b" y\n",
            b"y \n",
            b"y\0\n",
            b"yy\n",
            b"yess\n",
            b"yesterday\n",
            b"n\ny\n",
            b"y\r\r\n",
            b"\xff\xfe\n",
            "\u{443}\n".as_bytes(),
            b"yes\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\n",
        ];
        for input in denying {
            assert_eq!(typed(input, &question(1)).0, Answer::Denied, "{input:?}");
        }
    }

    #[test]
    fn a_long_line_is_one_line_and_denies() {
        let long = [b"yes".repeat(1_000_000), b"\ny\n".to_vec()].concat();
        assert_eq!(typed(&long, &question(1)).0, Answer::Denied);
        for capacity in [1, 7, 8 * 1_024] {
            let mut reader = BufReader::with_capacity(capacity, &long[..]);
            assert_eq!(line(&mut reader).unwrap(), Some(b"yesyesyesyesyesy".to_vec()));
            assert_eq!(line(&mut reader).unwrap(), Some(b"y\n".to_vec()), "nothing is left of it");
            assert_eq!(line(&mut reader).unwrap(), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_other_text_approves(text in "[yYeEsSnN \\r\\n\\x00\\x1b]{0,6}|\\PC{0,12}") {
            let line = text.split_inclusive('\n').next().unwrap_or_default();
            let line = line.to_ascii_lowercase();
            let expected = ["y\n", "y\r\n", "yes\n", "yes\r\n"].contains(&line.as_str());
            let (answer, _) = typed(text.as_bytes(), &question(1));
            prop_assert_eq!(answer == Answer::Approved, expected, "{:?}", text);
        }
    }

    #[test]
    fn the_question_shows_what_is_paid_to_whom_for_what_and_why() {
        let (_, shown) = typed(b"n\n", &question(1));
        let expected = [
            "",
            "An agent asks to pay:",
            "  request  GET /joke?lang=en",
            "  reason   above 0.01 usd",
            "  price    0.02 usd",
            "  top-up   5.00 usd is charged to the card",
            "  paid to  https://api.example.com",
            "Approve? Only y or yes does: ",
        ];
        assert_eq!(shown, expected.join("\n"));
    }

    #[test]
    fn texts_of_strangers_cannot_command_the_terminal() {
        let mut hostile = question(1);
        let text =
            "/\u{1b}[2K\u{1b}[1A\rprice 0.01 usd\n\u{9b}8m\u{202e}\u{7}\u{7f}\u{200b}\u{430}";
        hostile.path = text.to_owned();
        hostile.method = text.to_owned();
        hostile.reason = text.to_owned();
        hostile.origin = text.to_owned();
        let (_, shown) = typed(b"n\n", &hostile);
        let (_, plain) = typed(b"n\n", &question(1));
        assert!(shown.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()), "{shown:?}");
        assert_eq!(shown.lines().count(), plain.lines().count(), "no line is added");
        assert_eq!(shown.matches(r"\u{1b}[2K").count(), 4, "it is shown for what it is");
    }

    /// A line, and how long it takes to come.
    type Typed = (Duration, &'static [u8]);

    struct Slow(VecDeque<Typed>);

    impl io::Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((pause, line)) = self.0.pop_front() else { return Ok(0) };
            thread::sleep(pause);
            buffer[..line.len()].copy_from_slice(line);
            Ok(line.len())
        }
    }

    #[test]
    fn what_was_typed_before_the_question_is_not_its_answer() {
        let (now, later) = (Duration::ZERO, Duration::from_millis(250));
        let cases: [(&[Typed], Answer); 3] = [
            (&[(now, b"y\n")], Answer::Denied),
            (&[(now, b"y\n"), (now, b"yes\n"), (later, b"n\n")], Answer::Denied),
            (&[(now, b"n\n"), (later, b"y\n")], Answer::Approved),
        ];
        for (lines, expected) in cases {
            let reader = BufReader::new(Slow(lines.iter().copied().collect()));
            let limit = Duration::from_millis(200);
            assert_eq!(converse(&question(1), reader, io::sink(), limit).unwrap(), expected);
        }
    }

    /// A terminal whose lines come from the test.
    struct Keyboard(Arc<StdMutex<mpsc::Receiver<&'static [u8]>>>);

    impl io::Read for Keyboard {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Ok(line) = self.0.lock().unwrap().recv() else { return Ok(0) };
            buffer[..line.len()].copy_from_slice(line);
            Ok(line.len())
        }
    }

    #[derive(Clone, Default)]
    struct Screen(Arc<StdMutex<Vec<u8>>>);

    impl Screen {
        fn questions(&self) -> usize {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.matches("An agent asks to pay").count()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn terminal() -> (Arc<Terminal>, mpsc::Sender<&'static [u8]>, Screen) {
        let (keys, typed) = mpsc::channel();
        let (typed, screen) = (Arc::new(StdMutex::new(typed)), Screen::default());
        let shown = screen.clone();
        let open: Open = Arc::new(move || {
            let reader = BufReader::new(Keyboard(Arc::clone(&typed)));
            Some((Box::new(reader), Box::new(shown.clone())))
        });
        let terminal = Terminal { open, reading_time: Duration::ZERO, desk: Mutex::default() };
        (Arc::new(terminal), keys, screen)
    }

    async fn answered(terminal: &Terminal, question: &Question) -> Answer {
        let asked = tokio::time::timeout(Duration::from_secs(10), terminal.ask(question)).await;
        asked.expect("an answer was typed").unwrap()
    }

    async fn nobody_answers(terminal: &Terminal, question: &Question) {
        let asked = tokio::time::timeout(Duration::from_millis(100), terminal.ask(question)).await;
        assert!(asked.is_err(), "a terminal waits");
    }

    #[tokio::test]
    async fn a_question_is_put_once_and_its_late_answer_is_its_own() {
        let (terminal, keys, screen) = terminal();
        nobody_answers(&terminal, &question(1)).await;
        nobody_answers(&terminal, &question(1)).await;
        nobody_answers(&terminal, &question(2)).await;
        assert_eq!(screen.questions(), 1, "the second waits for its turn");

        keys.send(b"y\n").unwrap();
        nobody_answers(&terminal, &question(2)).await;
        assert_eq!(screen.questions(), 2);
        keys.send(b"n\n").unwrap();
        assert_eq!(answered(&terminal, &question(2)).await, Answer::Denied);
        assert_eq!(answered(&terminal, &question(1)).await, Answer::Approved);
        assert_eq!(screen.questions(), 2, "its answer was kept");
    }

    #[tokio::test]
    async fn an_answer_is_not_given_to_the_same_question_at_another_price() {
        let (terminal, keys, screen) = terminal();
        nobody_answers(&terminal, &question(1)).await;
        let mut dearer = question(1);
        dearer.price = usd!("0.03");
        keys.send(b"y\n").unwrap();
        nobody_answers(&terminal, &dearer).await;
        assert_eq!(screen.questions(), 2);
        keys.send(b"n\n").unwrap();
        assert_eq!(answered(&terminal, &dearer).await, Answer::Denied);
    }

    #[tokio::test]
    async fn parallel_questions_are_asked_one_after_the_other() {
        let (terminal, keys, screen) = terminal();
        let asking: Vec<_> = (1..=3)
            .map(|id| {
                let terminal = Arc::clone(&terminal);
                tokio::spawn(async move { answered(&terminal, &question(id)).await })
            })
            .collect();
        for asked in 1..=3 {
            while screen.questions() < asked {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(screen.questions(), asked, "one at a time");
            keys.send(if asked == 2 { b"n\n" } else { b"y\n" }).unwrap();
        }
        let mut answers = Vec::new();
        for one in asking {
            answers.push(one.await.unwrap());
        }
        assert_eq!(answers, [Answer::Approved, Answer::Denied, Answer::Approved]);
    }

    #[tokio::test]
    async fn without_a_terminal_the_error_says_so() {
        let open: Open = Arc::new(|| None);
        let terminal = Terminal { open, reading_time: Duration::ZERO, desk: Mutex::default() };
        let error = terminal.ask(&question(1)).await.unwrap_err();
        assert!(matches!(error, ApproverError::NoTerminal), "{error:?}");
        assert_eq!(error.to_string(), "there is no terminal to ask on");
    }
}
