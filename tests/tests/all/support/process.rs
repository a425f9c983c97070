//! The programs of the examples and the `farebox` command, as processes that can be killed.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// No program needs longer to start or to stop; a start waits 10 seconds for a ledger's lock.
const PATIENCE: Duration = Duration::from_secs(30);
const VARIABLES: [&str; 16] = [
    "STRIPE_SECRET_KEY",
    "STRIPE_PUBLISHABLE_KEY",
    "STRIPE_API_BASE",
    "FAREBOX_LEDGER",
    "FAREBOX_LISTEN",
    "FAREBOX_SECRET",
    "FAREBOX_CARD",
    "FAREBOX_POLICY",
    "FAREBOX_STATE",
    "FAREBOX_ADMIN_URL",
    "FAREBOX_SETTLE_WITHIN_MS",
    "FAREBOX_ADMIN_TOKEN",
    "FAREBOX_ADMIN_LISTEN",
    "FAREBOX_RECORD",
    "FAREBOX_CRASH",
    "FAREBOX_SETTLE_WITHIN",
];

/// A server that runs. It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    /// What it printed before it listened.
    pub(crate) said: Vec<String>,
    pub(crate) url: String,
}

impl Program {
    /// Starts a program on a free port, with these variables and no other of ours.
    pub(crate) async fn start(name: &str, environment: &[(&str, String)]) -> Program {
        let mut child =
            command(name, environment).stderr(farebox_canary::stderr()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            let line = timeout(PATIENCE, output.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("{name} ended before it listened: {said:?}"));
            if let Some(url) = line.strip_prefix("listening on ") {
                let url = url.to_owned();
                return Program { child, output, said, url };
            }
            said.push(line);
        }
    }

    /// kill -9, and the end of the process.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for a program that kills itself; false: it lives on.
    pub(crate) async fn dies(&mut self, within: Duration) -> bool {
        timeout(within, self.child.wait()).await.is_ok()
    }

    /// SIGTERM. What was in flight goes on.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn end(mut self) -> ExitStatus {
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        drop(self.output);
        status
    }
}

/// Starts a server that must refuse to start, and answers what it wrote to stderr.
pub(crate) async fn refusal(environment: &[(&str, String)]) -> String {
    let output = run("paid-api", environment, &[]).await;
    assert!(!output.status.success(), "it started: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Runs one of the examples to its end.
pub(crate) async fn run(name: &str, environment: &[(&str, String)], arguments: &[&str]) -> Output {
    let mut command = command(name, environment);
    command.args(arguments).stderr(Stdio::piped());
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    farebox_canary::keep(&output);
    output
}

fn command(name: &str, environment: &[(&str, String)]) -> Command {
    let mut command = match name {
        "recorded-api" => Command::new(env!("CARGO_BIN_EXE_recorded-api")),
        example => Command::new(programs().join(example)),
    };
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
        .env("FAREBOX_LISTEN", "127.0.0.1:0")
        // Whatever a program does, it stays on this machine.
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Builds the programs once, and answers the folder they are in.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // target/PROFILE/deps/all-HASH
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap();
        let mut build = std::process::Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "farebox-examples", "-p", "farebox", "--target-dir"]);
        build.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the programs do not build");
        folder.to_owned()
    })
}
