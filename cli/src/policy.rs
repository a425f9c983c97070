//! `farebox policy`: what a policy allows, before an agent lives by it.

use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use farebox_client::{Money, Policy, Usage};
use farebox_ledger::clock::{Clock as _, SystemClock};
use farebox_policy::{Decision, Explanation, Limits, Request, explain};
use reqwest::Url;
use serde::Serialize;

use crate::get::{ASKED, REFUSED, money};
use crate::terminal::{self, BAD, CAREFUL, Cell, GOOD, HEADING, tame};
use crate::{Fault, TO_LOOK_AT};

/// A policy to begin with.
const EXAMPLE: &str = include_str!("policy/example.toml");

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Read a policy, and say what it allows and what is odd about it.
    Check(Check),
    /// Print a policy to begin with.
    Example,
}

#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 if it can be read, 1 if not, 4 with --strict if there are \
    warnings. With --url: 5 if the request would be refused, 7 if a human would be asked.")]
pub(crate) struct Check {
    /// The policy: TOML, or JSON if the name ends in `.json`; `-` is TOML on standard input.
    file: PathBuf,
    /// A warning is a failure.
    #[arg(long)]
    strict: bool,
    /// What would it say to a request to this URL, if nothing was spent yet?
    #[arg(long, requires = "price")]
    url: Option<Url>,
    /// The request's price, such as 0.02 or '2 jpy'; dollars if not said.
    #[arg(long, value_name = "AMOUNT", requires = "url", value_parser = money)]
    price: Option<Money>,
    /// Paid from a card charge of this amount; from credit, if not said.
    #[arg(long, value_name = "AMOUNT", requires = "url", value_parser = money)]
    top_up: Option<Money>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a Policy>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Fault> {
    match command {
        Command::Check(options) => check(&options),
        Command::Example => terminal::print(EXAMPLE).map(|()| ExitCode::SUCCESS),
    }
}

fn check(options: &Check) -> Result<ExitCode, Fault> {
    let name = tame(&options.file.to_string_lossy());
    let text = match name.as_str() {
        "-" => {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text).map(|_| text)
        }
        _ => fs::read_to_string(&options.file),
    };
    let text = text.map_err(|error| format!("{name} cannot be read: {error}"))?;
    let is_json = options.file.extension().is_some_and(|extension| extension == "json");
    let policy = if is_json { Policy::from_json(&text) } else { Policy::from_toml(&text) };
    let policy = match policy {
        Err(error) if options.json => {
            let (line, error) = (error.line(), Some(error.to_string()));
            let report = Report {
                valid: false,
                error,
                line,
                policy: None,
                warnings: Vec::new(),
                explanation: None,
            };
            return terminal::print_json(&report).map(|()| ExitCode::FAILURE);
        }
        policy => policy.map_err(|error| format!("{name}: {}", tame(&error.to_string())))?,
    };
    let warnings: Vec<_> = policy.warnings().iter().map(ToString::to_string).collect();
    let explanation = explanation(&policy, options)?;
    let status = match explanation.as_ref().map(|explanation| &explanation.decision) {
        _ if options.strict && !warnings.is_empty() => ExitCode::from(TO_LOOK_AT),
        Some(Decision::Refuse(_)) => ExitCode::from(REFUSED),
        Some(Decision::Escalate(_)) => ExitCode::from(ASKED),
        _ => ExitCode::SUCCESS,
    };
    if options.json {
        let policy = Some(&policy);
        let report = Report { valid: true, error: None, line: None, policy, warnings, explanation };
        terminal::print_json(&report)?;
    } else {
        terminal::print(&told(&policy, &warnings, explanation.as_ref())?)?;
    }
    Ok(status)
}

fn explanation(policy: &Policy, options: &Check) -> Result<Option<Explanation>, Fault> {
    let (Some(url), Some(price)) = (&options.url, options.price) else { return Ok(None) };
    let host = url.host_str().ok_or("--url has no host")?;
    let port = url.port_or_known_default().ok_or("--url has no port")?;
    let request = Request::new(host, port, price);
    let request = match options.top_up {
        Some(amount) => request.top_up(amount),
        None => request,
    };
    let now = SystemClock.now().seconds();
    Ok(Some(explain(policy, &Usage::new(), &request, now)))
}

fn told(
    policy: &Policy,
    warnings: &[String],
    explanation: Option<&Explanation>,
) -> Result<String, Fault> {
    let mut text = format!("{HEADING}What it allows{HEADING:#}\n{}", allows(policy)?);
    if warnings.is_empty() {
        text.push_str(&format!("\n{GOOD}Nothing about it is odd.{GOOD:#}\n"));
    } else {
        text.push_str(&format!("\n{HEADING}What is odd about it{HEADING:#}\n"));
    }
    for warning in warnings {
        text.push_str(&format!("{CAREFUL}warning{CAREFUL:#}: {}\n", tame(warning)));
    }
    if let Some(explanation) = explanation {
        let style = match explanation.decision {
            Decision::Allow => GOOD,
            Decision::Escalate(_) => CAREFUL,
            Decision::Refuse(_) => BAD,
        };
        let lines = explanation.to_string();
        let (rules, decision) = lines.rsplit_once('\n').unwrap_or(("", &lines));
        let rules: Vec<_> = rules.lines().map(tame).collect();
        let (rules, decision) = (rules.join("\n"), tame(decision));
        text.push_str(&format!("\n{rules}\n{style}{decision}{style:#}\n"));
    }
    Ok(text)
}

/// A row for each thing that it says.
fn allows(policy: &Policy) -> Result<String, Fault> {
    // The file's own form says what no accessor does.
    let written = serde_json::to_value(policy)?;
    let list = |entries: Vec<String>| match entries.as_slice() {
        [] => "none".to_owned(),
        entries => tame(&entries.join(", ")),
    };
    let hosts = policy.allowed().iter().map(ToString::to_string).collect::<Vec<_>>();
    let hosts = match &written["allow"] {
        serde_json::Value::Array(_) => list(hosts),
        _ => "every host".to_owned(),
    };
    let mut rows = vec![row("pays", hosts)];
    if !policy.blocked().is_empty() {
        rows.push(row("never", list(policy.blocked().iter().map(ToString::to_string).collect())));
    }
    rows.extend(amounts(policy.limits()));
    for (field, name) in [
        ("ask_above", "asks its owner above"),
        ("ask_above_total", "asks its owner above, within 24 hours"),
    ] {
        if let Some(threshold) = written[field].as_str() {
            rows.push(row(name, threshold.to_owned()));
        }
    }
    for own in policy.origins() {
        rows.push(row("at", tame(&own.host().to_string())));
        rows.extend(amounts(own.limits()));
    }
    Ok(terminal::table(&rows))
}

fn row(name: &str, value: String) -> Vec<Cell> {
    vec![Cell::left(name), Cell::left(value)]
}

fn amounts(limits: &Limits) -> Vec<Vec<Cell>> {
    let fixed = [
        ("at most, for one request", limits.per_request),
        ("at most, from the card at once", limits.per_top_up),
        ("at most, from the card in a day", limits.per_day),
        ("at most, from the card in a week", limits.per_week),
        ("at most, from the card in a month", limits.per_month),
        ("at most, from the card ever", limits.lifetime),
    ];
    let set = fixed.into_iter().filter_map(|(name, limit)| Some(row(name, limit?.to_string())));
    let rolling = limits.rolling.iter().map(|one| {
        row(&format!("at most, from the card within {}", one.window), one.limit.to_string())
    });
    let count = limits
        .payments_per_minute
        .map(|count| row("at most, card payments a minute", count.to_string()));
    set.chain(rolling).chain(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_policy_without_warnings() {
        let policy = Policy::from_toml(EXAMPLE).unwrap();
        assert_eq!(policy.warnings(), []);
        assert!(policy.allows("api.example.com", 443));
    }

    #[test]
    fn every_limit_is_told() {
        let policy = Policy::from_toml(
            r#"
            allow = ["a.example"]
            block = ["b.a.example"]
            per_request = "0.01 usd"
            per_top_up = "5.00 usd"
            per_day = "10.00 usd"
            per_week = "20.00 usd"
            per_month = "30.00 usd"
            rolling = [{ window = "6h", limit = "8.00 usd" }]
            lifetime = "100.00 usd"
            payments_per_minute = 3
            ask_above = "1.00 usd"
            ask_above_total = "6.00 usd"
            [[origin]]
            host = "c.a.example"
            per_day = "2.00 usd"
            "#,
        )
        .unwrap();
        let text = anstream::adapter::strip_str(&allows(&policy).unwrap()).to_string();
        for amount in ["0.01", "5.00", "10.00", "20.00", "30.00", "8.00", "100.00", "3", "1.00"] {
            assert!(text.contains(amount), "{amount}: {text}");
        }
        for other in ["6.00 usd", "2.00 usd", "a.example", "b.a.example", "c.a.example", "6h"] {
            assert!(text.contains(other), "{other}: {text}");
        }
    }
}
