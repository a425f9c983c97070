//! The rules of a policy, and the amounts that they compare.
//!
//! ```
//! use farebox_policy::{Rule, Window};
//!
//! assert_eq!(Rule::PerDay.to_string(), "limit per day");
//! assert_eq!(Rule::PerDay.window(), Some(Window::Day));
//! assert_eq!(Rule::PerTopUp.window(), None);
//! ```

use std::fmt;

use farebox_protocol::Money;
use serde::{Serialize, Serializer};

use crate::window::{Span, Window};

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// [`Policy::allow`](crate::Policy::allow).
    Host,
    /// [`Policy::block`](crate::Policy::block).
    Block,
    /// [`Policy::per_request`](crate::Policy::per_request).
    PerRequest,
    /// [`Policy::per_top_up`](crate::Policy::per_top_up).
    PerTopUp,
    /// At least one of the totals: per day, week or month, rolling, lifetime.
    Total,
    /// [`Policy::per_day`](crate::Policy::per_day).
    PerDay,
    /// [`Policy::per_week`](crate::Policy::per_week).
    PerWeek,
    /// [`Policy::per_month`](crate::Policy::per_month).
    PerMonth,
    /// [`Policy::rolling`](crate::Policy::rolling).
    Rolling(Span),
    /// [`Policy::lifetime`](crate::Policy::lifetime).
    Lifetime,
    /// [`Policy::payments_per_minute`](crate::Policy::payments_per_minute).
    PaymentsPerMinute,
    /// [`Policy::ask_above`](crate::Policy::ask_above).
    AskAbove,
    /// [`Policy::ask_above_total`](crate::Policy::ask_above_total).
    AskAboveTotal,
    /// Time goes on: what was counted at a later time still counts.
    Clock,
}

impl Rule {
    /// The stretch of time over which this rule sums.
    pub fn window(self) -> Option<Window> {
        match self {
            Rule::PerDay => Some(Window::Day),
            Rule::PerWeek => Some(Window::Week),
            Rule::PerMonth => Some(Window::Month),
            Rule::Rolling(span) => Some(Window::Rolling(span)),
            Rule::Lifetime => Some(Window::Lifetime),
            Rule::PaymentsPerMinute => Some(Window::Rolling(Span::MINUTE)),
            Rule::AskAboveTotal => Some(Window::Rolling(Span::DAY)),
            _ => None,
        }
    }

    /// The field of the policy's file that sets it.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Rule::Host => "allow",
            Rule::Block => "block",
            Rule::PerRequest => "per_request",
            Rule::PerTopUp => "per_top_up",
            Rule::Total => "total",
            Rule::PerDay => "per_day",
            Rule::PerWeek => "per_week",
            Rule::PerMonth => "per_month",
            Rule::Rolling(_) => "rolling",
            Rule::Lifetime => "lifetime",
            Rule::PaymentsPerMinute => "payments_per_minute",
            Rule::AskAbove => "ask_above",
            Rule::AskAboveTotal => "ask_above_total",
            Rule::Clock => "clock",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Host => "allowed hosts",
            Rule::Block => "blocked hosts",
            Rule::PerRequest => "limit per request",
            Rule::PerTopUp => "limit per top-up",
            Rule::Total => "total",
            Rule::PerDay => "limit per day",
            Rule::PerWeek => "limit per week",
            Rule::PerMonth => "limit per month",
            Rule::Rolling(span) => return write!(f, "limit per rolling {span}"),
            Rule::Lifetime => "limit of a lifetime",
            Rule::PaymentsPerMinute => "payments per minute",
            Rule::AskAbove => "threshold of one payment",
            Rule::AskAboveTotal => "threshold per rolling 1d",
            Rule::Clock => "clock",
        })
    }
}

impl Serialize for Rule {
    /// The field of the policy's file, and `rolling 6h` for a rolling window.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Rule::Rolling(span) => serializer.collect_str(&format_args!("rolling {span}")),
            rule => serializer.serialize_str(rule.field()),
        }
    }
}

/// What a rule compares: money, or a number of payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Amount {
    /// Money; text in JSON, `"5.00 usd"`.
    Money(Money),
    /// A number of payments.
    Payments(u32),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Money(money) => money.fmt(f),
            Amount::Payments(1) => f.write_str("1 payment"),
            Amount::Payments(count) => write!(f, "{count} payments"),
        }
    }
}
