//! The agent's side: a reqwest client that pays under a policy.
//!
//! A request goes out as usual. When the server answers 402 with a price, the client looks at
//! the owner's [`Policy`], pays with credit or with a card, and sends the request once more.
//! From then on it pays in the first round trip.
//!
//! ```no_run
//! use farebox_client::{Agent, Card, MaxPrice, PaymentError, PaymentErrorExt as _, Policy, usd};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Policy::new().allow("api.example.com").per_request(usd!("0.05"));
//! let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//! let agent = Agent::new(policy).card(Card::from_env("FAREBOX_CARD")?).state("agent.json")?;
//! let http = agent.client(reqwest::Client::builder())?.build();
//! let joke = http.get("https://api.example.com/joke").with_extension(MaxPrice(usd!("0.02")));
//! match joke.send().await {
//!     Ok(response) => println!("{}", response.text().await?),
//!     Err(e) => match e.payment() {
//!         Some(PaymentError::Refused(reason)) => println!("not paid: {reason}"),
//!         _ => return Err(e.into()),
//!     },
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is certain
//!
//! - Every charge that this client asks for is held in the policy's budget, and written down,
//!   before it is sent. The hold goes back only when a server that the policy trusts says that it
//!   took nothing, or when the owner takes it back.
//! - One call makes at most one payment by card, and one with a [`PaymentKey`] also over restarts.
//!   A payment of unknown outcome is repeated, never replaced, and its origin gets no other until
//!   it is resolved.
//! - The card goes to Stripe's tokenizer only, and credentials stay with their origin. No
//!   redirect carries a payment.
//!
//! # What rests on the provider
//!
//! Whoever owns the publishable key receives a PaymentMethod and could charge it for other sums
//! than the one that was sent: that is how the protocol works, and why a policy names the hosts
//! it pays. What a provider charges and denies stays counted in the budget, unless the policy
//! trusts its word, and is answered with a dispute. A v1 server ignores `maxAmount`; what it can
//! take that way is credit that was bought before.
//!
//! # Guides
//!
//! [An agent in ten lines](guide::agent_in_ten_lines), [policies by example](guide::policies),
//! [approvals](guide::approvals), [shared budgets](guide::shared_budgets),
//! [unknown payments](guide::unknown_payments) and [testing](guide::testing). Running agents in
//! production is in `docs/agent.md`, and what a policy means exactly in `spec/policy.md`.
//!
//! # Layout
//!
//! - [`agent`]: the builder, and the one door to a client
//! - [`budget`]: what has left the card, shared by tasks, processes and machines
//! - [`card`]: the card
//! - [`source`]: other ways to pay, and the trait for one of your own
//! - [`approval`]: asking the owner, on a terminal or through a service
//! - [`guard`]: keeps requests out of private networks
//! - [`preview`]: what a request would cost, without paying
//! - [`spending`]: what was spent where
//! - [`receipt`]: [`MaxPrice`], [`PaymentKey`] and [`Receipt`], the extensions of a request and of
//!   its response; [`AskFirst`] is another one of a request
//! - [`event`]: what the agent does, as it happens
//! - [`error`]: why something was not paid or not served, and who must act
//! - [`guide`]: one page per question
//!
//! Requests, responses and errors are those of reqwest and reqwest-middleware.

pub mod agent;
pub mod approval;
pub mod budget;
pub mod card;
pub mod error;
pub mod event;
pub mod guard;
pub mod guide;
pub mod preview;
pub mod receipt;
pub mod source;
pub mod spending;

mod answer;
mod approve;
mod body;
mod books;
mod call;
mod file;
mod hold;
mod middleware;
mod origin;
mod outcome;
mod outgoing;
mod pay;
#[cfg(test)]
#[path = "../tests/all/processes.rs"]
mod processes;
mod redirect;
#[cfg(feature = "redis")]
#[cfg(test)]
#[path = "../tests/all/redis_server.rs"]
mod redis_server;
mod service;
mod state;
mod step;
mod tokenizer;
mod visit;

pub use agent::{Agent, Forgotten, Known};
pub use approval::{Answer, ApprovalId, Approver, ApproverError, Question, Terminal, Webhook};
pub use body::AskFirst;
pub use budget::{Budget, BudgetError};
pub use card::{Card, CardError};
pub use error::{Actor, ConfigError, PaymentError, PaymentErrorExt, Reason, StateError};
pub use event::{Event, Notice};
pub use farebox_policy::{
    Escalation, HostPattern, OriginLimits, Policy, PolicyError, Refusal, Rule, Usage, Window,
};
pub use farebox_protocol::{Currency, ErrorCode, Micros, Money, PaymentMethodId, TopUpId, usd};
pub use guard::{Blocked, Guard};
pub use preview::{Preview, PreviewError, Proposal};
pub use receipt::{MaxPrice, PaymentKey, Receipt};
pub use source::{PaymentSource, StoredMethods, TokenizedCard, TopUp, source_fn};
pub use spending::{Spending, Spent};
