//! The machine and its stores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod embedded;
mod machine;
mod stores;
