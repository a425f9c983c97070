//! `farebox sandbox`: Stripe on loopback, until it is stopped.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use farebox_sandbox::{Builder, Delivery, Sandbox, StartError};
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
    /// Lets something go wrong: a method, a path (`*` is any one segment) and a kind, e.g.
    /// 'POST /v1/payment_intents reset_after skip=0 times=1'. May be repeated; `docs/sandbox.md`
    /// lists the kinds.
    #[arg(long, value_name = "FAULT")]
    fault: Vec<farebox_sandbox::Fault>,
    /// Requests let in per second, at each endpoint and in all (Stripe's sandboxes: 25).
    #[arg(long, value_name = "N")]
    rate_limit: Option<u32>,
    #[command(flatten)]
    webhook: Webhook,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Webhook {
    /// Send events to this URL, e.g. http://127.0.0.1:3000/webhooks; this machine only.
    #[arg(long = "webhook", value_name = "URL")]
    url: Option<String>,
    /// Sign them with this secret (whsec_...) instead of the sandbox's own. May be repeated.
    #[arg(long = "webhook-secret", value_name = "SECRET", requires = "url")]
    secrets: Vec<String>,
    /// Send every event twice.
    #[arg(long, requires = "url")]
    duplicate: bool,
    /// Send events in another order than they happened.
    #[arg(long, requires = "url")]
    reorder: bool,
    /// Of 100 events, never send as many.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, requires = "url")]
    drop: u32,
    /// Milliseconds between what happened and its event.
    #[arg(long, value_name = "MS", default_value_t = 0, requires = "url")]
    delay: u64,
}

impl Webhook {
    fn of(self, builder: Builder) -> Builder {
        let Self { url, secrets, duplicate, reorder, drop, delay } = self;
        let delivery = Delivery { duplicate, reorder, drop, delay_millis: delay, manual: false };
        match url {
            Some(url) => builder.webhook(url, secrets).delivery(delivery),
            None => builder,
        }
    }
}

pub(crate) async fn run(options: Options) -> Result<(), Fault> {
    let mut builder = Sandbox::builder().latency(Duration::from_millis(options.latency));
    if let Some(seed) = options.seed {
        builder = builder.seed(seed);
    }
    if let Some(limit) = options.rate_limit {
        builder = builder.rate_limit(limit, limit);
    }
    let sandbox = options.webhook.of(builder).start(options.listen).await.map_err(because)?;
    for fault in options.fault {
        sandbox.inject(fault);
    }
    let webhook_secret = sandbox.webhook_secret();
    let mut terminate = signal(SignalKind::terminate())?;
    let variables = [
        ("STRIPE_API_BASE", sandbox.url()),
        ("STRIPE_SECRET_KEY", sandbox.secret_key()),
        ("STRIPE_PUBLISHABLE_KEY", sandbox.publishable_key()),
        ("STRIPE_WEBHOOK_SECRET", &webhook_secret),
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
        println!("\nFaults, events and the clock: curl {}/sandbox", sandbox.url());
    }
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminate.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}

/// What was wrong, and the reason if there is one.
pub(crate) fn because(error: StartError) -> Fault {
    match error.source() {
        Some(source) => format!("{error}: {source}").into(),
        None => error.into(),
    }
}
