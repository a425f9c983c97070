//! Why something may not be paid.
//!
//! ```
//! use farebox_policy::{Decision, Policy, Request, Usage, decide};
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! let request = Request::new("api.example.com", 443, usd!("0.20"));
//! let (decision, _) = decide(&policy, &Usage::new(), &request, 0);
//! let Decision::Refuse(refusal) = decision else { panic!("above the limit") };
//! assert_eq!(refusal.limit(), Some(usd!("0.05")));
//! assert_eq!(refusal.asked(), Some(usd!("0.20")));
//! assert_eq!(
//!     refusal.to_string(),
//!     "0.20 usd is above the limit per request: 0.05 usd of 0.05 usd left"
//! );
//! ```

use std::fmt;

use farebox_protocol::Money;

/// The rule of a policy that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// [`Policy::allow`](crate::Policy::allow).
    Host,
    /// [`Policy::per_request`](crate::Policy::per_request).
    PerRequest,
    /// [`Policy::per_top_up`](crate::Policy::per_top_up).
    PerTopUp,
    /// [`Policy::per_day`](crate::Policy::per_day).
    PerDay,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Host => "allowed hosts",
            Rule::PerRequest => "limit per request",
            Rule::PerTopUp => "limit per top-up",
            Rule::PerDay => "limit per day",
        })
    }
}

/// A refusal: the rule, its limit, what was asked and what is left. Only the owner of the policy
/// can change it; asking again helps only when [`Refusal::rule`] is [`Rule::PerDay`], on another
/// day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The host is not allowed.
    #[error("{host}:{port} is not an allowed host (allowed: {})", Listed(allowed))]
    Host {
        /// Who asked for money.
        host: String,
        /// On which port.
        port: u16,
        /// The allow-list as its owner wrote it.
        allowed: Vec<String>,
    },
    /// The limit that this needs was not set.
    #[error("{asked} needs a {rule}, and none is set")]
    Unset {
        /// The rule without a limit.
        rule: Rule,
        /// What was asked.
        asked: Money,
    },
    /// The limit is in another currency.
    #[error("{asked} cannot be compared with the {rule} of {limit}")]
    Currency {
        /// The rule.
        rule: Rule,
        /// Its limit.
        limit: Money,
        /// What was asked.
        asked: Money,
    },
    /// The limit, or what is left of it, is smaller.
    #[error("{asked} is above the {rule}: {left} of {limit} left")]
    Above {
        /// The rule.
        rule: Rule,
        /// Its limit.
        limit: Money,
        /// What was asked.
        asked: Money,
        /// What is left; the whole limit for a rule that does not count.
        left: Money,
    },
    /// The amount is negative, or a top-up of nothing.
    #[error("{asked} is not an amount to pay under the {rule}")]
    NotAnAmount {
        /// The rule.
        rule: Rule,
        /// What was asked.
        asked: Money,
    },
    /// The time is in a day so long ago that its usage was forgotten. The clock is wrong.
    #[error("{asked} cannot be counted: the clock is behind days that were already counted")]
    ClockBehind {
        /// What was asked.
        asked: Money,
    },
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}

impl Refusal {
    /// The rule that refused.
    pub fn rule(&self) -> Rule {
        match self {
            Refusal::Host { .. } => Rule::Host,
            Refusal::Unset { rule, .. }
            | Refusal::Currency { rule, .. }
            | Refusal::Above { rule, .. }
            | Refusal::NotAnAmount { rule, .. } => *rule,
            Refusal::ClockBehind { .. } => Rule::PerDay,
        }
    }

    /// The limit of the rule, if it has one.
    pub fn limit(&self) -> Option<Money> {
        match self {
            Refusal::Currency { limit, .. } | Refusal::Above { limit, .. } => Some(*limit),
            _ => None,
        }
    }

    /// What was asked, unless the host alone was the reason.
    pub fn asked(&self) -> Option<Money> {
        match self {
            Refusal::Host { .. } => None,
            Refusal::Unset { asked, .. }
            | Refusal::Currency { asked, .. }
            | Refusal::Above { asked, .. }
            | Refusal::NotAnAmount { asked, .. }
            | Refusal::ClockBehind { asked } => Some(*asked),
        }
    }

    /// What is left under the rule, where that is known.
    pub fn left(&self) -> Option<Money> {
        match self {
            Refusal::Above { left, .. } => Some(*left),
            _ => None,
        }
    }
}
