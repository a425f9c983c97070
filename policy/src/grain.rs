//! How finely a time is remembered: to the second at first, to the day in the end.
//!
//! A grain is a stretch of time whose payments are one sum. Grains nest: seconds in minutes, hours,
//! and days of the UTC calendar. Which grain holds a time depends on nothing but that time and
//! the latest time that was counted, and as time goes on grains only merge. So a sum over a window
//! of the calendar is exact, and a rolling window can count a grain until all of it has left.

use crate::time::{DAY, HOUR, MINUTE, floor};
use crate::window::Span;

/// Which grain, and how long after its end the grain is kept. Seconds are kept as long as the
/// window of payments per minute, days as long as the longest rolling window.
const GRAINS: [(i64, i64, i64); 4] = [
    // length, the stretch that is merged as a whole, how long after the end of that stretch
    (1, MINUTE, MINUTE),
    (MINUTE, HOUR, HOUR),
    (HOUR, DAY, DAY),
    (DAY, DAY, Span::MAX_SECONDS),
];

/// The most grains that are kept at once: of each length, those of the stretch that is not merged
/// yet and of the time before it.
pub(crate) const GRAINS_MAX: usize = 120 + 120 + 48 + 368;

/// The first and the last second of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grain {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Grain {
    /// The grain that contains `at`, once `latest` was counted. `None` when it was so long ago
    /// that no window reaches it.
    pub(crate) fn of(at: i64, latest: i64) -> Option<Grain> {
        let kept =
            |(_, stretch, kept): &(i64, i64, i64)| floor(at, *stretch) + stretch + kept > latest;
        let (length, ..) = GRAINS.into_iter().find(kept)?;
        let first = floor(at, length);
        Some(Grain { first, last: first + length - 1 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn time_is_remembered_to_the_second_then_the_minute_the_hour_and_the_day() {
        let length = |age: i64| Grain::of(-age, 0).map(|grain| grain.last - grain.first + 1);
        let ages = [
            (0, Some(1)),
            (60, Some(1)),
            (61, Some(MINUTE)),
            (HOUR, Some(MINUTE)),
            (HOUR + 1, Some(HOUR)),
            (DAY, Some(HOUR)),
            (DAY + 1, Some(DAY)),
            (366 * DAY, Some(DAY)),
            (366 * DAY + 1, None),
        ];
        for (age, expected) in ages {
            assert_eq!(length(age), expected, "{age} seconds ago");
        }
    }

    proptest! {
        #[test]
        fn grains_only_merge(at in -1_000 * DAY..1_000 * DAY, ages in [0..400 * DAY, 0..3 * DAY]) {
            let (earlier, later) = (at + ages[0], at + ages[0] + ages[1]);
            let Some(fine) = Grain::of(at, earlier) else {
                prop_assert_eq!(Grain::of(at, later), None);
                return Ok(());
            };
            prop_assert!(fine.first <= at && at <= fine.last);
            prop_assert_eq!(Grain::of(fine.first, later), Grain::of(at, later));
            prop_assert_eq!(Grain::of(fine.last, later), Grain::of(at, later));
        }
    }

    #[test]
    fn the_number_of_grains_is_bounded() {
        for latest in [0, 59, 3_599, 86_399, 43_200] {
            let (mut count, mut at) = (0, latest);
            while let Some(grain) = Grain::of(at, latest) {
                (count, at) = (count + 1, grain.first - 1);
            }
            assert!(count <= GRAINS_MAX, "{count}");
        }
    }
}
