//! The decision.
//!
//! ```
//! use farebox_policy::{Decision, Policy, Request, Usage, decide};
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! let policy = policy.ask_above(usd!("0.02"));
//! let from_credit = Request::new("api.example.com", 443, usd!("0.01"));
//! let (decision, usage) = decide(&policy, &Usage::new(), &from_credit, 0);
//! assert_eq!(decision, Decision::Allow);
//! assert_eq!(usage, None); // nothing left the card
//!
//! let dear = Request::new("api.example.com", 443, usd!("0.03"));
//! let (decision, _) = decide(&policy, &Usage::new(), &dear, 0);
//! assert!(matches!(decision, Decision::Escalate(_)));
//! assert_eq!(decide(&policy, &Usage::new(), &dear.approved(), 0).0, Decision::Allow);
//! ```

use std::ops::ControlFlow;

use farebox_protocol::Money;
use serde::Serialize;

use crate::check::{Verdict, each_check};
use crate::hold::Hold;
use crate::policy::Policy;
use crate::refusal::{Escalation, Refusal};
use crate::usage::Usage;

/// What an agent is about to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) price: Money,
    pub(crate) top_up: Option<Money>,
    pub(crate) approved: bool,
}

impl<'a> Request<'a> {
    /// A request to `host` on `port` that costs `price`, paid from credit.
    pub fn new(host: &'a str, port: u16, price: Money) -> Request<'a> {
        Request { host, port, price, top_up: None, approved: false }
    }

    /// The same, paid from a card charge of `amount`.
    #[must_use]
    pub fn top_up(mut self, amount: Money) -> Request<'a> {
        self.top_up = Some(amount);
        self
    }

    /// The same, after a human said yes to it: thresholds are passed, limits are not.
    #[must_use]
    pub fn approved(mut self) -> Request<'a> {
        self.approved = true;
        self
    }

    /// What [`decide()`] sets aside at `now` when it allows this request: its top-up.
    pub fn hold(&self, now: i64) -> Option<Hold> {
        self.top_up.map(|amount| Hold::new(self.host, self.port, amount, now))
    }
}

/// Whether it may be paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// It may.
    Allow,
    /// It may, if a human says so.
    Escalate(Escalation),
    /// It may not.
    Refuse(Refusal),
}

/// Decides about `request` at `now` (Unix seconds). With it comes the usage after a top-up that is
/// allowed; `None` when nothing is set aside and the usage stays what it is.
///
/// A hold is what leaves the card if all goes well. Keep the new usage before the money is sent,
/// and take the hold back with [`Usage::release`] only when the card was definitely not charged.
pub fn decide(
    policy: &Policy,
    usage: &Usage,
    request: &Request<'_>,
    now: i64,
) -> (Decision, Option<Usage>) {
    let mut decision = Decision::Allow;
    let _ = each_check(policy, usage, request, now, &mut |check| match check.verdict {
        Verdict::Pass => ControlFlow::Continue(()),
        Verdict::Escalate(escalation) => {
            if decision == Decision::Allow {
                decision = Decision::Escalate(escalation);
            }
            ControlFlow::Continue(())
        }
        Verdict::Refuse(refusal) => {
            decision = Decision::Refuse(refusal);
            ControlFlow::Break(())
        }
    });
    let hold = request.hold(now).filter(|_| decision == Decision::Allow);
    (decision, hold.map(|hold| usage.hold(&hold)))
}
