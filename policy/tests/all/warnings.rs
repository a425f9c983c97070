use std::time::Duration;

use farebox_policy::{OriginLimits, Policy, Warning};
use farebox_protocol::usd;

fn sound() -> Policy {
    let policy = Policy::new().allow("example.com").per_request(usd!("0.05"));
    policy.per_top_up(usd!("5")).per_day(usd!("10"))
}

fn told(policy: &Policy) -> Vec<String> {
    policy.warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn a_sound_policy_is_not_warned_about() {
    let policy = sound().per_week(usd!("30")).per_month(usd!("100")).lifetime(usd!("1000"));
    let policy = policy.ask_above(usd!("2")).ask_above_total(usd!("5")).block("ads.example.com");
    let policy = policy.rolling(Duration::from_secs(3_600), usd!("6")).payments_per_minute(3);
    let own = OriginLimits::new("eu.example.com").per_day(usd!("5")).per_request(usd!("0.01"));
    assert_eq!(told(&policy.origin(own)), [""; 0]);
}

#[test]
fn hosts_and_limits_that_are_missing_are_said_once() {
    let cases = [
        (
            Policy::new().per_request(usd!("1")).per_top_up(usd!("1")).per_day(usd!("1")),
            "no host is allowed, so nothing is paid",
        ),
        (sound().allow_any(), "every host is allowed: any server may ask for money"),
        (sound().allow("a/b"), "\"a/b\" is allowed and is not a host, so it allows nothing"),
        (sound().block("a/b"), "\"a/b\" is blocked and is not a host, so every host is blocked"),
        (sound().block("com"), "example.com is allowed, and com blocks all of it"),
        (
            sound().origin(OriginLimits::new("other.example")),
            "other.example has limits of its own and is not allowed",
        ),
        (
            sound().origin(OriginLimits::new("a/b")),
            "\"a/b\" has limits and is not a host, so they hold for every host",
        ),
        (
            Policy::new().allow("a.b").per_top_up(usd!("1")).per_day(usd!("1")),
            "per_request is not set, so nothing is paid",
        ),
        (
            Policy::new().allow("a.b").per_request(usd!("1")).per_day(usd!("1")),
            "per_top_up is not set, so no card is charged",
        ),
        (
            Policy::new().allow("a.b").per_request(usd!("1")).per_top_up(usd!("1")),
            "no total is set (per_day, per_week, per_month, rolling or lifetime), so no card is charged",
        ),
        (sound().payments_per_minute(0), "payments_per_minute is 0, so no card is charged"),
        (
            sound().per_month("100 eur".parse().unwrap()),
            "amounts are in usd, eur: one of them refuses any payment",
        ),
    ];
    for (policy, said) in cases {
        assert_eq!(told(&policy), [said]);
    }
}

#[test]
fn limits_that_another_one_makes_pointless_are_said_once() {
    let hour = Duration::from_secs(3_600);
    let cases = [
        (
            sound().per_top_up(usd!("20")),
            "the limit per top-up of 20.00 usd is never reached: the limit per day of 10.00 usd refuses first",
        ),
        (
            sound().per_week(usd!("9")),
            "the limit per day of 10.00 usd is never reached: the limit per week of 9.00 usd refuses first",
        ),
        (
            sound().lifetime(usd!("9")),
            "the limit per day of 10.00 usd is never reached: the limit of a lifetime of 9.00 usd refuses first",
        ),
        (
            sound().rolling(hour, usd!("11")),
            "the limit per rolling 1h of 11.00 usd is never reached: the limit per day of 10.00 usd refuses first",
        ),
        (
            sound().per_request(usd!("6")),
            "the limit per request of 6.00 usd is never reached: the limit per top-up of 5.00 usd refuses first",
        ),
        (
            sound().origin(OriginLimits::new("example.com").per_day(usd!("11"))),
            "the limit per day for example.com of 11.00 usd is never reached: the limit per day of 10.00 usd refuses first",
        ),
        (
            sound().ask_above(usd!("5")),
            "a human is hardly ever asked: the limit per top-up of 5.00 usd refuses before the threshold of one payment of 5.00 usd asks",
        ),
        (
            sound().ask_above_total(usd!("10")),
            "a human is hardly ever asked: the limit per day of 10.00 usd refuses before the threshold per rolling 1d of 10.00 usd asks",
        ),
        (
            sound().per_top_up(usd!("0.49")),
            "the limit per top-up of 0.49 usd is below the smallest charge of a card, 0.50 usd",
        ),
    ];
    for (policy, said) in cases {
        assert_eq!(told(&policy), [said]);
    }
    assert_eq!(
        Policy::new().warnings(),
        [Warning::NoHost, Warning::NoPrice, Warning::NoTopUp, Warning::NoTotal]
    );
}
