//! Policies by example, in Rust and in TOML. The two are the same policy: every example compares
//! them. `spec/policy.md` has all fields and what exactly they count.
//!
//! Everything fails closed: what is not allowed is refused, and a limit that is not set refuses
//! what needs it. A request needs an allowed host and a `per_request`. A charge of the card, a
//! *top-up*, also needs a `per_top_up` and at least one total.
//!
//! A policy can be tried without paying: [`decide`](farebox_policy::decide()) says what is
//! decided, [`explain`](farebox_policy::explain()) shows every rule that applies, and
//! [`Policy::warnings`](crate::Policy::warnings) what its owner surely did not mean.
//!
//! # 1. One API that is trusted
//!
//! Small prices, 5 usd from the card at a time, 10 usd a day.
//!
//! ```
//! use farebox_client::{Policy, Usage, usd};
//! use farebox_policy::{Decision, Request, decide, explain};
//!
//! let policy = Policy::new()
//!     .allow("api.example.com")
//!     .per_request(usd!("0.05"))
//!     .per_top_up(usd!("5"))
//!     .per_day(usd!("10"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["api.example.com"]
//!         per_request = "0.05 usd"
//!         per_top_up = "5.00 usd"
//!         per_day = "10.00 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! assert!(policy.warnings().is_empty());
//!
//! let noon = 1_700_049_600; // 2023-11-15 12:00 UTC
//! let page = Request::new("api.example.com", 443, usd!("0.01")).top_up(usd!("5"));
//! let (decision, usage) = decide(&policy, &Usage::new(), &page, noon);
//! assert_eq!(decision, Decision::Allow);
//! let (_, usage) = decide(&policy, &usage.unwrap(), &page, noon);
//! let third = explain(&policy, &usage.unwrap(), &page, noon).to_string();
//! assert!(third.ends_with(
//!     "refused: 5.00 usd is above the limit per day: 0.00 usd of 10.00 usd left; \
//!      it resets at 2023-11-16T00:00:00Z"
//! ));
//! let elsewhere = Request::new("example.com", 443, usd!("0.01"));
//! assert!(matches!(decide(&policy, &Usage::new(), &elsewhere, noon).0, Decision::Refuse(_)));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 2. A research agent on many hosts, with a budget for the day
//!
//! It may pay whoever it meets, so the amounts are small, and so is what one host can get.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let policy = Policy::new()
//!     .allow_any()
//!     .per_request(usd!("0.10"))
//!     .per_top_up(usd!("5"))
//!     .per_day(usd!("20"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = "any"
//!         per_request = "0.10 usd"
//!         per_top_up = "5.00 usd"
//!         per_day = "20.00 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! // The fifth host of the day is one too many, whoever it is.
//! let mut usage = Usage::new();
//! for host in ["a.example", "b.example", "c.example", "d.example"] {
//!     let page = Request::new(host, 443, usd!("0.10")).top_up(usd!("5"));
//!     let (decision, after) = decide(&policy, &usage, &page, 1_700_000_000);
//!     assert_eq!(decision, Decision::Allow);
//!     usage = after.unwrap();
//! }
//! let fifth = Request::new("e.example", 443, usd!("0.10")).top_up(usd!("5"));
//! let (decision, _) = decide(&policy, &usage, &fifth, 1_700_000_000);
//! assert!(matches!(decision, Decision::Refuse(refusal) if refusal.rule() == Rule::PerDay));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! Such an agent takes addresses from pages: give it a [`Guard`](crate::Guard), and read what
//! [rests on the provider](crate#what-rests-on-the-provider).
//!
//! # 3. Small prices everywhere, a human above 1 usd
//!
//! A threshold looks at single payments, and a top-up is one: the owner is asked before the card is
//! charged more than 1 usd, and about every price above it. What costs less is paid from credit
//! without a word. [Approvals](super::approvals) says how the owner is asked.
//!
//! ```
//! # use farebox_client::{Policy, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let policy = Policy::new()
//!     .allow_any()
//!     .per_request(usd!("20"))
//!     .per_top_up(usd!("20"))
//!     .per_day(usd!("40"))
//!     .ask_above(usd!("1"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = "any"
//!         per_request = "20.00 usd"
//!         per_top_up = "20.00 usd"
//!         per_day = "40.00 usd"
//!         ask_above = "1.00 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! let says = |request| decide(&policy, &Usage::new(), &request, 1_700_000_000).0;
//! let small = Request::new("a.example", 443, usd!("1"));
//! assert_eq!(says(small.clone()), Decision::Allow);
//! assert!(matches!(says(small.top_up(usd!("5"))), Decision::Escalate(_)));
//! let dear = Request::new("a.example", 443, usd!("1.01"));
//! assert!(matches!(says(dear.clone()), Decision::Escalate(_)));
//! assert_eq!(says(dear.approved()), Decision::Allow);
//! // No human can allow what a limit forbids.
//! let dearer = Request::new("a.example", 443, usd!("20.01")).approved();
//! assert!(matches!(says(dearer), Decision::Refuse(_)));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! With `ask_above_total` a human also decides when many small top-ups together pass a sum within
//! 24 hours.
//!
//! # 4. A domain, but not one of its hosts
//!
//! A name stands for its subdomains, and blocking wins.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let policy = Policy::new()
//!     .allow("example.com")
//!     .block("ads.example.com")
//!     .per_request(usd!("0.05"))
//!     .per_top_up(usd!("5"))
//!     .per_week(usd!("25"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["example.com"]
//!         block = ["ads.example.com"]
//!         per_request = "0.05 usd"
//!         per_top_up = "5.00 usd"
//!         per_week = "25.00 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! let says = |host: &str| {
//!     decide(&policy, &Usage::new(), &Request::new(host, 443, usd!("0.05")), 1_700_000_000).0
//! };
//! assert_eq!(says("example.com"), Decision::Allow);
//! assert_eq!(says("API.example.com"), Decision::Allow);
//! for (host, rule) in [
//!     ("ads.example.com", Rule::Block),
//!     ("eu.ads.example.com", Rule::Block),
//!     ("notexample.com", Rule::Host),
//!     ("example.com.evil.example", Rule::Host),
//! ] {
//!     assert!(matches!(says(host), Decision::Refuse(refusal) if refusal.rule() == rule));
//! }
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 5. A month's budget, and an end to it all
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let policy = Policy::new()
//!     .allow("api.example.com")
//!     .per_request(usd!("1"))
//!     .per_top_up(usd!("50"))
//!     .per_month(usd!("100"))
//!     .lifetime(usd!("250"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["api.example.com"]
//!         per_request = "1.00 usd"
//!         per_top_up = "50.00 usd"
//!         per_month = "100.00 usd"
//!         lifetime = "250.00 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! let month = 31 * 86_400;
//! let mut usage = Usage::new();
//! let mut pay = |now| {
//!     let page = Request::new("api.example.com", 443, usd!("1")).top_up(usd!("50"));
//!     let (decision, after) = decide(&policy, &usage, &page, now);
//!     usage = after.unwrap_or(usage.clone());
//!     match decision {
//!         Decision::Refuse(refusal) => Some(refusal.rule()),
//!         _ => None,
//!     }
//! };
//! let november = 1_700_000_000;
//! assert_eq!([pay(november), pay(november)], [None, None]);
//! assert_eq!(pay(november), Some(Rule::PerMonth));
//! let december = november + month;
//! assert_eq!([pay(december), pay(december)], [None, None]);
//! let january = december + month;
//! assert_eq!([pay(january), pay(january)], [None, Some(Rule::Lifetime)]);
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 6. Limits for single hosts
//!
//! They hold beside those of all hosts together: a payment must be within both.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! use farebox_policy::OriginLimits;
//!
//! let policy = Policy::new()
//!     .allow("api.example.com")
//!     .allow("data.example.org")
//!     .per_request(usd!("0.10"))
//!     .per_top_up(usd!("5"))
//!     .per_day(usd!("20"))
//!     .origin(OriginLimits::new("data.example.org").per_request(usd!("0.01")).per_day(usd!("5")));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["api.example.com", "data.example.org"]
//!         per_request = "0.10 usd"
//!         per_top_up = "5.00 usd"
//!         per_day = "20.00 usd"
//!
//!         [[origin]]
//!         host = "data.example.org"
//!         per_request = "0.01 usd"
//!         per_day = "5.00 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! let says = |usage: &Usage, request| decide(&policy, usage, &request, 1_700_000_000);
//! let api = Request::new("api.example.com", 443, usd!("0.10")).top_up(usd!("5"));
//! let data = Request::new("data.example.org", 443, usd!("0.01")).top_up(usd!("5"));
//! let (decision, usage) = says(&Usage::new(), data.clone());
//! assert_eq!(decision, Decision::Allow);
//! let usage = usage.unwrap();
//! let (decision, _) = says(&usage, data);
//! assert!(matches!(decision, Decision::Refuse(refusal) if refusal.rule() == Rule::PerDay));
//! assert_eq!(says(&usage, api).0, Decision::Allow);
//! let dear = Request::new("data.example.org", 443, usd!("0.02"));
//! assert!(matches!(says(&usage, dear).0, Decision::Refuse(_)));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 7. So many payments a minute
//!
//! A loop that has gone wrong runs into this before it has used up the day. Requests that are paid
//! from credit are not counted: they leave the card alone.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let policy = Policy::new()
//!     .allow_any()
//!     .per_request(usd!("0.05"))
//!     .per_top_up(usd!("5"))
//!     .per_day(usd!("100"))
//!     .payments_per_minute(1);
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = "any"
//!         per_request = "0.05 usd"
//!         per_top_up = "5.00 usd"
//!         per_day = "100.00 usd"
//!         payments_per_minute = 1
//!         "#
//!     )?,
//!     policy
//! );
//! let now = 1_700_000_000;
//! let page = |host| Request::new(host, 443, usd!("0.01"));
//! let (_, usage) = decide(&policy, &Usage::new(), &page("a.example").top_up(usd!("5")), now);
//! let usage = usage.unwrap();
//! let (decision, _) = decide(&policy, &usage, &page("b.example").top_up(usd!("5")), now + 59);
//! let Decision::Refuse(refusal) = decision else { panic!("{decision:?}") };
//! assert_eq!((refusal.rule(), refusal.resets_at()), (Rule::PaymentsPerMinute, Some(now + 60)));
//! assert_eq!(decide(&policy, &usage, &page("a.example"), now + 59).0, Decision::Allow);
//! let later = decide(&policy, &usage, &page("b.example").top_up(usd!("5")), now + 60);
//! assert_eq!(later.0, Decision::Allow);
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 8. A trial: credit only, no card
//!
//! Without a `per_top_up` no card is charged, even if the agent has one. It spends the credit that
//! its state knows, and then it ends.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["api.example.com"]
//!         per_request = "0.05 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! let page = Request::new("api.example.com", 443, usd!("0.05"));
//! assert_eq!(decide(&policy, &Usage::new(), &page, 1_700_000_000).0, Decision::Allow);
//! let by_card = page.top_up(usd!("5"));
//! let (decision, _) = decide(&policy, &Usage::new(), &by_card, 1_700_000_000);
//! assert!(matches!(decision, Decision::Refuse(refusal) if refusal.rule() == Rule::PerTopUp));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 9. One currency
//!
//! Amounts in two currencies cannot be compared, and there are no rates of exchange here: whatever
//! is asked in another currency than a limit's is refused, also by a limit that has room.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, Money, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let euros = |amount: &str| format!("{amount} eur").parse::<Money>().unwrap();
//! let policy = Policy::new()
//!     .allow("api.example.com")
//!     .per_request(euros("0.05"))
//!     .per_top_up(euros("5.00"))
//!     .per_day(euros("10.00"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["api.example.com"]
//!         per_request = "0.05 eur"
//!         per_top_up = "5.00 eur"
//!         per_day = "10.00 eur"
//!         "#
//!     )?,
//!     policy
//! );
//! let says = |request| decide(&policy, &Usage::new(), &request, 1_700_000_000).0;
//! let page = |price| Request::new("api.example.com", 443, price);
//! assert_eq!(says(page(euros("0.05")).top_up(euros("5.00"))), Decision::Allow);
//! let Decision::Refuse(refusal) = says(page(usd!("0.01"))) else { panic!("it was allowed") };
//! assert_eq!(
//!     refusal.to_string(),
//!     "0.01 usd cannot be compared with the limit per request of 0.05 eur"
//! );
//! // A policy with limits in two currencies pays in neither, and its warnings say so.
//! let both = policy.per_day(usd!("10"));
//! let asked = page(euros("0.05")).top_up(euros("5.00"));
//! assert!(matches!(decide(&both, &Usage::new(), &asked, 0).0, Decision::Refuse(_)));
//! assert_eq!(both.warnings().len(), 1);
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 10. Nothing at all
//!
//! The kill switch: a new policy, or an empty file. Not even credit is spent.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! let policy = Policy::new();
//! assert_eq!(Policy::from_toml("")?, policy);
//!
//! let free = Request::new("api.example.com", 443, usd!("0"));
//! let (decision, _) = decide(&policy, &Usage::new(), &free, 1_700_000_000);
//! assert!(matches!(decision, Decision::Refuse(refusal) if refusal.rule() == Rule::Host));
//!
//! // Or stop what is there and keep the rest of the file: an entry that blocks a whole domain.
//! let stopped = Policy::new().allow("example.com").per_request(usd!("0.05")).block("example.com");
//! let page = Request::new("api.example.com", 443, usd!("0.05"));
//! let (decision, _) = decide(&stopped, &Usage::new(), &page, 1_700_000_000);
//! assert!(matches!(decision, Decision::Refuse(refusal) if refusal.rule() == Rule::Block));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! An agent keeps the policy that it was made with: to throw the switch, change the file and start
//! the agent again.
//!
//! # 11. No way around midnight
//!
//! A day's limit lets its amount pass before midnight and again after it. A rolling window does
//! not.
//!
//! ```
//! # use farebox_client::{Policy, Rule, Usage, usd};
//! # use farebox_policy::{Decision, Request, decide};
//! use std::time::Duration;
//!
//! let policy = Policy::new()
//!     .allow("api.example.com")
//!     .per_request(usd!("0.05"))
//!     .per_top_up(usd!("10"))
//!     .rolling(Duration::from_secs(24 * 60 * 60), usd!("10"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["api.example.com"]
//!         per_request = "0.05 usd"
//!         per_top_up = "10.00 usd"
//!         rolling = [{ window = "1d", limit = "10.00 usd" }]
//!         "#
//!     )?,
//!     policy
//! );
//! let daily = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! let daily = daily.per_top_up(usd!("10")).per_day(usd!("10"));
//!
//! let midnight = 1_700_006_400; // 2023-11-15 00:00 UTC
//! let page = Request::new("api.example.com", 443, usd!("0.05")).top_up(usd!("10"));
//! let (_, usage) = decide(&policy, &Usage::new(), &page, midnight - 1);
//! let usage = usage.unwrap();
//! assert_eq!(decide(&daily, &usage, &page, midnight).0, Decision::Allow);
//! assert!(matches!(decide(&policy, &usage, &page, midnight).0, Decision::Refuse(_)));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! # 12. A provider whose word counts
//!
//! What was set aside for a payment that a server refused stays counted: a dishonest one could
//! charge the card and say that it did not. From a host in `trust` the word is enough. It allows
//! nothing.
//!
//! ```
//! # use farebox_client::{Policy, usd};
//! let policy = Policy::new()
//!     .allow("api.example.com")
//!     .allow("data.example.org")
//!     .trust("api.example.com")
//!     .per_request(usd!("0.05"))
//!     .per_top_up(usd!("5"))
//!     .per_day(usd!("10"));
//! assert_eq!(
//!     Policy::from_toml(
//!         r#"
//!         allow = ["api.example.com", "data.example.org"]
//!         trust = ["api.example.com"]
//!         per_request = "0.05 usd"
//!         per_top_up = "5.00 usd"
//!         per_day = "10.00 usd"
//!         "#
//!     )?,
//!     policy
//! );
//! assert!(policy.trusts("eu.api.example.com", 443));
//! assert!(!policy.trusts("data.example.org", 443));
//! assert!(!Policy::new().trust("api.example.com").allows("api.example.com", 443));
//! # Ok::<(), farebox_policy::PolicyError>(())
//! ```
//!
//! [Testing](super::testing#cards-that-are-declined) shows it at work, and
//! [`Agent::take_back`](crate::Agent::take_back) is what the owner does about the others.
