//! What the tests share: a bank, a provider, a client, a faulty wire, and processes.

mod bank;
mod client;
mod gate;
mod process;
mod provider;
mod redis;

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

pub(crate) use bank::{Bank, card};
pub(crate) use client::{Answer, Crowd, by_card, by_credential, get, raw, send};
pub(crate) use gate::{Fault, Gate};
pub(crate) use process::{Program, refusal, run};
pub(crate) use provider::{Books, Provider, app, balance, serve};
pub(crate) use redis::{Cluster, Cut, Persistence, Redis, Sentinel, Setup};

/// Held by tests that use all of the machine, so that they do not disturb each other.
pub(crate) async fn whole_machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::const_new(());
    MACHINE.lock().await
}

/// Asks until the answer is as wanted, and fails after `within`.
pub(crate) async fn eventually<T: std::fmt::Debug>(
    within: Duration,
    mut ask: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "after {within:?} it is still {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A number from the environment.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
