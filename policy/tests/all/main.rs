//! What a policy allows, as tables and as properties.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod budget;
mod files;
mod hosts;
mod model;
mod support;
mod usage;
mod warnings;
mod windows;
