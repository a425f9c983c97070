//! The `farebox` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;
mod sandbox;
mod transcript;

/// Charge for HTTP requests with 402 and a card, and let programs pay.
#[derive(Parser)]
#[command(name = "farebox", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch an agent pay a server, on this machine only; no card and no Stripe account needed.
    Demo,
    /// Run Stripe on loopback, to test a server or an agent against.
    Sandbox(sandbox::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo => demo::run().await,
        Command::Sandbox(options) => sandbox::run(options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("farebox: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever went wrong, in words for whoever runs the command.
type Fault = Box<dyn std::error::Error + Send + Sync>;
