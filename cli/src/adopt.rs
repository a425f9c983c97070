//! `farebox ledger`: what is done to a whole ledger.

use clap::Subcommand;
use farebox_ledger::Ledger;

use crate::Fault;
use crate::terminal;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Accept that a ledger in Redis lost records, so that it answers again.
    #[command(after_help = "A ledger that finds records missing answers nothing, because payers \
        would be charged twice or lose credit. Restore a backup into a new ledger if there is one. \
        If there is none, this goes on with what is left: payers whose books are gone begin anew, \
        and what their cards paid is found again from Stripe when they come back. A ledger in a \
        file or in memory has nothing to adopt.")]
    Adopt(Adopt),
}

#[derive(clap::Args)]
pub(crate) struct Adopt {
    /// The ledger: a `redis` URL.
    #[arg(long, value_name = "LEDGER")]
    ledger: String,
}

pub(crate) async fn run(Command::Adopt(Adopt { ledger }): Command) -> Result<(), Fault> {
    let adopted = Ledger::adopt(&ledger).await?;
    let next = "Run `farebox audit` next.";
    terminal::print(&match adopted {
        0 => "Nothing was missing.\n".to_owned(),
        1 => format!("The loss is accepted in one part of the ledger. {next}\n"),
        parts => format!("The loss is accepted in {parts} parts of the ledger. {next}\n"),
    })
}
