//! What would happen, without doing it.
//!
//! ```
//! use farebox_policy::{Policy, Request, Usage, explain};
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("example.com").per_request(usd!("0.05"));
//! let policy = policy.per_top_up(usd!("5")).per_day(usd!("3"));
//! let request = Request::new("example.com", 443, usd!("0.01")).top_up(usd!("5"));
//! let explanation = explain(&policy, &Usage::new(), &request, 1_700_000_000);
//! assert_eq!(
//!     explanation.to_string(),
//!     "\
//! example.com:443 at 2023-11-14T22:13:20Z: price 0.01 usd, top-up 5.00 usd
//! rule               limit     used      asked     left      resets                verdict
//! allowed hosts      -         -         -         -         -                     pass
//! limit per request  0.05 usd  -         0.01 usd  0.05 usd  -                     pass
//! limit per top-up   5.00 usd  -         5.00 usd  5.00 usd  -                     pass
//! limit per day      3.00 usd  0.00 usd  5.00 usd  3.00 usd  2023-11-15T00:00:00Z  refuse
//! refused: 5.00 usd is above the limit per day: 3.00 usd of 3.00 usd left; it resets at 2023-11-15T00:00:00Z"
//! );
//! ```

use std::fmt;
use std::ops::ControlFlow;

use farebox_protocol::Money;
use serde::Serialize;

use crate::check::{Check, Verdict, each_check};
use crate::decide::{Decision, Request, decide};
use crate::policy::Policy;
use crate::rule::{Amount, Rule};
use crate::time::{self, Utc};
use crate::usage::Usage;

/// What would happen to a request, and why. Displayed as lines of plain text; serialized, amounts
/// are text and times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// Who would be paid.
    pub host: String,
    /// On which port.
    pub port: u16,
    /// The price.
    pub price: Money,
    /// The card charge, if there is one.
    pub top_up: Option<Money>,
    /// Whether a human said yes.
    pub approved: bool,
    /// When it was asked.
    pub at: i64,
    /// Every rule that applies, in the order in which they decide.
    pub rules: Vec<Applied>,
    /// What [`decide()`] says.
    #[serde(flatten)]
    pub decision: Decision,
}

/// One rule that applies to a request. What a rule does not have is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Applied {
    /// The rule.
    pub rule: Rule,
    /// Whose own limit it is; `None` for those of all hosts together.
    pub origin: Option<String>,
    /// Its limit.
    pub limit: Option<Amount>,
    /// What is counted so far.
    pub used: Option<Amount>,
    /// What was asked.
    pub asked: Option<Amount>,
    /// What is left.
    pub left: Option<Amount>,
    /// When its window of the calendar ends; for a rolling window that refuses, when the amount
    /// fits if nothing else is paid before.
    pub resets_at: Option<i64>,
    /// What this rule alone says.
    pub says: Says,
}

/// What one rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// It has nothing against it.
    Pass,
    /// A human decides.
    Ask,
    /// It forbids it.
    Refuse,
}

/// What [`decide()`] would say about `request` at `now`, with every rule that applies.
pub fn explain(policy: &Policy, usage: &Usage, request: &Request<'_>, now: i64) -> Explanation {
    let mut rules = Vec::new();
    let _ = each_check(policy, usage, request, now, &mut |check| {
        rules.push(Applied::from(&check));
        ControlFlow::Continue(())
    });
    Explanation {
        host: request.host.to_owned(),
        port: request.port,
        price: request.price,
        top_up: request.top_up,
        approved: request.approved,
        at: now,
        rules,
        decision: decide(policy, usage, request, now).0,
    }
}

impl From<&Check<'_>> for Applied {
    fn from(check: &Check<'_>) -> Applied {
        Applied {
            rule: check.rule,
            origin: check.origin.map(ToString::to_string),
            limit: check.limit,
            used: check.used,
            asked: check.asked,
            left: check.left,
            resets_at: check.resets_at,
            says: match check.verdict {
                Verdict::Pass => Says::Pass,
                Verdict::Escalate(_) => Says::Ask,
                Verdict::Refuse(_) => Says::Refuse,
            },
        }
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Says::Pass => "pass",
            Says::Ask => "ask",
            Says::Refuse => "refuse",
        })
    }
}

const COLUMNS: usize = 7;
const HEADINGS: [&str; COLUMNS] = ["rule", "limit", "used", "asked", "left", "resets", "verdict"];

impl Applied {
    fn columns(&self) -> [String; COLUMNS] {
        let amount = |amount: Option<Amount>| amount.map_or("-".to_owned(), |it| it.to_string());
        [
            match &self.origin {
                Some(origin) => format!("{} for {origin}", self.rule),
                None => self.rule.to_string(),
            },
            amount(self.limit),
            amount(self.used),
            amount(self.asked),
            amount(self.left),
            self.resets_at.map_or("-".to_owned(), |at| Utc(at).to_string()),
            self.says.to_string(),
        ]
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Utc(time::clamp(self.at));
        write!(f, "{}:{} at {at}: price {}", self.host, self.port, self.price)?;
        if let Some(amount) = self.top_up {
            write!(f, ", top-up {amount}")?;
        }
        if self.approved {
            f.write_str(", approved by a human")?;
        }
        let headings = HEADINGS.map(str::to_owned);
        let lines: Vec<_> =
            std::iter::once(headings).chain(self.rules.iter().map(Applied::columns)).collect();
        let width =
            |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        for line in &lines {
            f.write_str("\n")?;
            for (text, width) in line.iter().zip(widths).take(COLUMNS - 1) {
                write!(f, "{text:width$}  ")?;
            }
            f.write_str(&line[COLUMNS - 1])?;
        }
        match &self.decision {
            Decision::Allow => f.write_str("\nallowed"),
            Decision::Escalate(escalation) => write!(f, "\nescalated: {escalation}"),
            Decision::Refuse(refusal) => write!(f, "\nrefused: {refusal}"),
        }
    }
}
