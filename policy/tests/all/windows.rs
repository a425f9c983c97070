use std::time::Duration;

use farebox_policy::{Policy, Refusal, Rule, Usage, Window};
use farebox_protocol::{Currency, usd};

use crate::support::{DAY, NOW, pay, refusal, top_up};

const HOST: &str = "api.example.com";

fn policy() -> Policy {
    Policy::new().allow_any().per_request(usd!("1")).per_top_up(usd!("5"))
}

/// 2024-02-29T23:59:59Z is the last second of a leap day.
const ENDS: [(Rule, i64, &str); 8] = [
    (Rule::PerDay, 1_700_006_400, "2023-11-15T00:00:00Z"),
    (Rule::PerDay, 1_709_164_800, "2024-02-29T00:00:00Z"),
    (Rule::PerDay, 1_709_251_200, "2024-03-01T00:00:00Z"),
    (Rule::PerWeek, 1_700_438_400, "2023-11-20T00:00:00Z"),
    (Rule::PerWeek, 1_704_067_200, "2024-01-01T00:00:00Z"),
    (Rule::PerMonth, 1_709_251_200, "2024-03-01T00:00:00Z"),
    (Rule::PerMonth, 1_677_628_800, "2023-03-01T00:00:00Z"),
    (Rule::PerMonth, 1_704_067_200, "2024-01-01T00:00:00Z"),
];

#[test]
fn a_window_of_the_calendar_ends_before_the_first_second_of_the_next() {
    let five = top_up(HOST, usd!("5"));
    for (rule, end, written) in ENDS {
        let policy = match rule {
            Rule::PerDay => policy().per_day(usd!("5")),
            Rule::PerWeek => policy().per_week(usd!("5")),
            _ => policy().per_month(usd!("5")),
        };
        let usage = pay(&policy, &Usage::new(), &five, end - 1);
        let refused = refusal(&policy, &usage, &five, end - 1);
        assert_eq!((refused.rule(), refused.resets_at()), (rule, Some(end)));
        assert!(refused.to_string().ends_with(written), "{refused}");
        let usage = pay(&policy, &usage, &five, end);
        assert_eq!(refusal(&policy, &usage, &five, end + 1).rule(), rule);
    }
}

#[test]
fn a_window_begins_at_its_first_second() {
    let five = top_up(HOST, usd!("5"));
    for (window, policy, first) in [
        (Window::Day, policy().per_day(usd!("5")), 1_709_164_800),
        (Window::Week, policy().per_week(usd!("5")), 1_700_438_400),
        (Window::Month, policy().per_month(usd!("5")), 1_706_745_600), // 2024-02-01
    ] {
        assert_eq!(window.first(first), first);
        assert_ne!(window.first(first - 1), first);
        let usage = pay(&policy, &Usage::new(), &five, first);
        let end = window.resets_at(first).unwrap();
        refusal(&policy, &usage, &five, end - 1);
        pay(&policy, &usage, &five, end);
    }
}

#[test]
fn a_rolling_window_is_half_open() {
    let five = top_up(HOST, usd!("5"));
    let policy = policy().rolling(Duration::from_secs(100), usd!("5"));
    let usage = pay(&policy, &Usage::new(), &five, NOW);
    let refused = refusal(&policy, &usage, &five, NOW + 99);
    assert_eq!(refused.resets_at(), Some(NOW + 100));
    pay(&policy, &usage, &five, NOW + 100);
    // An amount that never fits has no time from which it does.
    let policy = policy.per_top_up(usd!("50"));
    assert_eq!(refusal(&policy, &usage, &top_up(HOST, usd!("6")), NOW).resets_at(), None);
}

#[test]
fn a_rolling_window_fits_once_enough_has_left_it() {
    let policy = policy().rolling(Duration::from_secs(100), usd!("6"));
    let mut usage = Usage::new();
    for at in [0, 10, 20] {
        usage = pay(&policy, &usage, &top_up(HOST, usd!("2")), NOW + at);
    }
    let four = top_up(HOST, usd!("4"));
    assert_eq!(refusal(&policy, &usage, &four, NOW + 30).resets_at(), Some(NOW + 110));
    assert_eq!(refusal(&policy, &usage, &four, NOW + 109).left(), Some(usd!("2")));
    pay(&policy, &usage, &four, NOW + 110);
}

#[test]
fn a_clock_that_goes_back_frees_nothing() {
    let five = top_up(HOST, usd!("5"));
    let policy = policy().per_day(usd!("5"));
    let midnight = 1_700_006_400;
    let usage = pay(&policy, &Usage::new(), &five, midnight);
    // Yesterday's budget is gone: what is paid a second earlier is counted at midnight.
    assert_eq!(refusal(&policy, &usage, &five, midnight - 1).rule(), Rule::PerDay);
    let roomy = policy.per_day(usd!("10"));
    let usage = pay(&roomy, &usage, &five, midnight - 1);
    assert_eq!(usage.held(Currency::USD, midnight), usd!("10"));
    assert_eq!(usage.held(Currency::USD, midnight - 1), usd!("10"));
    // And it is released where it was counted.
    let usage = usage.release(&five.hold(midnight - 1).unwrap());
    assert_eq!(usage.held(Currency::USD, midnight), usd!("5"));
}

#[test]
fn a_clock_far_behind_is_refused_until_it_is_set() {
    let five = top_up(HOST, usd!("5"));
    let policy = policy().per_day(usd!("10"));
    let usage = pay(&policy, &Usage::new(), &five, NOW);
    pay(&policy, &usage, &five, NOW - DAY);
    let refused = refusal(&policy, &usage, &five, NOW - DAY - 1);
    assert_eq!(refused, Refusal::ClockBehind { asked: usd!("5"), now: NOW - DAY - 1, latest: NOW });
    assert_eq!(
        refused.to_string(),
        "5.00 usd cannot be counted: the clock says 2023-11-13T22:13:19Z, and a payment was \
         counted at 2023-11-14T22:13:20Z"
    );
    assert_eq!(refusal(&policy, &usage, &five, 0).rule(), Rule::Clock);
    // Far ahead and back again: the budget of today is not opened a second time.
    let usage = pay(&policy, &usage, &five, NOW + 10_000 * DAY);
    assert_eq!(refusal(&policy, &usage, &five, NOW + 1).rule(), Rule::Clock);
}
