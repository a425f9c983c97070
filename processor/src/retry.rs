//! Sending again: when, how long, and until when. What an attempt means is its caller's business.

use std::time::Duration;

use tokio::time::Instant;

use crate::transport::{Attempt, Ready};

/// The longest wait for one answer.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// An attempt that would be cut off sooner is not begun: it could only make the outcome unknown.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);
const DELAY_FIRST: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(8);

/// How much time is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    start: Instant,
    budget: Duration,
}

impl Deadline {
    pub(crate) fn after(budget: Duration) -> Deadline {
        Deadline { start: Instant::now(), budget }
    }

    pub(crate) fn left(&self) -> Duration {
        self.budget.saturating_sub(self.start.elapsed())
    }
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// The answer is definite.
    Done(T),
    /// The same request is sent again, not before this time has passed.
    Again(Duration),
    /// Nothing is known, and sending again now cannot help.
    Stop,
}

impl<T> Next<T> {
    pub(crate) fn map<U>(self, definite: impl FnOnce(T) -> U) -> Next<U> {
        match self {
            Next::Done(outcome) => Next::Done(definite(outcome)),
            Next::Again(wait) => Next::Again(wait),
            Next::Stop => Next::Stop,
        }
    }
}

/// Sends `request` until `judge` has a definite answer. `None`: it stopped, or the time is spent.
pub(crate) async fn until<T>(
    request: &Ready<'_>,
    deadline: Deadline,
    mut judge: impl FnMut(&Attempt) -> Next<T>,
) -> Option<T> {
    let mut number = 0;
    while !deadline.left().is_zero() {
        number += 1;
        let attempt = request.attempt(number, deadline.left().min(ATTEMPT_MAX)).await;
        let wait = match judge(&attempt) {
            Next::Done(outcome) => return Some(outcome),
            Next::Stop => return None,
            Next::Again(at_least) => delay(number, random()).max(at_least),
        };
        if deadline.left() < wait.saturating_add(ATTEMPT_MIN) {
            return None;
        }
        tokio::time::sleep(wait).await;
    }
    None
}

/// The wait after attempt `number`: it doubles, and half of it is random, so that processes that
/// failed together do not come back together.
fn delay(number: u32, random: u32) -> Duration {
    let doubled = DELAY_FIRST.saturating_mul(1 << number.saturating_sub(1).min(16)).min(DELAY_MAX);
    let half = doubled / 2;
    let jitter = u128::from(random) * half.as_nanos() / u128::from(u32::MAX);
    half + Duration::from_nanos(u64::try_from(jitter).unwrap_or_default())
}

/// Without randomness every wait is at its shortest, which is still a wait.
fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_maximum() {
        let longest = |number| delay(number, u32::MAX).as_millis();
        assert_eq!([1, 2, 3, 6, 7, u32::MAX].map(longest), [250, 500, 1000, 8000, 8000, 8000]);
    }

    #[test]
    fn half_of_a_wait_is_random() {
        assert_eq!(delay(3, 0), Duration::from_millis(500));
        assert_eq!(delay(3, u32::MAX), Duration::from_secs(1));
        let middle = delay(3, u32::MAX / 2);
        assert!(middle > Duration::from_millis(740) && middle < Duration::from_millis(760));
    }

    #[tokio::test]
    async fn a_spent_budget_is_never_negative() {
        let deadline = Deadline::after(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(deadline.left(), Duration::ZERO);
        assert!(Deadline::after(Duration::MAX).left() > Duration::from_secs(u64::MAX / 2));
    }
}
