//! Turns at Stripe: each of its endpoints is asked so often in a second and no oftener, and those
//! who have paid before go first.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;

/// What is asked of Stripe for a request. Its limits are per endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Endpoint {
    PaymentMethods,
    SetupIntents,
    Customers,
    PaymentIntents,
}

/// How long whoever has paid before waits for its turn, and how long strangers do.
const KNOWN_WITHIN: Duration = Duration::from_secs(8);
const STRANGERS_WITHIN: Duration = Duration::from_secs(2);
/// Of each lane. In any second, both together start at most four more than their rate.
const BURST: u32 = 2;

/// Two lanes to every endpoint, each with half of the rate. Strangers have one; whoever is known
/// takes whichever is free sooner.
#[derive(Debug)]
pub(crate) struct Lanes {
    pace: Pace,
    endpoints: [Mutex<Dues>; 4],
}

#[derive(Debug)]
struct Dues {
    known: Instant,
    strangers: Instant,
}

impl Lanes {
    pub(crate) fn new(per_second: u32, now: Instant) -> Lanes {
        // Half of a rate is as many in twice the time.
        let pace = Pace::new(per_second, Duration::from_secs(2), BURST);
        let endpoints = std::array::from_fn(|_| Mutex::new(Dues { known: now, strangers: now }));
        Lanes { pace, endpoints }
    }

    /// Waits for a turn, or says how long it would be if that is too long.
    pub(crate) async fn turn(&self, endpoint: Endpoint, is_known: bool) -> Result<(), Duration> {
        let wait = self.take(endpoint, is_known, Instant::now())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn take(&self, endpoint: Endpoint, is_known: bool, now: Instant) -> Result<Duration, Duration> {
        let dues = &self.endpoints[endpoint as usize];
        let Dues { known, strangers } = &mut *dues.lock().unwrap_or_else(PoisonError::into_inner);
        match (is_known, *known <= *strangers) {
            (false, _) => self.pace.take(strangers, now, STRANGERS_WITHIN),
            (true, true) => self.pace.take(known, now, KNOWN_WITHIN),
            (true, false) => self.pace.take(strangers, now, KNOWN_WITHIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the turns of callers are that all come at one time, in milliseconds.
    fn turns(lanes: &Lanes, count: usize, is_known: bool, now: Instant) -> Vec<u128> {
        let take = |_| lanes.take(Endpoint::PaymentIntents, is_known, now).ok();
        (0..count).filter_map(take).map(|wait| wait.as_millis()).collect()
    }

    #[test]
    fn strangers_have_half_of_the_rate_and_the_known_all_of_it() {
        let now = Instant::now();
        let strangers = turns(&Lanes::new(20, now), 1_000, false, now);
        assert_eq!((strangers.len(), strangers.last()), (22, Some(&2_000)));
        let known = turns(&Lanes::new(20, now), 1_000, true, now);
        assert_eq!((known.len(), known.last()), (2 * 82, Some(&8_000)));
    }

    #[test]
    fn strangers_never_stand_before_the_known() {
        let now = Instant::now();
        let lanes = Lanes::new(20, now);
        turns(&lanes, 1_000, false, now);
        assert_eq!(turns(&lanes, 12, true, now).last(), Some(&1_000));
    }

    #[test]
    fn in_no_second_is_stripe_asked_as_often_as_it_refuses() {
        let start = Instant::now();
        let lanes = Lanes::new(20, start);
        let mut asked = Vec::new();
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            for is_known in [false, true] {
                if let Ok(wait) = lanes.take(Endpoint::PaymentMethods, is_known, now) {
                    asked.push(now + wait);
                }
            }
        }
        asked.sort_unstable();
        let second = Duration::from_secs(1);
        let most = (0..asked.len())
            .map(|n| asked[n..].iter().take_while(|at| **at < asked[n] + second).count())
            .max();
        assert!(most < Some(25), "{most:?}");
    }
}
