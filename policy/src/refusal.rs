//! Why something may not be paid, or not without a human.
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
use serde::Serialize;

use crate::rule::Rule;
use crate::time::Utc;

/// A refusal: the rule, its limit, what was asked and what is left. Only the owner of the policy
/// can change it; asking again helps only from [`Refusal::resets_at`] on.
///
/// `origin` is the entry whose own limits these are, and `None` for the limits of all hosts
/// together. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
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
    /// The host is blocked, whether or not it is also allowed.
    #[error("{host}:{port} is a blocked host (blocked: {entry})")]
    Blocked {
        /// Who asked for money.
        host: String,
        /// On which port.
        port: u16,
        /// The entry of the block-list that matches, as its owner wrote it.
        entry: String,
    },
    /// Not the host of a URL. The program must ask for the host that it sends to.
    #[error("{host:?} is not a host")]
    NotAHost {
        /// What was asked for.
        host: String,
    },
    /// The limit that this needs was not set.
    #[error("{asked} needs a {rule}{}, and none is set", Choices(*rule))]
    Unset {
        /// The rule without a limit.
        rule: Rule,
        /// What was asked.
        asked: Money,
    },
    /// The limit is in another currency.
    #[error("{asked} cannot be compared with the {rule}{} of {limit}", For(origin))]
    Currency {
        /// The rule.
        rule: Rule,
        /// Whose limit it is.
        origin: Option<String>,
        /// Its limit.
        limit: Money,
        /// What was asked.
        asked: Money,
    },
    /// The limit, or what is left of it, is smaller.
    #[error(
        "{asked} is above the {rule}{}: {left} of {limit} left{}",
        For(origin),
        Reset(*rule, *resets_at)
    )]
    Above {
        /// The rule.
        rule: Rule,
        /// Whose limit it is.
        origin: Option<String>,
        /// Its limit.
        limit: Money,
        /// What was asked.
        asked: Money,
        /// What is left; the whole limit for a rule that does not count.
        left: Money,
        /// When the window of the calendar ends, or when the amount fits into a rolling window if
        /// nothing else is paid before.
        resets_at: Option<i64>,
    },
    /// The card was used too often within a minute.
    #[error(
        "{asked} is one payment more than the {limit} per minute{}: 0 left{}",
        For(origin),
        Reset(Rule::PaymentsPerMinute, *resets_at)
    )]
    TooMany {
        /// Whose limit it is.
        origin: Option<String>,
        /// Payments per minute.
        limit: u32,
        /// What was asked.
        asked: Money,
        /// When another payment fits, if nothing else is paid before.
        resets_at: Option<i64>,
    },
    /// The amount is negative, or a top-up of nothing.
    #[error("{asked} is not an amount to pay under the {rule}")]
    NotAnAmount {
        /// The rule.
        rule: Rule,
        /// What was asked.
        asked: Money,
    },
    /// The clock is more than a day behind a payment that was already counted: it is wrong, or it
    /// was wrong then. Whoever runs the agent must set it.
    #[error(
        "{asked} cannot be counted: the clock says {}, and a payment was counted at {}",
        Utc(*now),
        Utc(*latest)
    )]
    ClockBehind {
        /// What was asked.
        asked: Money,
        /// What the clock says.
        now: i64,
        /// The latest time at which a payment was counted.
        latest: i64,
    },
}

impl Refusal {
    /// The rule that refused.
    pub fn rule(&self) -> Rule {
        match self {
            Refusal::Host { .. } | Refusal::NotAHost { .. } => Rule::Host,
            Refusal::Blocked { .. } => Rule::Block,
            Refusal::Unset { rule, .. }
            | Refusal::Currency { rule, .. }
            | Refusal::Above { rule, .. }
            | Refusal::NotAnAmount { rule, .. } => *rule,
            Refusal::TooMany { .. } => Rule::PaymentsPerMinute,
            Refusal::ClockBehind { .. } => Rule::Clock,
        }
    }

    /// The entry whose own limit refused; `None` for the limits of all hosts together.
    pub fn origin(&self) -> Option<&str> {
        match self {
            Refusal::Currency { origin, .. }
            | Refusal::Above { origin, .. }
            | Refusal::TooMany { origin, .. } => origin.as_deref(),
            _ => None,
        }
    }

    /// The limit of the rule, if it has one and it is money.
    pub fn limit(&self) -> Option<Money> {
        match self {
            Refusal::Currency { limit, .. } | Refusal::Above { limit, .. } => Some(*limit),
            _ => None,
        }
    }

    /// What was asked, unless the host alone was the reason.
    pub fn asked(&self) -> Option<Money> {
        match self {
            Refusal::Host { .. } | Refusal::Blocked { .. } | Refusal::NotAHost { .. } => None,
            Refusal::Unset { asked, .. }
            | Refusal::Currency { asked, .. }
            | Refusal::Above { asked, .. }
            | Refusal::TooMany { asked, .. }
            | Refusal::NotAnAmount { asked, .. }
            | Refusal::ClockBehind { asked, .. } => Some(*asked),
        }
    }

    /// What is left under the rule, where that is known and money.
    pub fn left(&self) -> Option<Money> {
        match self {
            Refusal::Above { left, .. } => Some(*left),
            _ => None,
        }
    }

    /// When more is left (Unix seconds): the end of a window of the calendar, or the time from
    /// which the amount fits into a rolling window if nothing else is paid before. `None` when
    /// waiting does not help. A window of the calendar ends even for an amount above its whole
    /// limit, which fits at no time.
    pub fn resets_at(&self) -> Option<i64> {
        match self {
            Refusal::Above { resets_at, .. } | Refusal::TooMany { resets_at, .. } => *resets_at,
            _ => None,
        }
    }
}

/// A human decides: the payment is within every limit and above a threshold. Asked again as
/// [`Request::approved`](crate::Request::approved), it is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Escalation {
    /// [`Rule::AskAbove`] or [`Rule::AskAboveTotal`].
    pub rule: Rule,
    /// Above this a human decides.
    pub threshold: Money,
    /// What was asked.
    pub asked: Money,
    /// For [`Rule::AskAboveTotal`]: what was set aside before, within 24 hours.
    pub total: Option<Money>,
}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Escalation { rule, threshold, asked, total } = self;
        write!(f, "{asked} ")?;
        if let Some(total) = total {
            write!(f, "after {total} ")?;
        }
        write!(f, "is above the {rule}, {threshold}: a human decides")
    }
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}

/// Whose limit it is.
pub(crate) struct For<'a>(pub(crate) &'a Option<String>);

impl fmt::Display for For<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |origin| write!(f, " for {origin}"))
    }
}

struct Choices(Rule);

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rule::Total => f.write_str(" (per day, week or month, rolling, or lifetime)"),
            _ => Ok(()),
        }
    }
}

struct Reset(Rule, Option<i64>);

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = self.1 else { return Ok(()) };
        let what = match self.0 {
            Rule::Rolling(_) | Rule::PaymentsPerMinute => "it fits from",
            _ => "it resets at",
        };
        write!(f, "; {what} {}", Utc(at))
    }
}
