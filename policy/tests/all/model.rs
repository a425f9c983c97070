//! Random policies and histories against a model that keeps every payment in a list.

use std::time::Duration;

use farebox_policy::{
    Amount, Applied, Decision, Hold, OriginLimits, Policy, Refusal, Request, Rule, Says, Usage,
    Window, decide, explain,
};
use farebox_protocol::Currency;
use proptest::prelude::*;

use crate::support::{DAY, NOW, cents};

const HOSTS: [&str; 3] = ["a.example", "x.a.example", "b.example"];
const SPANS: [i64; 8] = [1, 10, 60, 61, 3_600, 10_000, 86_400, 30 * 86_400];
const MINUTE: Duration = Duration::from_secs(60);

/// The limits of one set: amounts in cents.
#[derive(Clone, Debug)]
struct Rules {
    totals: Vec<(Total, i64)>,
    payments: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Total {
    Day,
    Week,
    Month,
    Lifetime,
    Rolling(i64),
}

#[derive(Clone, Debug)]
struct Written {
    all: Rules,
    of_a: Option<Rules>,
    ask_above: Option<i64>,
    ask_above_total: Option<i64>,
}

fn total() -> impl Strategy<Value = Total> {
    prop_oneof![
        Just(Total::Day),
        Just(Total::Week),
        Just(Total::Month),
        Just(Total::Lifetime),
        prop::sample::select(&SPANS[..]).prop_map(Total::Rolling),
    ]
}

fn rules(at_least: usize) -> impl Strategy<Value = Rules> {
    let totals = prop::collection::vec((total(), 50..3_000_i64), at_least..4);
    (totals, prop::option::weighted(0.3, 0..4_u32))
        .prop_map(|(totals, payments)| Rules { totals, payments })
}

fn written() -> impl Strategy<Value = Written> {
    let asks =
        (prop::option::weighted(0.3, 100..500_i64), prop::option::weighted(0.3, 100..2_000_i64));
    (rules(1), prop::option::of(rules(0)), asks).prop_map(|(all, of_a, asks)| Written {
        all,
        of_a,
        ask_above: asks.0,
        ask_above_total: asks.1,
    })
}

/// Calls the setters that a policy and the limits of one host have in common.
macro_rules! set {
    ($target:ident, $rules:expr) => {
        for (total, limit) in &$rules.totals {
            let limit = cents(*limit);
            $target = match *total {
                Total::Day => $target.per_day(limit),
                Total::Week => $target.per_week(limit),
                Total::Month => $target.per_month(limit),
                Total::Lifetime => $target.lifetime(limit),
                Total::Rolling(seconds) => {
                    $target.rolling(Duration::from_secs(seconds.unsigned_abs()), limit)
                }
            };
        }
        if let Some(payments) = $rules.payments {
            $target = $target.payments_per_minute(payments);
        }
    };
}

impl Written {
    fn policy(&self) -> Policy {
        let mut policy = Policy::new().allow_any().per_request(cents(10)).per_top_up(cents(600));
        set!(policy, self.all);
        if let Some(rules) = &self.of_a {
            let mut own = OriginLimits::new("a.example");
            set!(own, rules);
            policy = policy.origin(own);
        }
        if let Some(threshold) = self.ask_above {
            policy = policy.ask_above(cents(threshold));
        }
        match self.ask_above_total {
            Some(threshold) => policy.ask_above_total(cents(threshold)),
            None => policy,
        }
    }
}

struct Paid {
    at: i64,
    of_a: bool,
    cents: i64,
    hold: Hold,
    released: bool,
}

/// A list of payments, and what it says. With `late`, each counts for as long as a sum of many may
/// count it.
#[derive(Default)]
struct Model {
    paid: Vec<Paid>,
    latest: Option<i64>,
    /// Something was counted at a later time than its own.
    behind: bool,
}

impl Model {
    fn clock(&self, now: i64) -> i64 {
        self.latest.map_or(now, |latest| latest.max(now))
    }

    fn held(&self, only_a: bool, from: i64) -> i64 {
        let counts = |paid: &&Paid| !paid.released && paid.at >= from && (!only_a || paid.of_a);
        self.paid.iter().filter(counts).map(|paid| paid.cents).sum()
    }

    fn first(total: Total, now: i64, late: bool) -> i64 {
        match total {
            Total::Day => Window::Day.first(now),
            Total::Week => Window::Week.first(now),
            Total::Month => Window::Month.first(now),
            Total::Lifetime => i64::MIN,
            Total::Rolling(span) => now - span + 1 - if late { grain(span) } else { 0 },
        }
    }

    fn refuses(&self, rules: &Rules, only_a: bool, cents: i64, now: i64, late: bool) -> bool {
        // Later ones of a kind replace earlier ones, except for rolling windows.
        let set = |i: usize, total: Total| {
            let same = |other: &(Total, i64)| {
                !matches!(total, Total::Rolling(_))
                    && std::mem::discriminant(&other.0) == std::mem::discriminant(&total)
            };
            !rules.totals[i + 1..].iter().any(same)
        };
        let above = |(i, (total, limit)): (usize, &(Total, i64))| {
            let held = self.held(only_a, Model::first(*total, now, late));
            set(i, *total) && held + cents > *limit
        };
        let payments = self.paid.iter().filter(|paid| paid.at > now - 60 && (!only_a || paid.of_a));
        let payments = payments.count();
        rules.totals.iter().enumerate().any(above)
            || rules.payments.is_some_and(|limit| payments >= limit as usize)
    }

    fn says(&self, written: &Written, host: &str, cents: i64, now: i64, late: bool) -> Says {
        if self.latest.is_some_and(|latest| now < latest - DAY) {
            return Says::Refuse;
        }
        let now = self.clock(now);
        let of_a = written.of_a.as_ref().filter(|_| host != "b.example");
        if self.refuses(&written.all, false, cents, now, late)
            || of_a.is_some_and(|rules| self.refuses(rules, true, cents, now, late))
        {
            return Says::Refuse;
        }
        let total = self.held(false, Model::first(Total::Rolling(DAY), now, late)) + cents;
        let asks = written.ask_above.is_some_and(|threshold| cents > threshold)
            || written.ask_above_total.is_some_and(|threshold| total > threshold);
        if asks { Says::Ask } else { Says::Pass }
    }
}

/// How long a rolling window may count a payment too long.
fn grain(span: i64) -> i64 {
    match span {
        ..=60 => 0,
        61..=3_600 => 60,
        3_601..=86_400 => 3_600,
        _ => 86_400,
    }
}

#[derive(Clone, Debug)]
enum Step {
    TopUp { host: usize, cents: i64, approved: bool, wait: i64 },
    Release(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        6 => 0..4_i64,
        4 => 0..120_i64,
        3 => 0..7_200_i64,
        3 => 0..3 * DAY,
        1 => 0..40 * DAY,
        1 => 0..400 * DAY,
        1 => -100..0_i64,
        1 => -2 * DAY..0,
    ];
    let top_up = (0..HOSTS.len(), 1..600_i64, any::<bool>(), wait);
    prop_oneof![
        8 => top_up.prop_map(|(host, cents, approved, wait)| Step::TopUp { host, cents, approved, wait }),
        2 => any::<usize>().prop_map(Step::Release),
        1 => Just(Step::Restart),
    ]
}

fn says(decision: &Decision) -> Says {
    match decision {
        Decision::Allow => Says::Pass,
        Decision::Escalate(_) => Says::Ask,
        Decision::Refuse(_) => Says::Refuse,
    }
}

/// An explanation decides as the decision, by the strictest of its rules.
fn explains(policy: &Policy, usage: &Usage, request: &Request<'_>, now: i64) -> Decision {
    let decision = decide(policy, usage, request, now).0;
    let explanation = explain(policy, usage, request, now);
    assert_eq!(explanation.decision, decision);
    let says_any = |says| explanation.rules.iter().any(|rule| rule.says == says);
    let strictest = match (says_any(Says::Refuse), says_any(Says::Ask)) {
        (true, _) => Says::Refuse,
        (false, true) => Says::Ask,
        (false, false) => Says::Pass,
    };
    assert_eq!(strictest, says(&decision), "{explanation}");
    if let Decision::Refuse(refusal) = &decision {
        let first = explanation.rules.iter().find(|rule| rule.says == Says::Refuse).unwrap();
        assert_eq!((first.rule, first.resets_at), (refusal.rule(), refusal.resets_at()));
        assert_eq!(first.origin.as_deref(), refusal.origin());
    }
    decision
}

/// A rolling window refuses until the second before it says that the amount fits.
fn resets_when_it_says(policy: &Policy, usage: &Usage, request: &Request<'_>, refusal: &Refusal) {
    let Some(at) = refusal.resets_at() else { return };
    let refuses = |now| {
        let rules = explain(policy, usage, request, now).rules;
        let same = |rule: &&Applied| {
            let limit = refusal.limit().map(Amount::Money);
            rule.rule == refusal.rule()
                && rule.origin.as_deref() == refusal.origin()
                && limit.is_none_or(|limit| rule.limit == Some(limit))
        };
        rules.iter().find(same).is_some_and(|rule| rule.says == Says::Refuse)
    };
    assert!(refuses(at - 1), "{refusal}");
    let fits = refusal.limit().zip(refusal.asked());
    if fits.is_none_or(|(limit, asked)| asked.micros() <= limit.micros()) {
        assert!(!refuses(at), "{refusal}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Never laxer than the list, and stricter only by the grain of a rolling window.
    #[test]
    fn decisions_are_those_of_a_list_of_all_payments(
        written in written(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let policy = written.policy();
        let json = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(&Policy::from_json(&json).unwrap(), &policy);
        let (mut usage, mut model, mut now) = (Usage::new(), Model::default(), NOW);
        for step in steps {
            match step {
                Step::TopUp { host, cents: amount, approved, wait } => {
                    now += wait;
                    let host = HOSTS[host];
                    let mut request = Request::new(host, 443, cents(1)).top_up(cents(amount));
                    if approved {
                        request = request.approved();
                    }
                    let decision = explains(&policy, &usage, &request, now);
                    let (found, after) = (says(&decision), decide(&policy, &usage, &request, now).1);
                    let strict = |late| match model.says(&written, host, amount, now, late) {
                        Says::Ask if approved => Says::Pass,
                        says => says,
                    };
                    let order = |says| match says { Says::Pass => 0, Says::Ask => 1, Says::Refuse => 2 };
                    prop_assert!(order(found) >= order(strict(false)), "laxer: {decision:?}");
                    if !model.behind {
                        prop_assert!(order(found) <= order(strict(true)), "stricter: {decision:?}");
                    }
                    if let Decision::Refuse(refusal) = &decision
                        && refusal.rule() != Rule::Clock
                    {
                        resets_when_it_says(&policy, &usage, &request, refusal);
                    }
                    prop_assert_eq!(after.is_some(), found == Says::Pass);
                    if let Some(after) = after {
                        usage = after;
                        let at = model.clock(now);
                        model.behind |= at != now;
                        model.latest = Some(at);
                        let (of_a, hold) = (host != "b.example", request.hold(now).unwrap());
                        model.paid.push(Paid { at, of_a, cents: amount, hold, released: false });
                    }
                }
                Step::Release(which) => {
                    let open = model.paid.iter_mut().filter(|paid| !paid.released);
                    let mut open: Vec<_> = open.collect();
                    let count = open.len().max(1);
                    if let Some(paid) = open.get_mut(which % count) {
                        usage = usage.release(&paid.hold);
                        paid.released = true;
                    }
                }
                Step::Restart => {
                    let json = serde_json::to_string(&usage).unwrap();
                    let read: Usage = serde_json::from_str(&json).unwrap();
                    prop_assert_eq!(&read, &usage);
                }
            }
            let lifetime = usage.held_in(Window::Lifetime, Currency::USD, now);
            prop_assert_eq!(lifetime, cents(model.held(false, i64::MIN)));
            for (window, total) in
                [(Window::Day, Total::Day), (Window::Week, Total::Week), (Window::Month, Total::Month)]
            {
                let exact = model.held(false, Model::first(total, model.clock(now), false));
                let counted = usage.held_in(window, Currency::USD, now);
                prop_assert!(counted.micros() >= cents(exact).micros());
                prop_assert!(model.behind || counted == cents(exact));
            }
        }
    }

    /// Whatever is asked, no window ever holds more than its limit.
    #[test]
    fn no_window_ever_holds_more_than_its_limit(
        asked in prop::collection::vec((0..200_i64, 1..600_i64), 1..150),
    ) {
        let policy = Policy::new().allow_any().per_request(cents(1)).per_top_up(cents(500));
        let policy = policy.per_day(cents(2_000)).rolling(MINUTE, cents(700));
        let (mut usage, mut now) = (Usage::new(), NOW);
        let mut paid: Vec<(i64, i64)> = Vec::new();
        for (wait, amount) in asked {
            now += wait;
            let request = Request::new("a.example", 443, cents(0)).top_up(cents(amount));
            if let (Decision::Allow, Some(after)) = decide(&policy, &usage, &request, now) {
                usage = after;
                paid.push((now, amount));
            }
            let since = |first| paid.iter().filter(|(at, _)| *at >= first).map(|(_, cents)| cents).sum::<i64>();
            prop_assert!(since(now - 59) <= 700);
            prop_assert!(since(Window::Day.first(now)) <= 2_000);
        }
    }
}
