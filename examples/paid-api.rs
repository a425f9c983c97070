//! An axum server that charges for requests.
//!
//! ```text
//! cargo run -p farebox-examples --bin paid-api
//! ```
//!
//! `FAREBOX_LISTEN`, `FAREBOX_LEDGER`, `FAREBOX_SECRET`, `FAREBOX_SETTLE_WITHIN_MS`,
//! `STRIPE_SECRET_KEY`, `STRIPE_PUBLISHABLE_KEY`, `STRIPE_WEBHOOK_SECRET` and `STRIPE_API_BASE`
//! configure it. Without Stripe keys it starts a sandbox of Stripe in its own process, and says
//! where. With `FAREBOX_ADMIN_TOKEN` it also answers its operator, at `FAREBOX_ADMIN_LISTEN`.
//! `FAREBOX_LOG` is the level that it logs at: `info`, or another one up to `trace`.

use std::error::Error;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use farebox_middleware::{Admission, Payer, Payments, Stripe, usd};
use farebox_sandbox::Sandbox;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What costs what. A request that fails costs nothing.
fn app(payments: &Payments) -> Router {
    Router::new()
        .route("/", get(|| async { "Free. Try /api/joke for 100 units of 1/10,000 dollar.\n" }))
        .route("/api/joke", get(joke).route_layer(payments.price(usd!("0.01"))))
        .route("/api/weather", get(weather).route_layer(payments.price(usd!("0.05"))))
        .route("/api/echo", post(echo).route_layer(payments.price(usd!("0.005"))))
        .route("/api/fail", get(fail).route_layer(payments.price(usd!("0.01"))))
        .nest_service("/account", payments.account_routes())
}

/// The same, where Stripe tells of refunds and disputes if its events can be told from others'.
fn with_webhook(app: Router, payments: &Payments) -> Router {
    match payments.webhook() {
        Ok(webhook) => app.route_service("/stripe", webhook),
        Err(_) => app,
    }
}

async fn joke(payer: Payer) -> String {
    format!(
        "Why did payer {:.8} cross the road? To get to the other 402.\n",
        payer.id().to_string()
    )
}

async fn weather() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "city": "Oslo", "celsius": 7 }))
}

async fn echo(body: axum::body::Bytes) -> axum::body::Bytes {
    body
}

async fn fail() -> (StatusCode, &'static str) {
    (StatusCode::INTERNAL_SERVER_ERROR, "It broke, so it costs nothing.\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let colours = std::io::stderr().is_terminal();
    let level: tracing_subscriber::filter::LevelFilter = variable("FAREBOX_LOG", "info").parse()?;
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours);
    log.with_max_level(level).init();
    let (stripe, sandbox) = stripe_or_sandbox().await?;
    let ledger = variable("FAREBOX_LEDGER", "embedded:farebox.redb");
    let mut payments = Payments::builder(stripe).ledger(&ledger);
    if let Some(bound) = optional("FAREBOX_SETTLE_WITHIN_MS") {
        payments = payments.settle_within(Duration::from_millis(bound.parse()?));
    }
    if optional("FAREBOX_ADMISSION").as_deref() == Some("unlimited") {
        payments = payments.admission(Admission::unlimited());
    }
    let payments = payments.open().await?;
    if let Some(token) = optional("FAREBOX_ADMIN_TOKEN") {
        serve_admin(&payments, &token).await?;
    }

    let listen = variable("FAREBOX_LISTEN", "127.0.0.1:4020");
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let stopped = stopped(signal(SignalKind::terminate())?);
    println!("listening on http://{}", listener.local_addr()?);
    // With the address of each client, which limits how often it tries cards.
    let app = with_webhook(app(&payments), &payments);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(stopped).await?;

    payments.close().await?; // finishes open top-ups
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    Ok(())
}

/// Answers the operator, on a listener of its own that nobody else can reach.
async fn serve_admin(payments: &Payments, token: &str) -> Result<(), Box<dyn Error>> {
    let admin = Router::new().fallback_service(payments.admin_routes(token)?);
    let admin = admin.into_make_service_with_connect_info::<SocketAddr>();
    let listen = variable("FAREBOX_ADMIN_LISTEN", "127.0.0.1:4029");
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("admin on http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, admin).await });
    Ok(())
}

/// Stripe with the keys of the environment, or a sandbox when there are none.
async fn stripe_or_sandbox() -> Result<(Stripe, Option<Sandbox>), Box<dyn Error>> {
    if ["STRIPE_SECRET_KEY", "STRIPE_PUBLISHABLE_KEY"].iter().any(|key| optional(key).is_some()) {
        return Ok((Stripe::from_env()?, None));
    }
    let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
    let stripe = Stripe::new(sandbox.secret_key(), sandbox.publishable_key())?;
    println!("no Stripe keys: a sandbox of Stripe runs at {}", sandbox.url());
    println!("  STRIPE_API_BASE={}", sandbox.url());
    println!("  STRIPE_SECRET_KEY={}", sandbox.secret_key());
    println!("  STRIPE_PUBLISHABLE_KEY={}", sandbox.publishable_key());
    Ok((stripe.base_url(sandbox.url())?, Some(sandbox)))
}

fn variable(name: &str, default: &str) -> String {
    optional(name).unwrap_or(default.to_owned())
}

fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Ctrl-C or SIGTERM.
async fn stopped(mut terminate: Signal) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
