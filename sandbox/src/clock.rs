//! Time, as the sandbox sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock that a test moves by hand. Clones show the same time.
///
/// It governs everything the sandbox dates, counts or lets expire: `created`, card expiry, the 24
/// hours after which idempotency keys are forgotten, rate limits, and the timestamps of webhooks.
/// It does not govern what takes time: [`latency`](crate::Builder::latency), faults and the delivery
/// of webhooks are real time.
///
/// ```
/// use farebox_sandbox::ManualClock;
/// use std::time::Duration;
///
/// let clock = ManualClock::at(1_800_000_000);
/// clock.clone().advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), 1_800_000_060);
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock standing at this many seconds since 1970 (UTC).
    #[must_use]
    pub fn at(unix_seconds: i64) -> Self {
        Self(Arc::new(AtomicI64::new(unix_seconds)))
    }

    /// Moves time forward by the whole seconds of `by`.
    pub fn advance(&self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        let add = |now: i64| Some(now.saturating_add(seconds));
        // Never refused: the closure always gives a value.
        let _before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
    }

    /// Seconds since 1970 (UTC).
    #[must_use]
    pub fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The machine's clock, ahead by what the other one shows.
    System(ManualClock),
    Manual(ManualClock),
}

impl Clock {
    pub(crate) fn now(&self) -> i64 {
        match self {
            Self::Manual(clock) => clock.now(),
            // A machine whose clock stands before 1970 gets 1970: the sandbox has no better guess.
            Self::System(ahead) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
                .saturating_add(ahead.now()),
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        match self {
            Self::Manual(clock) | Self::System(clock) => clock.advance(by),
        }
    }
}

/// Year and month (UTC), for card expiry.
pub(crate) fn year_and_month(unix_seconds: i64) -> (i64, i64) {
    // Out of jiff's range (years -9999 to 9999) only with an absurd manual clock: then nothing
    // has expired.
    let date = jiff::Timestamp::from_second(unix_seconds)
        .map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date())
        .unwrap_or(jiff::civil::Date::ZERO);
    (i64::from(date.year()), i64::from(date.month()))
}

#[cfg(test)]
mod tests {
    use super::year_and_month;

    #[test]
    fn months_change_at_midnight_utc() {
        assert_eq!(year_and_month(1_798_761_599), (2026, 12));
        assert_eq!(year_and_month(1_798_761_600), (2027, 1));
    }
}
