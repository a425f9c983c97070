//! Counters over sliding windows: how often something happened lately, or how much.
//!
//! They are no part of a book and no money: they decide who is asked to wait. Beside a ledger in
//! Redis they are kept in that Redis, and all its processes count together; else in this process,
//! in bounded memory, and gone with it.
//!
//! ```
//! use farebox_ledger::clock::SystemClock;
//! use farebox_ledger::counters::{Count, Counter};
//! use farebox_ledger::{Ledger, store::Memory};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let ledger = Ledger::Memory(Memory::default());
//! let counters = ledger.counters(std::sync::Arc::new(SystemClock));
//! let tries = Counter { name: "tries", of: None, window_seconds: 3_600 };
//!
//! assert_eq!(counters.add(tries, 2, 3).await?, Count::Added { total: 2 });
//! assert_eq!(counters.add(tries, 2, 3).await?, Count::Full { total: 2 });
//! # Ok::<(), farebox_ledger::StoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use farebox_protocol::PayerId;

use crate::clock::Clock;
use crate::store::{Ledger, StoreError};

/// A window is counted in this many slots, and one more that is under way: what happened is
/// forgotten at most one slot too late, and never too early.
pub(crate) const SLOTS: i64 = 12;
/// No amount and no limit is above it: scripts of Redis count with doubles.
pub(crate) const AMOUNT_MAX: i64 = (1 << 53) - 1;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter<'a> {
    /// Letters, digits and dots: it becomes a part of a key.
    pub name: &'a str,
    /// The book that it is about; `None`: it is about all of them.
    pub of: Option<PayerId>,
    /// How far back it counts, in seconds.
    pub window_seconds: u32,
}

impl Counter<'_> {
    pub(crate) fn slot_seconds(&self) -> i64 {
        (i64::from(self.window_seconds) / SLOTS).max(1)
    }
}

/// What a counter stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Count {
    /// The amount was added.
    Added {
        /// What was counted in the window, with it.
        total: i64,
    },
    /// It would have passed the limit, and was not added.
    Full {
        /// What was counted in the window, without it.
        total: i64,
    },
}

impl Count {
    /// What was counted in the window.
    pub fn total(self) -> i64 {
        match self {
            Count::Added { total } | Count::Full { total } => total,
        }
    }
}

/// Where counters are kept.
#[derive(Debug)]
pub enum Counters {
    /// In this process.
    Process(Process),
    /// In the ledger's Redis.
    #[cfg(feature = "redis")]
    Redis(crate::store::RedisCounters),
}

impl Ledger {
    /// Counters beside this ledger. `clock` is for those that are kept in the process.
    pub fn counters(&self, clock: Arc<dyn Clock>) -> Counters {
        match self {
            #[cfg(feature = "redis")]
            Ledger::Redis(store) => Counters::Redis(store.counters()),
            _ => Counters::Process(Process::new(clock)),
        }
    }
}

impl Counters {
    /// Adds `amount`, unless the total would be above `limit`. A negative amount gives back what
    /// was added in vain, and always fits.
    ///
    /// # Errors
    ///
    /// The store's. Whether it was added is unknown then.
    pub async fn add(
        &self,
        counter: Counter<'_>,
        amount: i64,
        limit: i64,
    ) -> Result<Count, StoreError> {
        let amount = amount.clamp(-AMOUNT_MAX, AMOUNT_MAX);
        let limit = limit.clamp(0, AMOUNT_MAX);
        match self {
            Counters::Process(counters) => Ok(counters.add(counter, amount, limit)),
            #[cfg(feature = "redis")]
            Counters::Redis(counters) => counters.add(counter, amount, limit).await,
        }
    }

    /// What a counter stands at.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn total(&self, counter: Counter<'_>) -> Result<i64, StoreError> {
        self.add(counter, 0, AMOUNT_MAX).await.map(Count::total)
    }
}

/// The most counters of a generation: about 25 MB in both.
const GENERATION_MAX: usize = 50_000;

type Key = (String, Option<PayerId>);
/// What was added, by slot.
type Slots = Vec<(i64, i64)>;

/// Counters in this process. Of very many, those that were not used lately are forgotten.
pub struct Process {
    clock: Arc<dyn Clock>,
    generations: Mutex<Generations>,
}

/// When the young ones are too many, they become the old ones, and the old ones are forgotten.
#[derive(Default)]
struct Generations {
    young: HashMap<Key, Slots>,
    old: HashMap<Key, Slots>,
}

impl Process {
    fn new(clock: Arc<dyn Clock>) -> Process {
        Process { clock, generations: Mutex::default() }
    }

    fn add(&self, counter: Counter<'_>, amount: i64, limit: i64) -> Count {
        let now = self.clock.now().seconds().div_euclid(counter.slot_seconds());
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = generations.slots((counter.name.to_owned(), counter.of));
        slots.retain(|(slot, _)| *slot >= now - SLOTS);
        let total = slots.iter().fold(0, |sum: i64, (_, amount)| sum.saturating_add(*amount));
        if amount > 0 && total.saturating_add(amount) > limit {
            return Count::Full { total };
        }
        match slots.iter_mut().find(|(slot, _)| *slot == now) {
            Some((_, counted)) => *counted = counted.saturating_add(amount),
            None if amount != 0 => slots.push((now, amount)),
            None => {}
        }
        Count::Added { total: total.saturating_add(amount) }
    }
}

impl Generations {
    fn slots(&mut self, key: Key) -> &mut Slots {
        if !self.young.contains_key(&key) {
            if self.young.len() >= GENERATION_MAX {
                self.old = std::mem::take(&mut self.young);
            }
            let known = self.old.remove(&key).unwrap_or_default();
            self.young.insert(key.clone(), known);
        }
        self.young.entry(key).or_default()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    const HOUR: Counter<'static> = Counter { name: "tries", of: None, window_seconds: 3_600 };

    fn at(clock: &ManualClock, seconds: i64) {
        clock.set(Timestamp::from_millis(1_790_000_000_000 + seconds * 1_000));
    }

    fn process() -> (Process, ManualClock) {
        let clock = ManualClock::default();
        at(&clock, 0);
        (Process::new(Arc::new(clock.clone())), clock)
    }

    #[test]
    fn what_would_pass_the_limit_is_not_added() {
        let (process, _) = process();
        assert_eq!(process.add(HOUR, 3, 5), Count::Added { total: 3 });
        assert_eq!(process.add(HOUR, 3, 5), Count::Full { total: 3 });
        assert_eq!(process.add(HOUR, 2, 5), Count::Added { total: 5 });
        assert_eq!(process.add(HOUR, -1, 0), Count::Added { total: 4 });
        let other = Counter { of: Some(PayerId::from_bytes([1; 32])), ..HOUR };
        assert_eq!(process.add(other, 1, 5), Count::Added { total: 1 });
    }

    #[test]
    fn a_window_slides() {
        let (process, clock) = process();
        for minute in 0..60 {
            at(&clock, minute * 60);
            assert!(matches!(process.add(HOUR, 1, 60), Count::Added { .. }));
        }
        at(&clock, 3_599);
        assert_eq!(process.add(HOUR, 1, 60), Count::Full { total: 60 });
        // Half an hour later, half of it is over, but for a slot of five minutes.
        at(&clock, 5_400);
        assert!((25..=35).contains(&process.add(HOUR, 0, 60).total()));
        at(&clock, 3_599 + 3_600 + 300);
        assert_eq!(process.add(HOUR, 0, 60).total(), 0);
    }

    #[test]
    fn a_million_names_are_a_bounded_number_of_counters_and_those_in_use_stay() {
        let (process, _) = process();
        for n in 0..1_000_000_u32 {
            let mut of = [0; 32];
            of[..4].copy_from_slice(&n.to_be_bytes());
            let _ = process.add(Counter { of: Some(PayerId::from_bytes(of)), ..HOUR }, 1, 5);
            if n % 10_000 == 0 {
                let _ = process.add(HOUR, 1, i64::MAX);
            }
        }
        let generations = process.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
        drop(generations);
        assert_eq!(process.add(HOUR, 0, 1).total(), 100);
    }
}
