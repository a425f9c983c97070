//! What the sandbox promises, asked over HTTP.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail where they stand, as tests do")]

mod auth;
mod captures;
mod control;
mod disputes;
mod faults;
mod generated_requests;
mod idempotency;
mod limits;
mod lists;
mod money;
mod parameters;
mod payment_intents;
mod payment_methods;
mod refunds;
mod running;
mod setup_intents;
mod strict_types;
mod support;
mod test_cards;
mod webhooks;
