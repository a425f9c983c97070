//! `farebox sandbox`: Stripe on loopback, until it is stopped.

use std::net::SocketAddr;
use std::time::Duration;

use farebox_sandbox::Sandbox;
use tokio::signal::unix::{SignalKind, signal};

use crate::Fault;

/// Cards to try, and what they do.
const CARDS: [(&str, &str); 8] = [
    ("4242424242424242", "succeeds"),
    ("5555555555554444", "succeeds"),
    ("4000000000000002", "is declined"),
    ("4000000000009995", "has insufficient funds"),
    ("4000000000000069", "is expired"),
    ("4000000000000127", "has a wrong CVC"),
    ("4000000000000119", "meets a processing error"),
    ("4000002760003184", "wants its holder (3D Secure)"),
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to listen; loopback only.
    #[arg(long, default_value = "127.0.0.1:4021")]
    listen: SocketAddr,
    /// Milliseconds between the effect of a call and its answer.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// Makes ids repeat from run to run. Never beside a ledger that outlives the sandbox.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> Result<(), Fault> {
    let mut builder = Sandbox::builder().latency(Duration::from_millis(options.latency));
    if let Some(seed) = options.seed {
        builder = builder.seed(seed);
    }
    let sandbox = builder.start(options.listen).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let variables = [
        ("STRIPE_API_BASE", sandbox.url()),
        ("STRIPE_SECRET_KEY", sandbox.secret_key()),
        ("STRIPE_PUBLISHABLE_KEY", sandbox.publishable_key()),
    ];
    if options.json {
        let map: serde_json::Map<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        println!("{}", serde_json::Value::Object(map));
    } else {
        println!("Stripe's sandbox runs at {}. Stop it with Ctrl-C.\n", sandbox.url());
        for (name, value) in variables {
            println!("export {name}={value}");
        }
        println!("\nCards (any later month, any CVC):");
        for (number, effect) in CARDS {
            println!("  {number}  {effect}");
        }
    }
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminate.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}
