use farebox_policy::{
    Decision, Escalation, OriginLimits, Policy, Refusal, Request, Rule, Usage, Window, decide,
};
use farebox_protocol::{Currency, Micros, Money, usd};

use crate::support::{DAY, NOW, cents, pay, refusal, top_up};

const HOST: &str = "api.example.com";

fn policy() -> Policy {
    let policy = Policy::new().allow(HOST).per_request(usd!("0.05"));
    policy.per_top_up(usd!("5")).per_day(usd!("10"))
}

fn request(price: Money) -> Request<'static> {
    Request::new(HOST, 443, price)
}

fn escalation(policy: &Policy, usage: &Usage, request: &Request<'_>, now: i64) -> Escalation {
    match decide(policy, usage, request, now) {
        (Decision::Escalate(escalation), None) => escalation,
        other => panic!("not escalated: {other:?}"),
    }
}

#[test]
fn limits_include_their_own_amount() {
    let usage = pay(&policy(), &Usage::new(), &request(usd!("0.05")).top_up(usd!("5")), 0);
    assert_eq!(usage.held(Currency::USD, 0), usd!("5"));
    let above = [
        (request(usd!("0.050001")), Rule::PerRequest, usd!("0.05"), usd!("0.05")),
        (request(usd!("0.01")).top_up(usd!("5.01")), Rule::PerTopUp, usd!("5"), usd!("5")),
    ];
    for (request, rule, limit, left) in above {
        let refusal = refusal(&policy(), &usage, &request, 0);
        assert_eq!((refusal.rule(), refusal.limit()), (rule, Some(limit)));
        assert_eq!((refusal.left(), refusal.resets_at()), (Some(left), None));
    }
}

#[test]
fn a_refusal_says_what_is_left_and_when_more_is() {
    let usage = pay(&policy(), &Usage::new(), &top_up(HOST, usd!("5")), 0);
    let usage = pay(&policy(), &usage, &top_up(HOST, usd!("3.5")), 0);
    let of_day = refusal(&policy(), &usage, &top_up(HOST, usd!("2")), DAY - 1);
    assert_eq!(
        of_day.to_string(),
        "2.00 usd is above the limit per day: 1.50 usd of 10.00 usd left; it resets at \
         1970-01-02T00:00:00Z"
    );
    assert_eq!((of_day.asked(), of_day.left()), (Some(usd!("2")), Some(usd!("1.5"))));
    assert_eq!(of_day.resets_at(), Some(DAY));
    assert_eq!(
        serde_json::to_value(Decision::Refuse(of_day)).unwrap(),
        serde_json::json!({
            "decision": "refuse", "refusal": "above", "rule": "per_day", "origin": null,
            "limit": "10.00 usd", "asked": "2.00 usd", "left": "1.50 usd", "resets_at": DAY,
        })
    );

    let own = OriginLimits::new("example.com").per_week(usd!("9"));
    let of_week = refusal(&policy().origin(own), &usage, &top_up(HOST, usd!("1")), DAY - 1);
    assert_eq!((of_week.rule(), of_week.origin()), (Rule::PerWeek, Some("example.com")));
    assert_eq!(
        of_week.to_string(),
        "1.00 usd is above the limit per week for example.com: 0.50 usd of 9.00 usd left; it \
         resets at 1970-01-05T00:00:00Z"
    );
}

#[test]
fn limits_that_are_not_set_refuse_what_needs_them() {
    let any = || Policy::new().allow_any();
    let credit = request(usd!("0.01"));
    let card = request(usd!("0.01")).top_up(usd!("5"));
    let cases = [
        (any().per_top_up(usd!("5")).per_day(usd!("5")), &credit, Rule::PerRequest),
        (any().per_request(usd!("1")).per_day(usd!("5")), &card, Rule::PerTopUp),
        (any().per_request(usd!("1")).per_top_up(usd!("5")), &card, Rule::Total),
        (
            any().per_request(usd!("1")).per_top_up(usd!("5")).payments_per_minute(1),
            &card,
            Rule::Total,
        ),
    ];
    for (policy, request, rule) in cases {
        let refusal = refusal(&policy, &Usage::new(), request, 0);
        assert!(matches!(refusal, Refusal::Unset { rule: found, .. } if found == rule));
    }
    assert_eq!(
        decide(&any().per_request(usd!("1")), &Usage::new(), &credit, 0),
        (Decision::Allow, None)
    );
}

#[test]
fn any_one_total_is_enough_for_a_card() {
    let base = || Policy::new().allow_any().per_request(usd!("1")).per_top_up(usd!("5"));
    let five = usd!("5");
    let hour = std::time::Duration::from_secs(3_600);
    let totals = [
        (base().per_day(five), Rule::PerDay),
        (base().per_week(five), Rule::PerWeek),
        (base().per_month(five), Rule::PerMonth),
        (base().rolling(hour, five), Rule::Rolling("1h".parse().unwrap())),
        (base().lifetime(five), Rule::Lifetime),
        (base().origin(OriginLimits::new(HOST).lifetime(five)), Rule::Lifetime),
    ];
    for (policy, rule) in totals {
        let usage = pay(&policy, &Usage::new(), &top_up(HOST, five), NOW);
        let refusal = refusal(&policy, &usage, &top_up(HOST, usd!("0.000001")), NOW);
        assert_eq!((refusal.rule(), refusal.left()), (rule, Some(usd!("0"))));
    }
}

#[test]
fn money_of_another_currency_than_a_limit_is_refused() {
    let euro: Money = "0.01 eur".parse().unwrap();
    let card = || request(euro).top_up(euro);
    let in_euro = || Policy::new().allow(HOST).per_request(euro).per_top_up(euro).per_day(euro);
    let cases = [
        (policy(), request(euro), Rule::PerRequest),
        (policy().per_request(euro), card(), Rule::PerTopUp),
        (policy().per_request(euro).per_top_up(euro), card(), Rule::PerDay),
        (in_euro().lifetime(usd!("1")), card(), Rule::Lifetime),
        (in_euro().ask_above(usd!("1")), card(), Rule::AskAbove),
        (in_euro().ask_above_total(usd!("1")), card(), Rule::AskAboveTotal),
        (in_euro().origin(OriginLimits::new(HOST).per_day(usd!("1"))), card(), Rule::PerDay),
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
fn limits_of_one_host_hold_beside_the_general_ones() {
    let own = OriginLimits::new("example.com").per_day(usd!("6")).per_request(usd!("0.01"));
    let policy = policy().allow("other.example").origin(own);
    assert_eq!(policy.max_price(HOST, 443), Some(usd!("0.01")));
    assert_eq!(policy.max_price("other.example", 443), Some(usd!("0.05")));
    assert_eq!(policy.max_price("example.com", 443), None, "not allowed");
    assert_eq!(
        refusal(&policy, &Usage::new(), &request(usd!("0.02")), NOW).origin(),
        Some("example.com")
    );
    let usage = pay(&policy, &Usage::new(), &top_up(HOST, usd!("5")), NOW);
    let of_host = refusal(&policy, &usage, &top_up(HOST, usd!("2")), NOW);
    assert_eq!((of_host.origin(), of_host.left()), (Some("example.com"), Some(usd!("1"))));
    // What one host took does not count against another's own limit, only against the common one.
    let usage = pay(&policy, &usage, &top_up("other.example", usd!("4")), NOW);
    let of_all = refusal(&policy, &usage, &top_up("other.example", usd!("2")), NOW);
    assert_eq!((of_all.origin(), of_all.left()), (None, Some(usd!("1"))));
}

#[test]
fn payments_per_minute_count_those_that_were_declined() {
    let policy = policy().payments_per_minute(2);
    let cent = top_up(HOST, usd!("0.01"));
    let usage = pay(&policy, &Usage::new(), &cent, NOW);
    let usage = usage.release(&cent.hold(NOW).unwrap());
    assert_eq!(usage.held(Currency::USD, NOW), usd!("0"));
    let usage = pay(&policy, &usage, &cent, NOW + 20);
    let refusal = refusal(&policy, &usage, &cent, NOW + 59);
    assert_eq!((refusal.rule(), refusal.resets_at()), (Rule::PaymentsPerMinute, Some(NOW + 60)));
    assert_eq!(
        refusal.to_string(),
        "0.01 usd is one payment more than the 2 per minute: 0 left; it fits from \
         2023-11-14T22:14:20Z"
    );
    pay(&policy, &usage, &cent, NOW + 60);
}

#[test]
fn above_a_threshold_a_human_decides_and_limits_still_hold() {
    let policy = policy().ask_above(usd!("2"));
    let dear = top_up(HOST, usd!("3"));
    let asked = escalation(&policy, &Usage::new(), &dear, NOW);
    assert_eq!((asked.rule, asked.threshold, asked.asked), (Rule::AskAbove, usd!("2"), usd!("3")));
    assert_eq!(
        asked.to_string(),
        "3.00 usd is above the threshold of one payment, 2.00 usd: a human decides"
    );
    pay(&policy, &Usage::new(), &dear.approved(), NOW);
    pay(&policy, &Usage::new(), &top_up(HOST, usd!("2")), NOW);
    let beyond = top_up(HOST, usd!("5.01"));
    assert_eq!(refusal(&policy, &Usage::new(), &beyond, NOW).rule(), Rule::PerTopUp);
    assert_eq!(refusal(&policy, &Usage::new(), &beyond.approved(), NOW).rule(), Rule::PerTopUp);

    // The price alone is a payment too, from credit.
    let policy = policy.ask_above(usd!("0.02"));
    assert_eq!(escalation(&policy, &Usage::new(), &request(usd!("0.03")), NOW).asked, usd!("0.03"));
}

#[test]
fn a_payment_cannot_be_split_under_the_threshold() {
    let policy = policy().per_day(usd!("100")).ask_above(usd!("4")).ask_above_total(usd!("6"));
    let part = top_up(HOST, usd!("2"));
    // Across midnight as well: 23:59:50 and later.
    let midnight = NOW - NOW % DAY + DAY;
    let mut usage = Usage::new();
    for now in [midnight - 10, midnight - 5, midnight + 5] {
        usage = pay(&policy, &usage, &part, now);
    }
    let asked = escalation(&policy, &usage, &part, midnight + 10);
    assert_eq!((asked.rule, asked.total), (Rule::AskAboveTotal, Some(usd!("6"))));
    assert_eq!(
        asked.to_string(),
        "2.00 usd after 6.00 usd is above the threshold per rolling 1d, 6.00 usd: a human decides"
    );
    let usage = pay(&policy, &usage, &part.clone().approved(), midnight + 10);
    assert_eq!(usage.held_in(Window::Lifetime, Currency::USD, midnight), usd!("8"));
    escalation(&policy, &usage, &part, midnight + DAY - 20);
    pay(&policy, &usage, &part, midnight + 2 * DAY);
}

#[test]
fn sums_beyond_the_largest_amount_are_refused() {
    let largest = Money::new(Micros::MAX, Currency::USD);
    let policy = Policy::new().allow_any().per_request(largest);
    let policy = policy.per_top_up(largest).per_day(largest);
    let usage = pay(&policy, &Usage::new(), &top_up(HOST, largest), 0);
    assert_eq!(usage.held(Currency::USD, 0), largest);
    let of_day = refusal(&policy, &usage, &top_up(HOST, largest), 0);
    assert_eq!((of_day.rule(), of_day.left()), (Rule::PerDay, Some(usd!("0"))));
    // On another day the sum of all days could not be counted.
    let of_life = refusal(&policy, &usage, &top_up("other.example", cents(1)), DAY);
    assert_eq!((of_life.rule(), of_life.left()), (Rule::Lifetime, Some(usd!("0"))));
}

#[test]
fn times_at_the_end_of_an_i64_are_counted_at_the_end_of_the_calendar() {
    let policy = policy().per_week(usd!("20")).per_month(usd!("20")).payments_per_minute(9);
    let policy = policy.rolling(std::time::Duration::from_secs(366 * 86_400), usd!("20"));
    for now in [i64::MIN, i64::MAX] {
        let five = top_up(HOST, usd!("5"));
        let usage = pay(&policy, &Usage::new(), &five, now);
        let usage = pay(&policy, &usage, &five, now);
        assert_eq!(refusal(&policy, &usage, &five, now).rule(), Rule::PerDay);
        let usage = usage.release(&five.hold(now).unwrap());
        assert_eq!(usage.held(Currency::USD, now), usd!("5"));
    }
}
