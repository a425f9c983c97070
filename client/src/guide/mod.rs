//! Guides: one page per question. Nothing here is code to call; every example is run as a test,
//! against a sandbox of Stripe and a provider on this machine.
//!
//! - [`agent_in_ten_lines`]: a client that pays, and what it says when it does not
//! - [`policies`]: policies by example, in Rust and in TOML
//! - [`approvals`]: leaving some payments to a human
//! - [`shared_budgets`]: many agents, processes or machines under one budget
//! - [`unknown_payments`]: what to do when nobody knows whether the card was charged
//! - [`testing`]: an agent of yours under test, with the sandbox

pub mod agent_in_ten_lines;
pub mod approvals;
pub mod policies;
pub mod shared_budgets;
pub mod testing;
pub mod unknown_payments;
