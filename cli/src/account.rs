//! `farebox account`: one payer's account, and the list of all.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use farebox_ledger::book::FreezeReason;
use farebox_protocol::{Currency, PayerId};
use serde::Serialize;

use crate::Fault;
use crate::refund;
use crate::source::Place;
use crate::statement;
use crate::terminal::{self, Cell, DIM, GOOD, HEADING, Progress};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show what a payer has, spent and owes, and whether it may spend.
    Show(Show),
    /// Show what a payer's money did, newest first.
    Statement(statement::Options),
    /// List the payers with the largest balances.
    List(List),
    /// Give unspent credit back to the cards that paid it, newest charge first.
    Refund(refund::Options),
    /// Freeze a payer: it can neither spend nor pay while a reason remains.
    Freeze(Freeze),
    /// Take a reason away; with the last one, the payer may spend again.
    Unfreeze(Freeze),
    /// Revoke a payer's credentials. Its credit stays, and its card leads to it again.
    Revoke(Revoke),
}

#[derive(clap::Args)]
pub(crate) struct Show {
    /// The payer's id: 64 hex digits.
    #[arg(value_parser = payer)]
    payer: PayerId,
    /// Print one line of JSON, amounts in micros.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// How many are listed.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one line of JSON, amounts in micros.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
pub(crate) struct Freeze {
    /// The payer's id: 64 hex digits.
    #[arg(value_parser = payer)]
    payer: PayerId,
    /// Why: `operator`, or the id of a dispute; 1 to 64 of A-Z, a-z, 0-9, `_`, `.`, `-`, `:`.
    #[arg(long)]
    reason: FreezeReason,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
pub(crate) struct Revoke {
    /// The payer's id: 64 hex digits.
    #[arg(value_parser = payer)]
    payer: PayerId,
    /// Only the issued credential of this number; without it, all of them, and the cards that
    /// spend without one.
    #[arg(long, value_name = "N")]
    credential: Option<u16>,
    #[command(flatten)]
    place: Place,
}

/// Reads a payer's id.
pub(crate) fn payer(text: &str) -> Result<PayerId, &'static str> {
    text.parse().map_err(|_| "a payer's id is 64 of 0-9 and a-f: `farebox account list` shows them")
}

pub(crate) async fn run(command: Command) -> Result<ExitCode, Fault> {
    match command {
        Command::Show(options) => show(options).await?,
        Command::Statement(options) => statement::run(options).await?,
        Command::List(options) => list(options).await?,
        Command::Refund(options) => return refund::run(options).await,
        Command::Freeze(options) => freeze(options, true).await?,
        Command::Unfreeze(options) => freeze(options, false).await?,
        Command::Revoke(options) => revoke(options).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(Show { payer, json, place }: Show) -> Result<(), Fault> {
    let sheet = place.open().await?.sheet(payer).await?;
    if json { terminal::print_json(&sheet) } else { terminal::print(&sheet.text()) }
}

async fn freeze(Freeze { payer, reason, place }: Freeze, freeze: bool) -> Result<(), Fault> {
    let source = place.open().await?;
    let before = source.sheet(payer).await?.frozen;
    let after = source.freeze(payer, reason.clone(), freeze).await?;
    let was = before.iter().any(|known| known == reason.as_str());
    let what = match (freeze, was) {
        (true, true) => format!("The payer was frozen for {reason} already."),
        (true, false) => format!("The payer is frozen for {reason}."),
        (false, true) => format!("The payer is not frozen for {reason} any more."),
        (false, false) => format!("The payer was not frozen for {reason}; nothing changed."),
    };
    let others: Vec<_> = after.iter().filter(|other| *other != reason.as_str()).collect();
    let rest = match (others.as_slice(), after.is_empty()) {
        ([], true) => "It may spend and pay.".to_owned(),
        ([], false) => "It can neither spend nor pay.".to_owned(),
        (others, _) => {
            let others: Vec<_> = others.iter().map(|other| terminal::tame(other)).collect();
            format!("It can neither spend nor pay, also because of {}.", others.join(", "))
        }
    };
    terminal::print(&format!("{what} {rest}\n"))
}

async fn revoke(Revoke { payer, credential, place }: Revoke) -> Result<(), Fault> {
    let source = place.open().await?;
    let before = source.sheet(payer).await?;
    if let Some(number) = credential
        && !before.credentials.iter().any(|row| row.number == number)
    {
        return Err(format!(
            "the payer has no credential {number}: `farebox account show {payer}` lists them"
        )
        .into());
    }
    let generation = source.revoke(payer, credential).await?;
    terminal::print(&match credential {
        Some(number) => format!("Credential {number} is revoked. The payer's others stay.\n"),
        None => format!(
            "All credentials of the payer are revoked, and it is known by no card any more. \
             The next ones are of generation {generation}.\n"
        ),
    })
}

/// A payer's balance in one currency.
#[derive(Serialize)]
struct Balance {
    payer: PayerId,
    available: i64,
    spent: i64,
    frozen: bool,
}

async fn list(List { limit, json, place }: List) -> Result<(), Fault> {
    let source = place.open().await?;
    let mut books = source.books().await?;
    let progress = Progress::new("listing");
    let mut balances: BTreeMap<Currency, Vec<Balance>> = BTreeMap::new();
    let mut read = 0;
    while let Some((payer, book)) = books.next().await? {
        let frozen = !book.head.frozen.is_empty();
        for (&currency, account) in &book.head.accounts {
            let (available, spent) = (account.available.get(), account.spent.get());
            let rows = balances.entry(currency).or_default();
            rows.push(Balance { payer, available, spent, frozen });
            if rows.len() > limit.saturating_mul(2).max(1_000) {
                largest(rows, limit);
            }
        }
        read += 1;
        progress.show(read, books.payers());
    }
    drop(progress);
    balances.values_mut().for_each(|rows| largest(rows, limit));
    if json {
        return terminal::print_json(&balances);
    }
    if balances.is_empty() {
        return terminal::print("No payer has an account yet.\n");
    }
    let texts: Vec<_> = balances.iter().map(|(&currency, rows)| listed(currency, rows)).collect();
    terminal::print(&texts.join("\n"))
}

/// Keeps the `limit` largest, in their order.
fn largest(rows: &mut Vec<Balance>, limit: usize) {
    rows.sort_by_key(|row| (std::cmp::Reverse(row.available), row.payer));
    rows.truncate(limit);
}

fn listed(currency: Currency, balances: &[Balance]) -> String {
    let column = |of: fn(&Balance) -> i64| {
        let amounts = balances.iter().map(|row| terminal::decimal(of(row).into(), currency));
        let mut amounts: Vec<_> = amounts.collect();
        terminal::align_points(&mut amounts);
        amounts
    };
    let (available, spent) = (column(|row| row.available), column(|row| row.spent));
    let heads = [Cell::left("payer"), Cell::right("available"), Cell::right("spent")];
    let mut rows = vec![heads.map(|cell| cell.style(DIM)).to_vec()];
    for ((balance, available), spent) in balances.iter().zip(available).zip(spent) {
        rows.push(vec![
            Cell::left(balance.payer.to_string()),
            Cell::right(available).style(GOOD),
            Cell::right(spent),
            Cell::left(if balance.frozen { "frozen" } else { "" }).style(terminal::BAD),
        ]);
    }
    format!("{HEADING}{currency}{HEADING:#}\n{}", terminal::table(&rows))
}
