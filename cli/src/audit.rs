//! `farebox audit`: every balance recomputed, and the totals a bookkeeper asks for.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use farebox_ledger::audit::{Audit, Sums};
use serde::Serialize;

use crate::Fault;
use crate::sheet;
use crate::source::{Place, Source};
use crate::terminal::{self, BAD, GOOD, HEADING, Progress};

/// What the command ends with if books contradict themselves.
pub(crate) const CONTRADICTIONS: u8 = 3;

#[derive(clap::Args)]
#[command(
    after_help = "Standard output gets one line of JSON, amounts in micros, whatever it is; \
    a terminal on standard error also gets a table. Always: received - refunded - withdrawn = \
    income + unspent + reserved + refunding.\n\nExit status: 0 if every book adds up, 3 if one \
    does not, 1 if the audit could not be made."
)]
pub(crate) struct Options {
    /// No table, also on a terminal.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What is printed.
#[derive(Serialize)]
struct Report<'a> {
    clean: bool,
    #[serde(flatten)]
    audit: &'a Audit,
}

pub(crate) async fn run(Options { json, place }: Options) -> Result<ExitCode, Fault> {
    let audit = audit(&place.open().await?).await?;
    if !json && std::io::stderr().is_terminal() {
        anstream::eprint!("{}", text(&audit));
    }
    terminal::print_json(&Report { clean: audit.is_clean(), audit: &audit })?;
    Ok(if audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(CONTRADICTIONS) })
}

/// Audits every book. Each is read in one moment; of a server that runs, together they are not.
async fn audit(source: &Source) -> Result<Audit, Fault> {
    let mut books = source.books().await?;
    let progress = Progress::new("auditing");
    let mut audit = Audit::default();
    while let Some((payer, book)) = books.next().await? {
        audit.add(payer, &book);
        progress.show(audit.books, books.payers());
    }
    Ok(audit)
}

/// The audit in words, for a terminal.
fn text(audit: &Audit) -> String {
    let mut text = format!(
        "{HEADING}{} books{HEADING:#}, {} frozen, {} top-ups or refunds open\n\n",
        audit.books, audit.frozen, audit.open
    );
    type Of = fn(&Sums) -> i128;
    let rows: [(&str, Of); 7] = [
        ("income", |sums| sums.income),
        ("unspent", |sums| sums.unspent),
        ("reserved", |sums| sums.reserved),
        ("being refunded", |sums| sums.refunding),
        ("received", |sums| sums.received),
        ("refunded", |sums| sums.refunded),
        ("withdrawn", |sums| sums.withdrawn),
    ];
    if !audit.totals.is_empty() {
        let currencies: Vec<_> = audit.totals.keys().copied().collect();
        let rows = rows.map(|(name, of)| (name, audit.totals.values().map(of).collect()));
        text.push_str(&sheet::sums(&currencies, &rows));
        text.push('\n');
    }
    for broken in &audit.broken {
        text.push_str(&format!("{BAD}{}{BAD:#}: {}\n", broken.payer, broken.broken));
    }
    match audit.is_clean() {
        true => text.push_str(&format!("{GOOD}Every book adds up.{GOOD:#}\n")),
        false => text.push_str(
            "Books contradict themselves: stop the server, keep a copy of the ledger, and compare \
             with Stripe and the last backup.\n",
        ),
    }
    text
}
