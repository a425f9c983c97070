//! The `farebox` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod account;
mod adopt;
mod audit;
mod backup;
mod credentials;
mod demo;
mod freezes;
mod get;
mod hostile;
mod policy;
mod reconcile;
mod refund;
mod sandbox;
mod server;
mod settings;
mod sheet;
mod source;
mod spend;
mod statement;
mod terminal;
mod till;
mod transcript;

/// Charge for HTTP requests with 402 and a card, and let programs pay.
#[derive(Parser)]
#[command(
    name = "farebox",
    version,
    after_help = "The commands that look after a ledger work in two ways: on a running server \
        through its admin routes (--url, FAREBOX_ADMIN_URL and FAREBOX_ADMIN_TOKEN), or on the \
        ledger itself (--ledger or FAREBOX_LEDGER; a file only while no server has it open). If \
        nothing says which, they use the file farebox.redb of this folder.\n\n\
        Exit status:\n  \
        0  done\n  \
        1  it could not be done; standard error says why and what to do next\n  \
        2  the command line is wrong\n  \
        3  `audit` found books that contradict themselves\n  \
        4  something is left for you to look at: `reconcile` found what it does not settle, \
        `account refund` gave back less than was asked, or a client lost more to `hostile` than \
        it may\n\n\
        The commands of an agent have more: `farebox get --help` lists them."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch an agent pay a server, on this machine only; no card and no Stripe account needed.
    Demo,
    /// Fetch a URL, and pay for it if the policy allows it.
    Get(get::Options),
    /// Show what an agent spent where, and what is left of its budget.
    Spend(spend::Options),
    /// Look at a policy: what an agent may pay.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Look after what an agent keeps of the servers that it pays.
    #[command(subcommand)]
    Credentials(credentials::Command),
    /// Run Stripe on loopback, to test a server or an agent against.
    Sandbox(sandbox::Options),
    /// Run providers that cheat, on loopback, to test a client against.
    Hostile(hostile::Options),
    /// Look at a payer's account, refund it, freeze it, or revoke its credentials.
    #[command(subcommand)]
    Account(account::Command),
    /// Recompute every balance, and add up what was received, spent and is owed.
    Audit(audit::Options),
    /// Compare Stripe's charges with the ledger, and book what it lacks.
    Reconcile(reconcile::Options),
    /// Write the ledger to a file.
    Backup(backup::Backup),
    /// Make a new ledger of a backup, in a file or in Redis.
    Restore(backup::Restore),
    /// Repair a whole ledger.
    #[command(subcommand)]
    Ledger(adopt::Command),
}

/// What the command ends with if something is left for a person to look at.
const TO_LOOK_AT: u8 = 4;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(status) => status,
        Err(error) => {
            anstream::eprintln!("farebox: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, Fault> {
    match command {
        Command::Demo => demo::run().await?,
        Command::Get(options) => return get::run(options).await,
        Command::Spend(options) => spend::run(options).await?,
        Command::Policy(command) => return policy::run(command),
        Command::Credentials(command) => credentials::run(command).await?,
        Command::Sandbox(options) => sandbox::run(options).await?,
        Command::Hostile(options) => return hostile::run(options).await,
        Command::Account(command) => return account::run(command).await,
        Command::Audit(options) => return audit::run(options).await,
        Command::Reconcile(options) => return reconcile::run(options).await,
        Command::Backup(options) => backup::backup(options).await?,
        Command::Restore(options) => backup::restore(options).await?,
        Command::Ledger(command) => adopt::run(command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whatever went wrong, in words for whoever runs the command.
type Fault = Box<dyn std::error::Error + Send + Sync>;
