//! `farebox spend`: what was spent where, and what is left of the budget.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use farebox_client::{Policy, Spending, Spent, Usage, Window};
use farebox_ledger::clock::{Clock as _, SystemClock};
use farebox_protocol::{Currency, Micros, Money};
use serde::Serialize;

use crate::Fault;
use crate::reconcile::Since;
use crate::settings::{Home, Ready};
use crate::terminal::{self, BAD, Cell, DIM, GOOD, HEADING, tame};

/// The columns of a chart where no terminal says how many there are.
const COLUMNS: usize = 80;
/// The shortest that the longest bar may be.
const BAR_MIN: usize = 10;

#[derive(clap::Args)]
#[command(
    after_help = "It repeats what servers said when they were paid. What may still be paid is \
    decided by the budget, which also counts charges whose outcome nobody told; the second table \
    shows it. An amount marked `~` is at least in part what was allowed, because the server did \
    not say what it took. Windows begin at 00:00 UTC, weeks on Monday."
)]
pub(crate) struct Options {
    /// What is summed up in one row.
    #[arg(long, value_enum, default_value_t = By::Origin)]
    by: By,
    /// From when on: how long ago, such as 30d, or a day, such as 2026-11-01. All, if not said.
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// A bar for what was spent, in the same rows.
    #[arg(long, conflicts_with = "json")]
    chart: bool,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What is summed up in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Day,
    Week,
    Month,
    Origin,
}

/// A limit of the policy that sums, and how much of it is used.
#[derive(Serialize)]
struct Limit {
    /// `day`, `week`, `month`, `rolling 6h` or `lifetime`.
    window: String,
    limit: Money,
    used: Money,
    left: Money,
    /// Unix seconds.
    resets_at: Option<i64>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    spending: &'a Spending,
    limits: &'a [Limit],
}

pub(crate) async fn run(options: Options) -> Result<(), Fault> {
    let Options { by, since, chart, json } = options;
    let now = SystemClock.now().seconds();
    let since = since.map(|since| since.at(now)).transpose()?;
    let Ready { agent, policy, .. } = Home::find()?.looking().await?;
    let spending = agent.spending().await?.since(since.unwrap_or(i64::MIN));
    let spending = match by {
        By::Day => spending.by_window(Window::Day),
        By::Week => spending.by_window(Window::Week),
        By::Month => spending.by_window(Window::Month),
        By::Origin => spending.by_origin(),
    };
    let limits = match &policy {
        Some(policy) => limits(policy, &agent.usage().await?, now),
        None => Vec::new(),
    };
    if json {
        return terminal::print_json(&Report { spending: &spending, limits: &limits });
    }
    if chart {
        let columns = terminal::width().unwrap_or(COLUMNS);
        let plain = !io::stdout().is_terminal();
        return terminal::print(&bars(&spending, by, columns, plain));
    }
    let mut text = table(&spending, by);
    if !limits.is_empty() {
        text.push_str(&format!("\n{}", left(&limits)));
    }
    terminal::print(&text)
}

fn limits(policy: &Policy, usage: &Usage, now: i64) -> Vec<Limit> {
    let of = policy.limits();
    let calendar =
        [(Window::Day, of.per_day), (Window::Week, of.per_week), (Window::Month, of.per_month)];
    let rolling = of.rolling.iter().map(|one| (Window::Rolling(one.window), Some(one.limit)));
    let all = calendar.into_iter().chain(rolling).chain([(Window::Lifetime, of.lifetime)]);
    let set = all.filter_map(|(window, limit)| Some((window, limit?)));
    let limits = set.map(|(window, limit)| {
        let used = usage.held_in(window, limit.currency(), now);
        let left = limit.micros().checked_sub(used.micros()).unwrap_or_default();
        Limit {
            window: name(window),
            limit,
            used,
            left: Money::new(left.max(Micros::ZERO), limit.currency()),
            resets_at: window.resets_at(now),
        }
    });
    limits.collect()
}

pub(crate) fn name(window: Window) -> String {
    match window {
        Window::Day => "day".to_owned(),
        Window::Week => "week".to_owned(),
        Window::Month => "month".to_owned(),
        Window::Rolling(span) => format!("rolling {span}"),
        _ => "lifetime".to_owned(),
    }
}

/// What a row is about.
fn label(row: &Spent, by: By) -> String {
    let day = |format| row.day.map(|day| terminal::utc(day.saturating_mul(1_000), format));
    let label = match by {
        By::Origin => row.origin.as_deref().map(tame),
        By::Day => day("%a %Y-%m-%d"),
        By::Week => day("week of %Y-%m-%d"),
        By::Month => day("%Y-%m"),
    };
    label.unwrap_or_else(|| if by == By::Origin { "others" } else { "earlier" }.to_owned())
}

fn heading(by: By) -> &'static str {
    match by {
        By::Origin => "server",
        By::Day | By::Week | By::Month => "when (UTC)",
    }
}

fn amount(money: Money) -> String {
    terminal::decimal(money.micros().get().into(), money.currency())
}

fn table(spending: &Spending, by: By) -> String {
    let rows = spending.rows();
    if rows.is_empty() {
        return "Nothing was spent.\n".to_owned();
    }
    let column = |of: &dyn Fn(&Spent) -> String| {
        let mut amounts: Vec<_> = rows.iter().map(of).collect();
        terminal::align_points(&mut amounts);
        amounts
    };
    let spent =
        column(&|row| format!("{}{}", if row.assumed { "~" } else { "" }, amount(row.spent)));
    let topped_up = column(&|row| amount(row.topped_up));
    let left = column(&|row| row.remaining.map_or_else(String::new, amount));
    let heads = ["spent", "", "requests", "card charged"].map(Cell::right);
    let mut head = vec![Cell::left(heading(by))];
    head.extend(heads);
    if by == By::Origin {
        head.push(Cell::right("left"));
    }
    let mut lines = vec![head.into_iter().map(|cell| cell.style(DIM)).collect::<Vec<_>>()];
    for (i, row) in rows.iter().enumerate() {
        let mut line = vec![
            Cell::left(label(row, by)),
            Cell::right(spent[i].clone()),
            Cell::left(row.spent.currency().code()).style(DIM),
            Cell::right(row.requests.to_string()),
            Cell::right(topped_up[i].clone()),
        ];
        if by == By::Origin {
            line.push(Cell::right(left[i].clone()).style(GOOD));
        }
        lines.push(line);
    }
    terminal::table(&lines)
}

fn left(limits: &[Limit]) -> String {
    let column = |of: fn(&Limit) -> Money| {
        let mut amounts: Vec<_> = limits.iter().map(|limit| amount(of(limit))).collect();
        terminal::align_points(&mut amounts);
        amounts
    };
    let (most, used, left) =
        (column(|limit| limit.limit), column(|limit| limit.used), column(|limit| limit.left));
    let heads = [Cell::left("budget per"), Cell::right("limit"), Cell::right("used")];
    let heads =
        heads.into_iter().chain([Cell::right("left"), Cell::left(""), Cell::left("resets (UTC)")]);
    let mut rows = vec![heads.map(|cell| cell.style(DIM)).collect::<Vec<_>>()];
    for (i, limit) in limits.iter().enumerate() {
        let resets =
            limit.resets_at.map(|at| terminal::utc(at.saturating_mul(1_000), "%Y-%m-%d %H:%M"));
        let style = if limit.left.micros() == Micros::ZERO { BAD } else { GOOD };
        rows.push(vec![
            Cell::left(limit.window.clone()),
            Cell::right(most[i].clone()),
            Cell::right(used[i].clone()),
            Cell::right(left[i].clone()).style(style),
            Cell::left(limit.limit.currency().code()).style(DIM),
            Cell::left(resets.unwrap_or_default()),
        ]);
    }
    terminal::table(&rows)
}

/// A chart of each currency, `columns` wide at most.
fn bars(spending: &Spending, by: By, columns: usize, plain: bool) -> String {
    let mut currencies: Vec<_> = spending.rows().iter().map(|row| row.spent.currency()).collect();
    currencies.sort_unstable();
    currencies.dedup();
    if currencies.is_empty() {
        return "Nothing was spent.\n".to_owned();
    }
    let charts = currencies.into_iter().map(|currency| {
        let of = |row: &&Spent| row.spent.currency() == currency;
        let rows: Vec<_> = spending.rows().iter().filter(of).collect();
        chart(&rows, currency, by, columns, plain)
    });
    charts.collect::<Vec<_>>().join("\n")
}

fn chart(rows: &[&Spent], currency: Currency, by: By, columns: usize, plain: bool) -> String {
    let micros = |row: &Spent| i128::from(row.spent.micros().get());
    let most = rows.iter().map(|row| micros(row)).max().unwrap_or(0);
    let labels: Vec<_> = rows.iter().map(|row| label(row, by)).collect();
    let mut amounts: Vec<_> = rows.iter().map(|row| amount(row.spent)).collect();
    terminal::align_points(&mut amounts);
    let widest =
        |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let room = columns.saturating_sub(widest(&labels) + widest(&amounts) + 4).max(BAR_MIN);
    let lines: Vec<_> = rows
        .iter()
        .zip(labels.iter().zip(amounts))
        .map(|(row, (label, amount))| {
            vec![
                Cell::left(label.clone()).style(DIM),
                Cell::right(amount),
                Cell::left(terminal::bar(micros(row), most, room, plain)).style(GOOD),
            ]
        })
        .collect();
    let total = terminal::decimal(rows.iter().map(|row| micros(row)).sum(), currency);
    format!("{HEADING}Spent: {total} {currency}{HEADING:#}\n{}", terminal::table(&lines))
}
