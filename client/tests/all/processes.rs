//! Other processes that run a test of this binary, and can be killed in the middle of it.
//!
//! A test that needs them starts with [`errand`]: in the process that was sent it answers what to
//! do, in the test itself nothing.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

const ERRAND: &str = "FAREBOX_TEST_ERRAND";
/// What stands before every line that is meant for the test: the harness prints lines of its own.
const SAYS: &str = "::";

/// What this process was sent to do; `None` in the test itself.
pub(crate) fn errand() -> Option<String> {
    std::env::var(ERRAND).ok()
}

/// Tells the test something. It has reached the pipe when this returns: a kill does not undo it.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{SAYS}{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A process that runs one test. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs the test of this full name with an errand.
    pub(crate) fn send(test: &str, errand: &str) -> Process {
        Process::run(Command::new(std::env::current_exe().unwrap()), test, errand)
    }

    /// The same by a command of this binary, or one that ends in it.
    pub(crate) fn run(mut command: Command, test: &str, errand: &str) -> Process {
        let mut child = command
            .args(["--exact", test, "--nocapture"])
            .env(ERRAND, errand)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, output }
    }

    /// What it says next; `None` when it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            // A line that a kill cut off was not said.
            let line = self.output.next()?.unwrap();
            if let Some(said) = line.strip_prefix(SAYS) {
                return Some(said.to_owned());
            }
        }
    }

    /// kill -9, and the end of the process.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, which is a success, and answers the rest of what it said.
    pub(crate) fn end(mut self) -> Vec<String> {
        let said: Vec<String> = std::iter::from_fn(|| self.hear()).collect();
        assert!(self.child.wait().unwrap().success(), "it failed: {said:?}");
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
