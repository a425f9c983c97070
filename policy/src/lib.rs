//! What an agent may pay: budgets, windows and allow-lists, as pure decisions.
//!
//! A [`Policy`] is what the owner of an agent wrote down, a [`Usage`] is what was taken from the
//! card so far, and [`decide()`] looks at both. It does no I/O and reads no clock: whoever calls it
//! brings the time and keeps the usage, so a wallet can run it inside a machine of its own.
//!
//! Everything fails closed. A policy that names no host allows none, a limit that was not set
//! refuses whatever needs it, and money of another currency than a limit's is refused.
//!
//! # Layout
//!
//! - [`policy`] and [`limits`]: what an owner allows
//! - [`host`]: which hosts an entry of a list matches
//! - [`window`]: days, weeks, months and rolling windows
//! - [`rule`]: the rules by name
//! - [`mod@decide`]: the decision
//! - [`mod@explain`]: what would happen, without doing it
//! - [`file`](mod@file): a policy in TOML or JSON
//! - [`warning`]: what an owner surely did not mean
//! - [`refusal`]: why something may not be paid, or not without a human
//! - [`usage`] and [`hold`]: what was taken from the card, and when
//!
//! # Example
//!
//! ```
//! use farebox_policy::{Decision, Policy, Request, Rule, Usage, decide};
//! use farebox_protocol::usd;
//!
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//!
//! let top_up = Request::new("api.example.com", 443, usd!("0.01")).top_up(usd!("5"));
//! let mut usage = Usage::new();
//! for now in [1_700_000_000, 1_700_000_060] {
//!     let (decision, after) = decide(&policy, &usage, &top_up, now);
//!     assert_eq!(decision, Decision::Allow);
//!     usage = after.expect("a top-up was set aside");
//! }
//! let (third, _) = decide(&policy, &usage, &top_up, 1_700_000_120);
//! let Decision::Refuse(refusal) = third else { panic!("the day's budget is used up") };
//! assert_eq!(refusal.rule(), Rule::PerDay);
//! ```

mod check;
pub mod decide;
pub mod explain;
pub mod file;
mod grain;
pub mod hold;
pub mod host;
pub mod limits;
pub mod policy;
pub mod refusal;
pub mod rule;
mod time;
pub mod usage;
pub mod warning;
pub mod window;

pub use decide::{Decision, Request, decide};
pub use explain::{Applied, Explanation, Says, explain};
pub use file::PolicyError;
pub use hold::Hold;
pub use host::HostPattern;
pub use limits::{Limits, OriginLimits, Rolling};
pub use policy::Policy;
pub use refusal::{Escalation, Refusal};
pub use rule::{Amount, Rule};
pub use usage::Usage;
pub use warning::Warning;
pub use window::{NotASpan, Span, Window};
