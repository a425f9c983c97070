//! What the tests share: a bank, a provider, a client, a faulty wire, and processes.

mod bank;
mod client;
mod gate;
mod process;
mod provider;
mod record;
mod redis;
mod wire;

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

pub(crate) use bank::{Bank, DECLINED_CARD, HOLDER_CARD, card, dead_card};
pub(crate) use client::{Answer, Crowd, by_card, by_credential, get, raw, send};
pub(crate) use gate::{Fault, Gate};
pub(crate) use process::{Program, refusal, run};
pub(crate) use provider::{Books, Provider, app, balance, serve};
pub(crate) use record::{Balance, Done, Life, Part, replay, timeless};
pub(crate) use redis::{Cluster, Cut, Persistence, Redis, Sentinel, Setup};
pub(crate) use wire::{Unanswered, Wire};

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

/// A generator of choices: the same seed makes the same ones.
pub(crate) struct Choices(u64);

impl Choices {
    pub(crate) fn of(seed: u64) -> Choices {
        // Neighbouring seeds begin far apart.
        Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}
