//! The machine and its stores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod disk;
mod embedded;
mod machine;
mod stores;
