//! The processor against a server that fails on cue, and against the sandbox.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod lookups;
mod sandboxed;
mod script;
