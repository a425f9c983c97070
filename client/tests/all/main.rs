//! The agent's side against honest and hostile servers.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod ahead;
mod approvals;
mod approving;
mod bodies;
mod budget;
mod card;
mod crowd;
#[cfg(feature = "test-util")]
mod deaths;
mod drops;
mod events;
mod guard;
mod hostile;
mod named;
mod parallel;
mod paying;
mod processes;
mod redirects;
#[cfg(all(feature = "redis", feature = "test-util"))]
mod redis_server;
mod sandbox;
mod secrets;
mod sources;
mod spending;
mod state;
mod support;
mod till;
mod unknown;
mod v1;
