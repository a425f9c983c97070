//! Stretches of time over which money is summed.
//!
//! ```
//! use farebox_policy::{Span, Window};
//!
//! let tuesday = 1_700_000_000; // 2023-11-14T22:13:20Z
//! assert_eq!(Window::Day.first(tuesday), 1_699_920_000); // 2023-11-14T00:00:00Z
//! assert_eq!(Window::Week.resets_at(tuesday), Some(1_700_438_400)); // Monday, the 20th
//! assert_eq!(Window::Month.resets_at(tuesday), Some(1_701_388_800)); // 2023-12-01T00:00:00Z
//!
//! let six_hours = Window::Rolling("6h".parse::<Span>()?);
//! assert_eq!(six_hours.first(tuesday), tuesday - 6 * 3_600 + 1);
//! # Ok::<(), farebox_policy::NotASpan>(())
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::{self, DAY, HOUR, MINUTE};

/// A stretch of time over which money is summed. Days, weeks and months are those of the UTC
/// calendar; weeks begin on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Window {
    /// From 00:00 to before 00:00 of the next day.
    Day,
    /// From Monday 00:00 to before the next Monday.
    Week,
    /// From the first of a month to before the first of the next.
    Month,
    /// The latest stretch of this length: of the times `t - length < x <= t`, those up to now.
    Rolling(Span),
    /// Everything, ever.
    Lifetime,
}

impl Window {
    /// The first second of the window that contains `now` (Unix seconds), which is its last so
    /// far.
    pub fn first(self, now: i64) -> i64 {
        let now = time::clamp(now);
        match self {
            Window::Day => time::floor(now, DAY),
            Window::Week => time::week_start(now),
            Window::Month => time::month_start(now, 0),
            Window::Rolling(span) => now - span.seconds() + 1,
            Window::Lifetime => i64::MIN,
        }
    }

    /// The first second of the next window of the calendar. A rolling window has no such moment,
    /// and a lifetime has no next.
    pub fn resets_at(self, now: i64) -> Option<i64> {
        let now = time::clamp(now);
        match self {
            Window::Day => Some(time::floor(now, DAY) + DAY),
            Window::Week => Some(time::week_start(now) + 7 * DAY),
            Window::Month => Some(time::month_start(now, 1)),
            Window::Rolling(_) | Window::Lifetime => None,
        }
    }
}

/// The length of a rolling window: whole seconds, at least one and at most 366 days. Written as
/// digits and a unit: `90s`, `15m`, `6h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u32);

impl Span {
    /// The longest that a rolling window may be: 366 days.
    pub const MAX: Span = Span(366 * 86_400);
    pub(crate) const MAX_SECONDS: i64 = 366 * DAY;
    pub(crate) const DAY: Span = Span(86_400);
    pub(crate) const MINUTE: Span = Span(60);

    /// A length in whole seconds, unless `duration` has a fraction of one or is out of range.
    pub fn new(duration: Duration) -> Option<Span> {
        let whole = duration.subsec_nanos() == 0;
        let seconds = u32::try_from(duration.as_secs()).ok().filter(|_| whole)?;
        (1..=Span::MAX.0).contains(&seconds).then_some(Span(seconds))
    }

    /// The number of seconds.
    pub fn seconds(self) -> i64 {
        i64::from(self.0)
    }
}

impl fmt::Display for Span {
    /// In the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')];
        let unit = units.into_iter().find(|(length, _)| self.seconds() % length == 0);
        let (length, unit) = unit.unwrap_or((1, 's'));
        write!(f, "{}{unit}", self.seconds() / length)
    }
}

/// Not the length of a rolling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rolling window is digits and one of `s`, `m`, `h`, `d`, from `1s` to `366d`")]
pub struct NotASpan;

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Span, NotASpan> {
        let units = [('d', DAY), ('h', HOUR), ('m', MINUTE), ('s', 1)];
        let read = units.into_iter().find_map(|(unit, length)| {
            let digits = text.strip_suffix(unit)?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let count = digits.parse::<u32>().ok().filter(|_| plain)?;
            Some(u64::from(count) * length.unsigned_abs())
        });
        read.and_then(|seconds| Span::new(Duration::from_secs(seconds))).ok_or(NotASpan)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{text:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written_in_the_same_words() {
        for text in ["1s", "90s", "15m", "6h", "30d", "366d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("86400s".parse::<Span>().unwrap().to_string(), "1d");
        for text in
            ["", "s", "0s", "-1s", "+1s", "1", "1.5h", "1 h", "1H", "1w", "367d", "99999999999s"]
        {
            assert_eq!(text.parse::<Span>(), Err(NotASpan), "{text}");
        }
        assert_eq!(Span::new(Duration::from_millis(1_500)), None);
    }
}
