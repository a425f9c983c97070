//! A provider whose ledger writes down every command, and dies where it is told to.
//!
//! Configured like `paid-api`, and by
//!
//! - `FAREBOX_RECORD`: the file that is written; without it the ledger is opened as usual
//! - `FAREBOX_SETTLE_WITHIN`: milliseconds
//! - `FAREBOX_CRASH`: `before:Observe:3` aborts before the third `Observe` reaches the ledger,
//!   `after:OpenTopUp:1` after the first `OpenTopUp` is done and before its caller hears of it
//! - `FAREBOX_TRACE`: the folder that it logs to, at every level
//!
//! A line of the record is a [`Row`]. The system outlives a kill, so a write is enough.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use farebox_ledger::book::{Book, TopUp};
use farebox_ledger::{
    Applied, Command, Due, FirstRecord, Head, Ledger, Options, Store, StoreError,
};
use farebox_middleware::{Admission, PayerId, Payments, Stripe, usd};
use farebox_protocol::TopUpId;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// A line of the record.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Row<'a> {
    /// A book as it is when the program starts.
    Book(PayerId, Book),
    /// A command goes to the ledger.
    Begin(u64, PayerId, &'a Command),
    /// The ledger answered, and when, in milliseconds.
    End(u64, &'a Applied, u128),
    /// The ledger did not answer.
    Unknown(u64),
    /// A book as it is when the program ends by itself.
    Left(PayerId, Book),
}

/// Where to die.
struct CrashPoint {
    when: String,
    kind: String,
    left: AtomicU64,
}

impl CrashPoint {
    fn parse(text: &str) -> Option<CrashPoint> {
        let mut words = text.split(':');
        let (when, kind) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(CrashPoint { when, kind, left: AtomicU64::new(words.next()?.parse().ok()?) })
    }
}

/// A ledger that writes down what it is told and what it answers.
#[derive(Clone)]
struct Recorder(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    record: File,
    next: AtomicU64,
    crash: Option<CrashPoint>,
}

impl Inner {
    async fn apply(&self, payer: PayerId, command: Command) -> Result<Applied, StoreError> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.die("before", &command);
        self.write(&Row::Begin(number, payer, &command));
        let applied = self.ledger.apply(&payer, &command).await;
        match &applied {
            Ok(applied) => self.write(&Row::End(number, applied, millis())),
            Err(_) => self.write(&Row::Unknown(number)),
        }
        self.die("after", &command);
        applied
    }

    /// One write, to a file that is appended to: lines do not mix.
    fn write(&self, row: &Row<'_>) {
        let mut line = serde_json::to_vec(row).unwrap_or_else(|_| std::process::abort());
        line.push(b'\n');
        if (&self.record).write_all(&line).is_err() {
            std::process::abort();
        }
    }

    fn die(&self, when: &str, command: &Command) {
        let Some(crash) = &self.crash else { return };
        // A command's name is the first word of its Debug.
        let is_kind = || format!("{command:?}").starts_with(&crash.kind);
        if crash.when == when && is_kind() && crash.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}

/// A call to a ledger in this process is finished also when its caller goes away: what it did is
/// written down, and nothing is done earlier or later than it would have been. A call to Redis is
/// dropped as ever: it may be between reading and writing, and stays unanswered in the record.
struct Finished {
    call: Option<Call>,
    in_process: bool,
}

type Call = Pin<Box<dyn Future<Output = Result<Applied, StoreError>> + Send>>;

impl Future for Finished {
    type Output = Result<Applied, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let answer = call.as_mut().poll(context);
        if answer.is_ready() {
            self.call = None;
        }
        answer
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if let (Some(call), true, Ok(runtime)) =
            (self.call.take(), self.in_process, tokio::runtime::Handle::try_current())
        {
            drop(runtime.spawn(call));
        }
    }
}

impl Store for Recorder {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        let (inner, payer, command) = (self.0.clone(), *payer, command.clone());
        let in_process = matches!(inner.ledger, Ledger::Memory(_) | Ledger::Embedded(_));
        let call: Call = Box::pin(async move { inner.apply(payer, command).await });
        Finished { call: Some(call), in_process }.await
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        self.0.ledger.load(payer).await
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        self.0.ledger.top_up(id).await
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        self.0.ledger.book(payer).await
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        self.0.ledger.payers().await
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        self.0.ledger.due().await
    }
}

impl Recorder {
    /// Opens the ledger, and writes down how it finds it.
    async fn open(url: &str, record: &str, options: Options) -> Result<Recorder, Box<dyn Error>> {
        let first = FirstRecord::new("recorded", "test", None);
        let ledger = Ledger::open(url, &first, options).await?;
        let record = OpenOptions::new().create(true).append(true).open(record)?;
        let crash = CrashPoint::parse(&variable("FAREBOX_CRASH", ""));
        let inner = Inner { ledger, record, next: AtomicU64::new(0), crash };
        for payer in inner.ledger.payers().await? {
            inner.write(&Row::Book(payer, inner.ledger.book(&payer).await?));
        }
        Ok(Recorder(Arc::new(inner)))
    }
}

/// What fails has a price of its own, so that no charge for it can hide.
fn app(payments: &Payments, recorder: Option<Recorder>) -> Router {
    let failing =
        |route: axum::routing::MethodRouter| route.route_layer(payments.price(usd!("0.03")));
    let revoker = payments.clone();
    let revoke = move |payer: Path<String>| async move {
        let Ok(payer) = payer.parse() else { return StatusCode::NOT_FOUND };
        match revoker.revoke(&payer).await {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    };
    let freeze = move |Path((payer, on)): Path<(String, bool)>| async move {
        let (Some(recorder), Ok(payer)) = (recorder, payer.parse()) else {
            return StatusCode::NOT_FOUND;
        };
        let Ok(reason) = "operator".parse() else { return StatusCode::NOT_FOUND };
        let command = if on { Command::Freeze { reason } } else { Command::Unfreeze { reason } };
        match recorder.apply(&payer, &command).await {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(4)).await;
        "At last."
    };
    Router::new()
        .route("/joke", get(|| async { "A joke." }).route_layer(payments.price(usd!("0.01"))))
        .route("/slow", get(slow).route_layer(payments.price(usd!("0.02"))))
        .route("/report", get(|| async { "A report." }).route_layer(payments.price(usd!("1"))))
        .route("/fail", failing(get(|| async { StatusCode::INTERNAL_SERVER_ERROR })))
        .route("/missing", failing(get(|| async { StatusCode::NOT_FOUND })))
        .route("/revoke/{payer}", post(revoke))
        .route("/freeze/{payer}/{on}", post(freeze))
        .nest_service("/account", payments.account_routes())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    farebox_canary::watch();
    let within = variable("FAREBOX_SETTLE_WITHIN", "").parse().ok().map(Duration::from_millis);
    let (url, record) = (variable("FAREBOX_LEDGER", "memory:"), variable("FAREBOX_RECORD", ""));
    let builder = Payments::builder(Stripe::from_env()?).secret(&[7; 32]);
    let builder = builder.admission(Admission::unlimited());
    let (builder, recorder) = match (&*record, within) {
        ("", Some(within)) => (builder.ledger(&url).settle_within(within), None),
        ("", None) => (builder.ledger(&url), None),
        (record, settle_within) => {
            let options = Options { settle_within, ..Options::default() };
            let recorder = Recorder::open(&url, record, options).await?;
            (builder.store(recorder.clone()), Some(recorder))
        }
    };
    let payments = builder.open().await?;
    let listener = tokio::net::TcpListener::bind(variable("FAREBOX_LISTEN", "127.0.0.1:0")).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = app(&payments, recorder.clone());
    let stopped = async move {
        terminate.recv().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
    payments.close().await?;
    if let Some(Recorder(inner)) = recorder {
        for payer in inner.ledger.payers().await? {
            inner.write(&Row::Left(payer, inner.ledger.book(&payer).await?));
        }
    }
    Ok(())
}

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or(default.to_owned())
}
