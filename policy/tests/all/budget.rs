use std::collections::HashMap;

use farebox_policy::{Decision, Hold, Policy, Refusal, Request, Rule, Usage, decide};
use farebox_protocol::{Currency, Micros, Money, usd};
use proptest::prelude::*;

const DAY: i64 = 86_400;

fn policy() -> Policy {
    let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
    policy.per_top_up(usd!("5")).per_day(usd!("10"))
}

fn request(price: Money) -> Request<'static> {
    Request::new("api.example.com", 443, price)
}

fn refusal(policy: &Policy, usage: &Usage, request: &Request<'_>, now: i64) -> Refusal {
    match decide(policy, usage, request, now) {
        (Decision::Refuse(refusal), after) => {
            assert_eq!(after, *usage, "a refusal changes nothing");
            refusal
        }
        (Decision::Allow, _) => panic!("allowed: {request:?}"),
    }
}

#[test]
fn limits_include_their_own_amount() {
    let at = request(usd!("0.05")).top_up(usd!("5"));
    let (decision, usage) = decide(&policy(), &Usage::new(), &at, 0);
    assert_eq!(decision, Decision::Allow);
    assert_eq!(usage.held(Currency::USD, 0), usd!("5"));
    let above = [
        (request(usd!("0.050001")), Rule::PerRequest, usd!("0.05"), usd!("0.05")),
        (request(usd!("0.01")).top_up(usd!("5.01")), Rule::PerTopUp, usd!("5"), usd!("5")),
    ];
    for (request, rule, limit, left) in above {
        let refusal = refusal(&policy(), &usage, &request, 0);
        assert_eq!((refusal.rule(), refusal.limit()), (rule, Some(limit)));
        assert_eq!(refusal.left(), Some(left));
    }
}

#[test]
fn a_refusal_of_the_day_says_what_is_left() {
    let (_, usage) = decide(&policy(), &Usage::new(), &request(usd!("0")).top_up(usd!("5")), 0);
    let (_, usage) = decide(&policy(), &usage, &request(usd!("0")).top_up(usd!("3.5")), 0);
    let refusal = refusal(&policy(), &usage, &request(usd!("0")).top_up(usd!("2")), DAY - 1);
    assert_eq!(
        refusal.to_string(),
        "2.00 usd is above the limit per day: 1.50 usd of 10.00 usd left"
    );
    assert_eq!((refusal.asked(), refusal.left()), (Some(usd!("2")), Some(usd!("1.5"))));
}

#[test]
fn limits_that_are_not_set_refuse_what_needs_them() {
    let any = || Policy::new().allow_any();
    let credit = request(usd!("0.01"));
    let card = request(usd!("0.01")).top_up(usd!("5"));
    let cases = [
        (any().per_top_up(usd!("5")).per_day(usd!("5")), &credit, Rule::PerRequest),
        (any().per_request(usd!("1")).per_day(usd!("5")), &card, Rule::PerTopUp),
        (any().per_request(usd!("1")).per_top_up(usd!("5")), &card, Rule::PerDay),
    ];
    for (policy, request, rule) in cases {
        let refusal = refusal(&policy, &Usage::new(), request, 0);
        assert!(matches!(refusal, Refusal::Unset { rule: found, .. } if found == rule));
    }
    assert_eq!(decide(&any().per_request(usd!("1")), &Usage::new(), &credit, 0).0, Decision::Allow);
}

#[test]
fn money_of_another_currency_than_a_limit_is_refused() {
    let eur: Currency = "eur".parse().unwrap();
    let euro = Money::new(usd!("0.01").micros(), eur);
    let cases = [
        (policy(), request(euro), Rule::PerRequest),
        (policy().per_request(euro), request(euro).top_up(euro), Rule::PerTopUp),
        (policy().per_request(euro).per_top_up(euro), request(euro).top_up(euro), Rule::PerDay),
    ];
    for (policy, request, rule) in cases {
        let refusal = refusal(&policy, &Usage::new(), &request, 0);
        assert!(matches!(refusal, Refusal::Currency { rule: found, .. } if found == rule));
    }
}

#[test]
fn amounts_below_nothing_are_refused() {
    let negative = Money::new(Micros::new(-1).unwrap(), Currency::USD);
    for request in [
        request(negative),
        request(usd!("0")).top_up(usd!("0")),
        request(usd!("0")).top_up(negative),
    ] {
        let refusal = refusal(&policy(), &Usage::new(), &request, 0);
        assert!(matches!(refusal, Refusal::NotAnAmount { .. }), "{refusal}");
    }
}

#[test]
fn a_day_begins_at_midnight_utc_and_ends_before_the_next() {
    let top_up = request(usd!("0")).top_up(usd!("5"));
    let mut usage = Usage::new();
    for now in [DAY, 2 * DAY - 1] {
        usage = decide(&policy(), &usage, &top_up, now).1;
    }
    assert_eq!(refusal(&policy(), &usage, &top_up, 2 * DAY - 1).rule(), Rule::PerDay);
    assert_eq!(decide(&policy(), &usage, &top_up, 2 * DAY).0, Decision::Allow);
    assert_eq!(decide(&policy(), &usage, &top_up, DAY - 1).0, Decision::Allow);
    // Before 1970 too.
    assert_eq!(decide(&policy(), &usage, &top_up, -1).1.held(Currency::USD, -DAY), usd!("5"));
}

#[test]
fn sums_beyond_the_largest_amount_are_refused() {
    let largest = Money::new(Micros::MAX, Currency::USD);
    let policy = Policy::new().allow_any().per_request(largest);
    let policy = policy.per_top_up(largest).per_day(largest);
    let top_up = request(usd!("0")).top_up(largest);
    let (_, usage) = decide(&policy, &Usage::new(), &top_up, 0);
    assert_eq!(usage.held(Currency::USD, 0), largest);
    assert_eq!(refusal(&policy, &usage, &top_up, 0).left(), Some(usd!("0")));
}

#[test]
fn usage_survives_serialization_and_refuses_what_cannot_be() {
    let top_up = request(usd!("0")).top_up(usd!("5"));
    let usage = decide(&policy(), &Usage::new(), &top_up, 3 * DAY).1;
    let json = serde_json::to_string(&usage).unwrap();
    assert_eq!(json, r#"{"rows":[{"day":3,"currency":"usd","held":5000000}]}"#);
    assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
    let row = r#"{"day":3,"currency":"usd","held":-1}"#;
    assert!(serde_json::from_str::<Usage>(&format!(r#"{{"rows":[{row}]}}"#)).is_err());
    let row = r#"{"day":3,"currency":"usd","held":1}"#;
    let rows = |count| format!(r#"{{"rows":[{}]}}"#, vec![row; count].join(","));
    assert!(serde_json::from_str::<Usage>(&rows(1)).is_ok());
    assert!(serde_json::from_str::<Usage>(&rows(2)).is_err());

    let hold = top_up.hold(3 * DAY).unwrap();
    let stored = serde_json::to_string(&hold).unwrap();
    let hold: Hold = serde_json::from_str(&stored).unwrap();
    assert_eq!(usage.release(&hold), Usage::new());
}

#[derive(Clone, Debug)]
enum Step {
    TopUp {
        now: i64,
        cents: i64,
    },
    /// Takes back one of the holds, at most once.
    Release(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..60 * DAY, 1..700_i64).prop_map(|(now, cents)| Step::TopUp { now, cents }),
        6 => (0..2 * DAY, 1..700_i64).prop_map(|(now, cents)| Step::TopUp { now, cents }),
        2 => any::<usize>().prop_map(Step::Release),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever the clock does: forwards, backwards, across days that were forgotten.
    #[test]
    fn what_is_approved_on_a_day_and_not_returned_never_exceeds_its_cap(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let policy = policy();
        let mut usage = Usage::new();
        let mut open: Vec<(i64, i64, Hold)> = Vec::new();
        let mut days: HashMap<i64, i64> = HashMap::new();
        for step in steps {
            match step {
                Step::TopUp { now, cents } => {
                    let amount = Money::new(Currency::USD.from_minor(cents).unwrap(), Currency::USD);
                    let asked = request(usd!("0.01")).top_up(amount);
                    let (decision, after) = decide(&policy, &usage, &asked, now);
                    usage = after;
                    if decision == Decision::Allow {
                        prop_assert!(cents <= 500);
                        *days.entry(now / DAY).or_default() += cents;
                        open.push((now / DAY, cents, asked.hold(now).unwrap()));
                    }
                }
                Step::Release(which) if !open.is_empty() => {
                    let (day, cents, hold) = open.swap_remove(which % open.len());
                    usage = usage.release(&hold);
                    *days.entry(day).or_default() -= cents;
                }
                Step::Release(_) => {}
                Step::Restart => {
                    let json = serde_json::to_string(&usage).unwrap();
                    prop_assert!(json.len() < 4_096, "the usage is bounded");
                    usage = serde_json::from_str(&json).unwrap();
                }
            }
            prop_assert!(days.values().all(|sum| (0..=1_000).contains(sum)), "{days:?}");
        }
    }
}
