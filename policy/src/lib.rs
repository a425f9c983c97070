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
//! - [`policy`]: the limits
//! - [`host`]: which hosts an entry of the allow-list matches
//! - [`mod@decide`]: the decision
//! - [`usage`]: what was taken from the card, per UTC day
//! - [`refusal`]: why something may not be paid
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
//! let (first, usage) = decide(&policy, &Usage::new(), &top_up, 1_700_000_000);
//! let (second, usage) = decide(&policy, &usage, &top_up, 1_700_000_060);
//! assert_eq!((first, second), (Decision::Allow, Decision::Allow));
//!
//! let (third, _) = decide(&policy, &usage, &top_up, 1_700_000_120);
//! let Decision::Refuse(refusal) = third else { panic!("the day's budget is used up") };
//! assert_eq!(refusal.rule(), Rule::PerDay);
//! ```

pub mod decide;
pub mod host;
pub mod policy;
pub mod refusal;
pub mod usage;

pub use decide::{Decision, Request, decide};
pub use host::HostPattern;
pub use policy::Policy;
pub use refusal::{Refusal, Rule};
pub use usage::{Hold, Usage};
