//! `farebox hostile`: providers that cheat, on loopback, for any client of the protocol.

use std::net::SocketAddr;
use std::process::ExitCode;

use farebox_protocol::Currency;
use farebox_sandbox::hostile::{Hostile, Kind, Verdict, scenarios};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::terminal::{self, Cell};
use crate::{Fault, TO_LOOK_AT};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the list of scenarios is; loopback only. The scenarios take free ports.
    #[arg(long, default_value = "127.0.0.1:4022")]
    listen: SocketAddr,
    /// Print JSON instead of text: first where everything is, in the end the verdicts.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    let battery = Hostile::start(options.listen).await.map_err(crate::sandbox::because)?;
    let mut terminate = signal(SignalKind::terminate())?;
    if options.json {
        let stripe = battery.sandbox().url();
        terminal::print_json(&json!({ "url": battery.url(), "stripe": stripe }))?;
    } else {
        terminal::print(&opening(&battery))?;
    }
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminate.recv() => {}
    }
    let verdicts = battery.verdicts();
    if options.json {
        terminal::print_json(&verdicts)?;
    } else {
        terminal::print(&closing(&verdicts))?;
    }
    let failed = verdicts.iter().any(|verdict| verdict.requests > 0 && !verdict.within);
    Ok(if failed { ExitCode::from(TO_LOOK_AT) } else { ExitCode::SUCCESS })
}

/// What to ask, and with what.
fn opening(battery: &Hostile) -> String {
    let mut rows = Vec::new();
    for scenario in scenarios() {
        let style = match scenario.kind {
            Kind::Attack => terminal::PLAIN,
            Kind::Control => terminal::GOOD,
        };
        rows.push(vec![
            Cell::left(scenario.method),
            Cell::left(battery.scenario_url(scenario.name).unwrap_or_default()),
            Cell::left(scenario.name).style(style),
            Cell::left(scenario.what).style(terminal::DIM),
        ]);
    }
    format!(
        "{}\nPoint the client's tokenizer (https://api.stripe.com) at {}, allow it the host\n\
         127.0.0.1, 0.05 usd for a request, 5 usd for a top-up and 10 usd in a day, and ask each \
         address\na few times, with a client of its own. Ctrl-C prints what came of it.\n\
         From another language: {}/scenarios and {}/verdicts\n",
        terminal::table(&rows),
        battery.sandbox().url(),
        battery.url(),
        battery.url(),
    )
}

/// What came of it.
fn closing(verdicts: &[Verdict]) -> String {
    let heading = ["", "scenario", "requests", "paid", "served", "cost", "allowed", "leaks"];
    let heading = heading.map(|title| Cell::left(title).style(terminal::HEADING));
    let mut rows = vec![heading.to_vec()];
    rows.extend(verdicts.iter().map(row));
    let asked: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.requests > 0).collect();
    let failed = asked.iter().filter(|verdict| !verdict.within).count();
    let summary = format!(
        "{} of {} scenarios were asked; {failed} went wrong.\n",
        asked.len(),
        verdicts.len()
    );
    format!("\n{}\n{summary}", terminal::table(&rows))
}

fn row(verdict: &Verdict) -> Vec<Cell> {
    let (word, style) = match verdict {
        Verdict { requests: 0, .. } => ("not asked", terminal::DIM),
        Verdict { within: true, .. } => ("well", terminal::GOOD),
        Verdict { .. } => ("wrong", terminal::BAD),
    };
    let cents = |cents: i64| {
        Cell::right(format!("{} usd", terminal::decimal(i128::from(cents) * 10_000, Currency::USD)))
    };
    vec![
        Cell::left(word).style(style),
        Cell::left(verdict.name),
        Cell::right(verdict.requests.to_string()),
        Cell::right(verdict.payments.to_string()),
        Cell::right(verdict.served.to_string()),
        cents(verdict.cost).style(style),
        cents(verdict.allowed),
        Cell::left(verdict.leaks.join("; ")).style(terminal::BAD),
    ]
}
