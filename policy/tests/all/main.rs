//! What a policy allows, as tables and as properties.

mod budget;
mod hosts;
mod support;
mod windows;
