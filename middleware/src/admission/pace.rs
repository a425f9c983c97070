//! A pace: so many at once, and then one in every interval. The crate `governor` paces as well, but
//! it can neither cap the number of clients exactly nor hand out turns ahead of time.

use std::time::Duration;

use tokio::time::Instant;

/// Which starts are allowed, by the generic cell rate algorithm: all that it remembers is when
/// the next one would be due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    interval: Duration,
    burst: u32,
}

impl Pace {
    pub(crate) fn new(count: u32, period: Duration, burst: u32) -> Pace {
        Pace { interval: period / count.max(1), burst: burst.max(1) }
    }

    /// How long it is until the next one may start.
    pub(crate) fn wait(&self, due: Instant, now: Instant) -> Duration {
        let early = self.interval.saturating_mul(self.burst - 1);
        due.saturating_duration_since(now).saturating_sub(early)
    }

    /// Takes a start that is at most `patience` away, or says how far it is.
    pub(crate) fn take(
        &self,
        due: &mut Instant,
        now: Instant,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let wait = self.wait(*due, now);
        if wait > patience {
            return Err(wait);
        }
        *due = (*due).max(now) + self.interval;
        Ok(wait)
    }

    /// Takes a start back that was taken in vain.
    pub(crate) fn give_back(&self, due: &mut Instant) {
        // Without an earlier instant there is nothing to give back.
        *due = due.checked_sub(self.interval).unwrap_or(*due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_one_in_every_interval() {
        let start = Instant::now();
        let (pace, mut due) = (Pace::new(10, Duration::from_secs(1), 3), start);
        let mut starts = Vec::new();
        for millis in 0..2_000 {
            let now = start + Duration::from_millis(millis);
            if pace.take(&mut due, now, Duration::ZERO).is_ok() {
                starts.push(millis);
            }
        }
        assert_eq!(starts[..5], [0, 1, 2, 100, 200]);
        assert_eq!(starts.len(), 3 + 19);
    }

    #[test]
    fn who_is_patient_is_told_when_its_turn_is() {
        let start = Instant::now();
        let (pace, mut due) = (Pace::new(10, Duration::from_secs(1), 1), start);
        let patience = Duration::from_millis(250);
        let mut take = || pace.take(&mut due, start, patience).map_err(|wait| wait.as_millis());
        assert_eq!(take(), Ok(Duration::ZERO));
        assert_eq!(take(), Ok(Duration::from_millis(100)));
        assert_eq!(take(), Ok(Duration::from_millis(200)));
        assert_eq!((take(), take()), (Err(300), Err(300)));
    }
}
