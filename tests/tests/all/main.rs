//! Whole-system tests: a provider over HTTP, cards at a sandbox of Stripe, and programs that pay.
//!
//! Every module holds one property of the whole. Long runs: `FAREBOX_KILLS` is how often the
//! crash test kills the server, `FAREBOX_SEED` repeats one of its runs; `FAREBOX_CARDS` is how many
//! cards are tested.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod admin;
mod agent_deaths;
mod agents;
mod card_testing;
mod chaos;
mod crash;
mod credentials;
mod credit;
mod drain;
mod dropped;
mod fault_matrix;
mod first_requests;
mod histories;
mod hostile;
mod hostile_servers;
mod identity;
mod keyed;
mod kills;
mod metered;
mod money_back;
mod opening;
mod operate;
mod outages;
mod outcomes;
mod paths;
mod pending;
#[path = "../../../client/tests/all/processes.rs"]
mod processes;
mod reconciled;
mod redis_failover;
mod redis_faults;
mod redis_load;
mod redis_many;
mod redis_replicas;
mod redis_servers;
mod redis_start;
mod redis_stores;
mod refunds;
mod refused;
mod saved_cards;
mod start_up;
mod support;
mod sweep;
mod webhooks;
mod workspace;
