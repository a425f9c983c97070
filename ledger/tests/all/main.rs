//! The machine and its stores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod crash;
mod damage;
mod disk;
mod embedded;
mod machine;
mod migration;
mod sizes;
mod stores;
