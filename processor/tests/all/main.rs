//! The processor against a server that fails on cue, and against the sandbox.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod events;
mod faults;
mod lookups;
mod refunds;
mod sandboxed;
mod script;
mod standing;
mod webhooks;
