//! What the agent's client costs on a call, against bare reqwest on the same machine in the same
//! run.
//!
//! ```text
//! cargo bench -p farebox-client --bench overhead [-- --json] [--rounds N] [--at-most 1.05]
//! ```
//!
//! A server on loopback, with a thread of its own, answers 200 and nothing else. In each round
//! every client sends as many requests as the others, in changing order; a round's ratio is a
//! client's time over bare reqwest's in that round. The table shows the median over all rounds and
//! the middle half of them. With `--at-most` the exit status is 1 if an unpaid call costs more than
//! that; without it a busy machine fails nothing.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::float_arithmetic, reason = "time is no money")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use farebox_client::{Agent, Card, Guard, Policy, usd};
use farebox_protocol::header::{PAYMENT, PAYMENT_REQUIRED, PAYMENT_RESPONSE};
use farebox_protocol::{ErrorCode, PaymentRequired, PaymentResponse, Units};
use farebox_sandbox::Sandbox;
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 400;
/// In one round, by one client: few, so that what else the machine does meets all of a round.
const REQUESTS: usize = 64;
const TASKS: usize = 32;
/// Rounds that nobody counts: connections are opened, and credit is bought.
const WARM_UP: usize = 3;
const BODY: &str = "hello, world\n";

/// Who sends the requests.
enum Client {
    Bare(reqwest::Client),
    Layered(ClientWithMiddleware),
}

struct Contestant {
    name: &'static str,
    client: Client,
    path: &'static str,
    /// Whether `--at-most` holds for it.
    is_unpaid: bool,
}

struct Options {
    json: bool,
    rounds: usize,
    at_most: Option<f64>,
}

/// Of all rounds.
struct Measured {
    micros: f64,
    /// The lower quartile, the median and the upper quartile of what bare reqwest took.
    ratio: [f64; 3],
}

fn main() -> ExitCode {
    let options = Options::read();
    let server = serve();
    let mut worst = 0.0_f64;
    let mut tables = BTreeMap::new();
    let single = || Builder::new_current_thread().enable_all().build().unwrap();
    let several = || Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, runtime, tasks) in
        [("one after the other", single(), 1), ("32 at a time", several(), TASKS)]
    {
        let (sandbox, folder) = (runtime.block_on(sandbox()), tempfile::tempdir().unwrap());
        let contestants = contestants(server, &sandbox, &folder.path().join("agent.json"));
        let measured = measure(&runtime, server, &contestants, tasks, options.rounds);
        if !options.json {
            println!("\n{name}: {} rounds of {REQUESTS} requests each", options.rounds);
            println!("{:<34} {:>9} {:>9}   middle half", "", "µs/call", "overhead");
        }
        let mut rows = serde_json::Map::new();
        for (contestant, Measured { micros, ratio }) in contestants.iter().zip(measured) {
            let [low, middle, high] = ratio.map(|ratio| (ratio - 1.0) * 100.0);
            if !options.json {
                println!(
                    "{:<34} {micros:>9.1} {middle:>+8.1}%   {low:+.1}% to {high:+.1}%",
                    contestant.name
                );
            }
            if contestant.is_unpaid {
                worst = worst.max(ratio[1]);
            }
            let row = serde_json::json!({ "micros": micros, "ratio": ratio });
            rows.insert(contestant.name.to_owned(), row);
        }
        tables.insert(name, rows);
    }
    if options.json {
        println!("{}", serde_json::json!(tables));
    }
    match options.at_most {
        Some(limit) if worst > limit => {
            eprintln!("an unpaid call costs {worst:.3} times bare reqwest, more than {limit}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

impl Options {
    fn read() -> Options {
        let mut options = Options { json: false, rounds: ROUNDS, at_most: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => options.json = true,
                "--rounds" => options.rounds = arguments.next().unwrap().parse().unwrap(),
                "--at-most" => options.at_most = Some(arguments.next().unwrap().parse().unwrap()),
                // Cargo's own.
                "--bench" => {}
                other => panic!("{other}? --json, --rounds N, --at-most RATIO"),
            }
        }
        options
    }
}

async fn sandbox() -> Sandbox {
    Sandbox::builder().start("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn contestants(server: SocketAddr, sandbox: &Sandbox, state: &std::path::Path) -> Vec<Contestant> {
    let pool = || reqwest::Client::builder().no_proxy();
    let limits = || Policy::new().per_request(usd!("0.05")).per_top_up(usd!("5"));
    let host = server.ip().to_string();
    let agent = || {
        let card: Card = "4242424242424242:12:47:123".parse().unwrap();
        let policy = limits().allow(&host).per_day(usd!("10"));
        Agent::new(policy).card(card).tokenizer(sandbox.url()).unwrap()
    };
    let layered = |agent: &Agent| Client::Layered(agent.client(pool()).unwrap().build());
    let guard = Guard::public_only().allow(&host).unwrap();
    let free = |name, client| Contestant { name, client, path: "/free", is_unpaid: true };
    let stranger = Agent::new(limits().allow("api.example.com").per_day(usd!("10")));
    vec![
        free("reqwest", Client::Bare(pool().build().unwrap())),
        free(
            "reqwest-middleware, no middleware",
            Client::Layered(ClientBuilder::new(pool().build().unwrap()).build()),
        ),
        free("agent", layered(&agent())),
        free("agent, host not allowed", layered(&stranger)),
        free("agent, state in a file", layered(&agent().state(state).unwrap())),
        free("agent, guarded", layered(&agent().guard(guard))),
        Contestant {
            name: "agent, paid from credit",
            client: layered(&agent()),
            path: "/paid",
            is_unpaid: false,
        },
    ]
}

fn measure(
    runtime: &Runtime,
    server: SocketAddr,
    contestants: &[Contestant],
    tasks: usize,
    rounds: usize,
) -> Vec<Measured> {
    let mut micros = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..WARM_UP + rounds {
        for step in 0..contestants.len() {
            // Who comes first, and after whom, changes.
            let step = if round % 2 == 0 { step } else { contestants.len() - 1 - step };
            let at = (step + round / 2) % contestants.len();
            let contestant = &contestants[at];
            let url = Arc::<str>::from(format!("http://{server}{}", contestant.path));
            let taken = runtime.block_on(contestant.client.send(&url, tasks));
            if round >= WARM_UP {
                micros[at].push(taken);
            }
        }
    }
    let ratios = |of: &[f64]| of.iter().zip(&micros[0]).map(|(one, bare)| one / bare).collect();
    micros
        .iter()
        .map(|of| Measured { micros: quartiles(of.clone())[1], ratio: quartiles(ratios(of)) })
        .collect()
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

impl Client {
    /// Microseconds per request.
    async fn send(&self, url: &Arc<str>, tasks: usize) -> f64 {
        let started = Instant::now();
        if tasks == 1 {
            self.clone().send_all(url, REQUESTS).await;
        } else {
            let each = REQUESTS / tasks;
            let spawn = |_| {
                let (client, url) = (self.clone(), Arc::clone(url));
                tokio::spawn(async move { client.send_all(&url, each).await })
            };
            for task in (0..tasks).map(spawn).collect::<Vec<_>>() {
                task.await.unwrap();
            }
        }
        let count = u32::try_from(REQUESTS).unwrap();
        started.elapsed().as_secs_f64() * 1e6 / f64::from(count)
    }

    async fn send_all(&self, url: &str, requests: usize) {
        for _ in 0..requests {
            let answer = match self {
                Client::Bare(client) => client.get(url).send().await.unwrap(),
                Client::Layered(client) => client.get(url).send().await.unwrap(),
            };
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
        }
    }
}

impl Clone for Client {
    fn clone(&self) -> Client {
        match self {
            Client::Bare(client) => Client::Bare(client.clone()),
            Client::Layered(client) => Client::Layered(client.clone()),
        }
    }
}

/// A server with its own thread, which does no more than answer.
fn serve() -> SocketAddr {
    let (tell, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let paid = Paid::new();
            let app = Router::new()
                .route("/free", get(async || BODY))
                .route("/paid", get(async move |headers: HeaderMap| paid.answer(&headers)));
            axum::serve(listener.tap_io(|stream| stream.set_nodelay(true).unwrap()), app).await
        })
    });
    hear.recv().unwrap()
}

/// A route that is served to whoever sends a payment.
#[derive(Clone)]
struct Paid {
    required: HeaderValue,
    response: HeaderValue,
}

impl Paid {
    fn new() -> Paid {
        let mut required =
            PaymentRequired::stripe("/", usd!("1"), usd!("5"), "pk_test_farebox_sandbox");
        required.accepts[0].amount = Units::new(100).unwrap();
        let mut response = PaymentResponse::refused(ErrorCode::InsufficientCredits);
        response.success = true;
        response.client_id = "payer.1.secret".to_owned();
        response.credits_remaining = Units::new(40_000).unwrap();
        (response.error, response.error_code) = (None, None);
        let value = |text| HeaderValue::try_from(text).unwrap();
        Paid { required: value(required.encode()), response: value(response.encode()) }
    }

    fn answer(&self, headers: &HeaderMap) -> impl IntoResponse + use<> {
        let is_paid = headers.contains_key(PAYMENT);
        if is_paid {
            (StatusCode::OK, [(PAYMENT_RESPONSE, self.response.clone())], BODY)
        } else {
            (StatusCode::PAYMENT_REQUIRED, [(PAYMENT_REQUIRED, self.required.clone())], BODY)
        }
    }
}
