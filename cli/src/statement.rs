//! `farebox account statement`: what a payer's money did, as a table, as bars, or as JSON.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use farebox_ledger::clock::{Clock as _, SystemClock};
use farebox_ledger::statement::{Cursor, Page, StatementLine, What};
use farebox_protocol::{Currency, PayerId};

use crate::Fault;
use crate::source::{Place, Source};
use crate::terminal::{self, BAD, CAREFUL, Cell, DIM, GOOD, HEADING, PLAIN};

/// How many lines are asked for at once.
const PAGE: usize = 1_000;
/// How many days the bars show.
const DAYS: u32 = 30;
/// How long the longest bar is.
const BAR: usize = 40;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The payer's id: 64 hex digits.
    #[arg(value_parser = crate::account::payer)]
    payer: PayerId,
    /// How many lines at most.
    #[arg(long, value_name = "N", default_value = "20", conflicts_with_all = ["all", "chart"])]
    limit: NonZeroUsize,
    /// Where to go on; the statement before said it.
    #[arg(long, conflicts_with_all = ["all", "chart"])]
    cursor: Option<Cursor>,
    /// All lines there are. Spending is kept for 13 weeks, top-ups for ever.
    #[arg(long, conflicts_with = "chart")]
    all: bool,
    /// A bar for what was spent on each of the last 30 days.
    #[arg(long)]
    chart: bool,
    /// Print one line of JSON, amounts in micros.
    #[arg(long, conflicts_with = "chart")]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(crate) async fn run(options: Options) -> Result<(), Fault> {
    let Options { payer, limit, cursor, all, chart, json, place } = options;
    let source = place.open().await?;
    if chart {
        let today = SystemClock.now().day();
        let since = today.saturating_sub(DAYS - 1);
        let recent = |line: &StatementLine| line.at.day() >= since;
        let page = collect(&source, payer, None, usize::MAX, recent).await?;
        return terminal::print(&bars(&page.lines, since, today));
    }
    let limit = if all { usize::MAX } else { limit.get() };
    let page = collect(&source, payer, cursor, limit, |_| true).await?;
    if json { terminal::print_json(&page) } else { terminal::print(&text(&page)) }
}

/// Up to `limit` lines, as long as they are `wanted`.
async fn collect(
    source: &Source,
    payer: PayerId,
    from: Option<Cursor>,
    limit: usize,
    wanted: impl Fn(&StatementLine) -> bool,
) -> Result<Page, Fault> {
    let mut all = Page { lines: Vec::new(), next: from };
    loop {
        let want = (limit - all.lines.len()).min(PAGE);
        let page = source.statement(payer, all.next, want).await?;
        if page.next.is_some() && page.lines.is_empty() {
            return Err("the server's statement does not end: update it or farebox".into());
        }
        let enough = page.lines.last().is_some_and(|line| !wanted(line));
        all.next = page.next;
        all.lines.extend(page.lines);
        if all.next.is_none() || enough || all.lines.len() >= limit {
            return Ok(all);
        }
    }
}

/// The lines in words, for a terminal.
fn text(page: &Page) -> String {
    if page.lines.is_empty() {
        return "Nothing happened here yet.\n".to_owned();
    }
    let mut amounts: Vec<_> = page.lines.iter().map(amount).collect();
    terminal::align_points(&mut amounts);
    let heads = [Cell::left("time (UTC)"), Cell::left("what"), Cell::left("where")];
    let mut rows = vec![heads.map(|cell| cell.style(DIM)).to_vec()];
    rows[0].push(Cell::right("amount").style(DIM));
    for (line, amount) in page.lines.iter().zip(amounts) {
        let (what, place, style) = words(&line.what);
        let currency = if amount.trim().is_empty() { "" } else { line.currency.code() };
        rows.push(vec![
            Cell::left(time(line)).style(DIM),
            Cell::left(what).style(style),
            Cell::left(place),
            Cell::right(amount).style(style),
            Cell::left(currency),
        ]);
    }
    let mut text = terminal::table(&rows);
    if let Some(next) = page.next {
        text.push_str(&format!("{DIM}There is more: --cursor {next}, or --all{DIM:#}\n"));
    }
    text
}

/// When it was; of usage only the hour is kept.
fn time(line: &StatementLine) -> String {
    let hour_only = matches!(line.what, What::Spent { .. });
    terminal::utc(line.at.millis(), if hour_only { "%Y-%m-%d %Hh" } else { "%Y-%m-%d %H:%M" })
}

/// What the line adds to what can be spent, or takes from it.
fn amount(line: &StatementLine) -> String {
    let (amount, adds) = match &line.what {
        What::Received { amount, .. } => (amount, true),
        What::Spent { amount, .. }
        | What::Refunded { amount, .. }
        | What::Withdrawn { amount, .. } => (amount, false),
        What::Opened { .. } | What::Failed { .. } => return String::new(),
    };
    let micros = i128::from(amount.get());
    let micros = if adds { micros } else { -micros };
    let sign = if micros > 0 { "+" } else { "" };
    format!("{sign}{}", terminal::decimal(micros, line.currency))
}

fn words(what: &What) -> (&'static str, String, anstyle::Style) {
    let of = |top_up: &u64| format!("top-up {top_up}");
    match what {
        What::Spent { route, .. } => ("spent", terminal::tame(route.as_str()), PLAIN),
        What::Opened { top_up } => ("under way", of(top_up), CAREFUL),
        What::Failed { top_up, code } => {
            ("failed", format!("{}, {}", of(top_up), code.0.as_str()), DIM)
        }
        What::Received { top_up, .. } => ("received", of(top_up), GOOD),
        What::Refunded { top_up, amount } if amount.get() < 0 => {
            ("refund failed", of(top_up), GOOD)
        }
        What::Refunded { top_up, .. } => ("refunded", of(top_up), CAREFUL),
        What::Withdrawn { top_up, amount } if amount.get() < 0 => ("given back", of(top_up), GOOD),
        What::Withdrawn { top_up, .. } => ("withdrawn", of(top_up), BAD),
    }
}

/// A bar for each day from `since` to `today`, for each currency that was spent.
fn bars(lines: &[StatementLine], since: u32, today: u32) -> String {
    let mut spent: BTreeMap<Currency, BTreeMap<u32, i128>> = BTreeMap::new();
    for line in lines {
        if let What::Spent { amount, .. } = &line.what
            && (since..=today).contains(&line.at.day())
        {
            let days = spent.entry(line.currency).or_default();
            *days.entry(line.at.day()).or_default() += i128::from(amount.get());
        }
    }
    if spent.is_empty() {
        return format!("Nothing was spent in the last {DAYS} days.\n");
    }
    let charts: Vec<_> =
        spent.iter().map(|(&currency, days)| chart(currency, days, today)).collect();
    charts.join("\n")
}

/// The bars of one currency, from the first day on which something was spent.
fn chart(currency: Currency, days: &BTreeMap<u32, i128>, today: u32) -> String {
    let first = days.keys().next().copied().unwrap_or(today);
    let most = days.values().copied().max().unwrap_or(0);
    let of = |day: u32| days.get(&day).copied().unwrap_or(0);
    let mut amounts: Vec<_> =
        (first..=today).map(|day| terminal::decimal(of(day), currency)).collect();
    terminal::align_points(&mut amounts);
    let row = |(day, amount): (u32, String)| {
        let amount = Cell::right(amount);
        vec![
            Cell::left(terminal::utc(i64::from(day) * 86_400_000, "%a %m-%d")).style(DIM),
            if of(day) == 0 { amount.style(DIM) } else { amount },
            Cell::left(terminal::bar(of(day), most, BAR, false)).style(GOOD),
        ]
    };
    let rows: Vec<_> = (first..=today).zip(amounts).map(row).collect();
    let total = terminal::decimal(days.values().sum(), currency);
    let title = format!("{HEADING}Spent: {total} {currency}, by day (UTC){HEADING:#}\n");
    title + &terminal::table(&rows)
}
