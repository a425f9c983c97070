//! Days, weeks and months of UTC, without leap seconds, as Unix time has none.

use std::fmt;

pub(crate) const MINUTE: i64 = 60;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z: between them no sum here overflows, and every
/// time can be written.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// The nearest time that can be written.
pub(crate) fn clamp(now: i64) -> i64 {
    now.clamp(FIRST, LAST)
}

/// Whether `at` can be written.
pub(crate) fn is_time(at: i64) -> bool {
    (FIRST..=LAST).contains(&at)
}

/// The beginning of the stretch of `length` seconds, counted from 1970, that contains `at`.
pub(crate) fn floor(at: i64, length: i64) -> i64 {
    at - at.rem_euclid(length)
}

/// Monday 00:00 of the week of `at`.
pub(crate) fn week_start(at: i64) -> i64 {
    const MONDAY: i64 = -3 * DAY; // 1970-01-01 was a Thursday
    MONDAY + floor(at - MONDAY, 7 * DAY)
}

/// The beginning of the month that is `ahead` months after the month of `at`.
pub(crate) fn month_start(at: i64, ahead: i64) -> i64 {
    let (year, month, _) = civil(at.div_euclid(DAY));
    let months = year * 12 + (month - 1) + ahead;
    days(months.div_euclid(12), months.rem_euclid(12) + 1) * DAY
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. The year
/// begins in March here, so that the leap day is its last: <https://howardhinnant.github.io/date_algorithms.html>.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468; // since 0000-03-01
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (of_month, month) = (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (era * 400 + year + i64::from(month <= 2), month, of_month)
}

/// The first day of a month, counted from 1970-01-01.
fn days(year: i64, month: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A time as RFC 3339 writes it: `2023-11-14T22:13:20Z`.
pub(crate) struct Utc(pub(crate) i64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(DAY));
        let time = self.0.rem_euclid(DAY);
        let (hour, minute, second) = (time / HOUR, time / MINUTE % 60, time % MINUTE);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_written_as_rfc_3339_writes_them() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (FIRST, "0001-01-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ];
        for (at, written) in known {
            assert_eq!(Utc(at).to_string(), written);
        }
    }

    #[test]
    fn months_end_where_the_calendar_says() {
        let ends = [
            (1_709_164_799, "2024-03-01T00:00:00Z"), // 2024-02-28T23:59:59Z, a leap year
            (1_677_628_799, "2023-03-01T00:00:00Z"), // 2023-02-28T23:59:59Z
            (1_704_067_199, "2024-01-01T00:00:00Z"), // 2023-12-31T23:59:59Z
            (1_704_067_200, "2024-02-01T00:00:00Z"),
            (LAST, "10000-01-01T00:00:00Z"),
        ];
        for (at, end) in ends {
            assert_eq!(Utc(month_start(at, 1)).to_string(), end);
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!(Utc(week_start(1_700_000_000)).to_string(), "2023-11-13T00:00:00Z");
        assert_eq!(Utc(week_start(0)).to_string(), "1969-12-29T00:00:00Z");
        assert_eq!(week_start(week_start(0) - 1), week_start(0) - 7 * DAY);
    }

    proptest! {
        #[test]
        fn a_month_contains_its_days_and_no_others(at in FIRST..=LAST) {
            let (start, end) = (month_start(at, 0), month_start(at, 1));
            prop_assert!(start <= at && at < end);
            prop_assert!((28..=31).contains(&((end - start) / DAY)));
            prop_assert_eq!(month_start(start, 0), start);
            prop_assert_eq!(month_start(end - 1, 0), start);
            prop_assert!(Utc(start).to_string().ends_with("-01T00:00:00Z"));
            let (year, month, _) = civil(at.div_euclid(DAY));
            prop_assert_eq!(days(year, month) * DAY, start);
        }
    }
}
