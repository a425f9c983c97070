//! What a policy allows, as tables and as properties.

mod budget;
mod files;
mod hosts;
mod model;
mod support;
mod usage;
mod warnings;
mod windows;
