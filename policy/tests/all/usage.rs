use farebox_policy::{Hold, HostPattern, OriginLimits, Policy, Rule, Usage, Window};
use farebox_protocol::{Currency, usd};

use crate::support::{DAY, NOW, cents, pay, refusal, top_up};

const HOST: &str = "api.example.com";

fn policy() -> Policy {
    let policy = Policy::new().allow_any().per_request(usd!("1")).per_top_up(usd!("5"));
    policy.lifetime(usd!("100000"))
}

#[test]
fn a_usage_is_read_as_it_was_written() {
    let usage = pay(&policy(), &Usage::new(), &top_up("API.example.com.", usd!("5")), NOW);
    let usage = pay(&policy(), &usage, &top_up(HOST, usd!("1")), NOW + 1);
    let json = serde_json::to_string(&usage).unwrap();
    assert_eq!(
        json,
        r#"{"latest":1700000001,"rows":[{"host":"api.example.com","port":443,"currency":"usd","older":0,"sums":[[1700000000,5000000,1],[1700000001,1000000,1]]}]}"#
    );
    assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
    assert_eq!(serde_json::from_str::<Usage>(r#"{"rows":[]}"#).unwrap(), Usage::new());
}

#[test]
fn a_usage_that_cannot_be_is_refused() {
    let row = |host: &str, older: &str, sums: &str| {
        format!(r#"{{"host":{host},"port":0,"currency":"usd","older":{older},"sums":{sums}}}"#)
    };
    let usage = |latest: &str, rows: &str| format!(r#"{{"latest":{latest},"rows":[{rows}]}}"#);
    let good = row("\"a.example\"", "1", "[[999,1,1],[1000,1,1]]");
    let read = |text: &str| serde_json::from_str::<Usage>(text);
    assert!(read(&usage("1000", &good)).is_ok());
    let most = "9007199254740991";
    let wrong = [
        (usage("1000", &row("\"A.example\"", "0", "[]")), "a host in capitals"),
        (usage("1000", &row("\"a/b\"", "0", "[]")), "not a host"),
        (usage("1000", &row("\"a.example\"", "-1", "[]")), "less than nothing"),
        (usage("1000", &row("\"a.example\"", "0", "[[1000,-1,1]]")), "less than nothing"),
        (usage("1000", &row("\"a.example\"", "0", "[[1000,1,-1]]")), "fewer than none"),
        (usage("1000", &row("\"a.example\"", "0", "[[1001,1,1]]")), "after the latest"),
        (usage("1000", &row("\"a.example\"", "0", "[[1000,1,1],[999,1,1]]")), "out of order"),
        (usage("1000", &row("\"a.example\"", "0", "[[1000,1,1],[1000,1,1]]")), "a time twice"),
        (usage("1000", &row("\"a.example\"", "0", "[[61,1,1]]")), "between two minutes"),
        (usage("1700000000", &row("\"a.example\"", "0", "[[0,1,1]]")), "older than any window"),
        (usage("1000", &format!("{good},{good}")), "a host twice"),
        (usage("null", &good), "a payment at no time"),
        (usage("253402300800", &good), "the year 10000"),
        (usage("1000", &row("\"a.example\"", most, "[[1000,1,1]]")), "too much in a row"),
        (usage("9223372036854775808", ""), "not a time"),
        (usage("1000", "").replace("rows", "row"), "another field"),
        (r#"{"rows":[{"day":3,"currency":"usd","held":1}]}"#.to_owned(), "another row"),
        (
            usage("1000", &[row("\"a.b\"", most, "[]"), row("\"b.b\"", "1", "[]")].join(",")),
            "too much in all",
        ),
        (
            usage(
                "1000",
                &(0..600)
                    .map(|n| row(&format!("\"h{n}\""), "0", "[]"))
                    .collect::<Vec<_>>()
                    .join(","),
            ),
            "too many hosts",
        ),
    ];
    for (text, what) in wrong {
        assert!(read(&text).is_err(), "{what}: {text}");
    }
}

#[test]
fn a_hold_is_returned_from_whatever_sum_contains_it() {
    for age in [0, 59, 3_000, 50_000, 20 * DAY, 300 * DAY, 500 * DAY] {
        let five = top_up(HOST, usd!("5"));
        let usage = pay(&policy(), &Usage::new(), &five, NOW);
        let usage = pay(&policy(), &usage, &top_up(HOST, usd!("2")), NOW + age);
        let hold = serde_json::to_string(&five.hold(NOW).unwrap()).unwrap();
        let hold: Hold = serde_json::from_str(&hold).unwrap();
        let usage = usage.release(&hold);
        assert_eq!(usage.held_in(Window::Lifetime, Currency::USD, NOW), usd!("2"), "{age}");
        assert_eq!(usage.held(Currency::USD, NOW + age), usd!("2"), "{age}");
        // Returned a second time, it finds nothing that could be it.
        assert_eq!(usage.release(&hold), usage);
    }
}

#[test]
fn a_hold_that_was_never_counted_returns_nothing() {
    let five = top_up(HOST, usd!("5"));
    let usage = pay(&policy(), &Usage::new(), &five, NOW);
    for other in [
        top_up("other.example", usd!("5")).hold(NOW),
        five.clone().hold(NOW + 1),
        top_up(HOST, usd!("5.01")).hold(NOW),
        top_up(HOST, "5.00 eur".parse().unwrap()).hold(NOW),
        farebox_policy::Request::new(HOST, 444, usd!("0")).top_up(usd!("5")).hold(NOW),
    ] {
        assert_eq!(usage.release(&other.unwrap()), usage);
    }
    assert_eq!(Usage::new().release(&five.hold(NOW).unwrap()), Usage::new());
}

#[test]
fn hosts_beyond_the_bound_are_counted_together_and_for_everyone() {
    let own = OriginLimits::new("named.example").per_month(cents(10));
    let policy = policy().origin(own);
    let mut usage = Usage::new();
    for n in 0..300 {
        usage = pay(&policy, &usage, &top_up(&format!("h{n}.example"), cents(1)), NOW);
    }
    let common = HostPattern::new("named.example");
    assert_eq!(usage.held_at(&common, Window::Month, Currency::USD, NOW), cents(44));
    assert_eq!(usage.held_in(Window::Month, Currency::USD, NOW), cents(300));
    let refused = refusal(&policy, &usage, &top_up("named.example", cents(1)), NOW);
    assert_eq!((refused.rule(), refused.origin()), (Rule::PerMonth, Some("named.example")));
    // A host of the common row is released from it.
    let hold = top_up("h299.example", cents(1)).hold(NOW).unwrap();
    let usage = usage.release(&hold);
    assert_eq!(usage.held_at(&common, Window::Month, Currency::USD, NOW), cents(43));
    let json = serde_json::to_string(&usage).unwrap();
    assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
}

#[test]
fn a_usage_stays_small_however_long_it_is_used() {
    let mut usage = Usage::new();
    let mut now = NOW;
    for n in 0..6_000 {
        now += [1, 7, 61, 3_700, 40_000][n % 5 * usize::from(n > 200)];
        usage = pay(&policy(), &usage, &top_up(HOST, cents(1)), now);
    }
    assert_eq!(usage.held_in(Window::Lifetime, Currency::USD, now), cents(6_000));
    let json = serde_json::to_string(&usage).unwrap();
    assert!(json.len() < 20_000, "{} bytes", json.len());
}
