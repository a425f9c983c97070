//! Time, injected: a store asks its clock and never the operating system.
//!
//! ```
//! use farebox_ledger::clock::{Clock, SystemClock, Timestamp};
//!
//! assert!(SystemClock.now() > Timestamp::from_millis(0));
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The time `millis` milliseconds later.
    #[must_use]
    pub const fn after(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// Whole hours since the Unix epoch.
    pub fn hour(self) -> u32 {
        u32::try_from(self.0.div_euclid(3_600_000)).unwrap_or(0)
    }

    /// Whole days since the Unix epoch.
    pub fn day(self) -> u32 {
        self.hour() / 24
    }

    /// Whole seconds since the Unix epoch, as Stripe counts.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Where a store takes the time from.
pub trait Clock: Send + Sync + 'static {
    /// The time now. It may stand still or go back; a book's own time never does.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until a test turns it.
#[cfg(feature = "test-util")]
#[derive(Clone, Debug, Default)]
pub struct ManualClock(std::sync::Arc<std::sync::atomic::AtomicI64>);

#[cfg(feature = "test-util")]
impl ManualClock {
    /// Sets the time.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(feature = "test-util")]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}
