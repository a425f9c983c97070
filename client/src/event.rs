//! What an agent does, as it happens: for its owner to watch, and as `tracing` events.
//!
//! ```
//! use farebox_client::{Agent, Event, Policy, usd};
//! use futures_util::StreamExt as _;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let agent = Agent::new(Policy::new().allow("api.example.com").per_request(usd!("0.05")));
//! let spent = agent.events().filter_map(|notice| async move {
//!     match notice.event {
//!         Event::Spent { charged, .. } => charged,
//!         _ => None,
//!     }
//! });
//! # drop(agent);
//! assert_eq!(spent.count().await, 0); // the agent is gone, so its events end
//! # }
//! ```

use std::fmt;
use std::sync::Arc;

use farebox_policy::Escalation;
use farebox_protocol::{ErrorCode, Money};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::broadcast;

use crate::approval::ApprovalId;
use crate::error::Reason;

/// Notices that a slow listener may be behind before it misses some.
const BACKLOG: usize = 1_024;

/// One event, and where and when it happened. It holds no card data, key or credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Notice {
    /// Unix seconds.
    pub at: i64,
    /// Scheme, host and port: `https://api.example.com`.
    pub origin: String,
    /// Method and path: `GET /joke`.
    pub route: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A 402 named a price.
    OfferSeen {
        /// For one request.
        price: Money,
        /// The smallest top-up that the server takes.
        min_top_up: Money,
    },
    /// The owner's rules forbid the payment.
    Refused {
        /// The rule, in words.
        reason: String,
    },
    /// A human is asked.
    Escalated {
        /// The question's name.
        id: ApprovalId,
        /// The rule, in words.
        reason: String,
    },
    /// A human said yes.
    Approved {
        /// The question's name.
        id: ApprovalId,
    },
    /// A human said no.
    Denied {
        /// The question's name.
        id: ApprovalId,
    },
    /// A payment by card is written down, and sent next.
    Paying {
        /// What the card may be charged.
        amount: Money,
        /// It goes on with a payment that was sent before.
        resumed: bool,
    },
    /// The server accepted a payment by card.
    ToppedUp {
        /// What the card was charged.
        amount: Money,
        /// What can be spent at this server.
        remaining: Money,
    },
    /// The server refused a payment by card and took nothing.
    Declined {
        /// Why.
        code: ErrorCode,
    },
    /// What became of a payment by card is not known; the budget counts it.
    Unknown {
        /// What the card may have been charged.
        amount: Money,
    },
    /// A request was paid from credit.
    Spent {
        /// What it cost; a v1 server does not say.
        charged: Option<Money>,
        /// What can be spent at this server.
        remaining: Money,
    },
    /// More was taken than the request allowed.
    Overcharged {
        /// What was taken.
        taken: Money,
        /// What was allowed.
        allowed: Money,
    },
    /// This listener was too slow and missed this many notices.
    Missed {
        /// How many.
        notices: u64,
    },
}

impl Event {
    pub(crate) fn refused(reason: &Reason) -> Event {
        Event::Refused { reason: reason.to_string() }
    }

    pub(crate) fn escalated(id: ApprovalId, reason: &Escalation) -> Event {
        Event::Escalated { id, reason: reason.to_string() }
    }
}

type Listener = Arc<dyn Fn(&Notice) + Send + Sync>;

/// Where an agent's events go.
#[derive(Clone)]
pub(crate) struct Events {
    sender: broadcast::Sender<Notice>,
    listeners: Vec<Listener>,
}

impl Events {
    pub(crate) fn new() -> Events {
        Events { sender: broadcast::Sender::new(BACKLOG), listeners: Vec::new() }
    }

    pub(crate) fn listen(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    pub(crate) fn stream(&self) -> impl Stream<Item = Notice> + Send + use<> {
        let receiver = Box::pin(self.sender.subscribe());
        Box::pin(stream::unfold(receiver, |mut receiver| async {
            let notice = match receiver.recv().await {
                Ok(notice) => notice,
                Err(broadcast::error::RecvError::Lagged(notices)) => Notice {
                    at: 0,
                    origin: String::new(),
                    route: String::new(),
                    event: Event::Missed { notices },
                },
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((notice, receiver))
        }))
    }

    /// Whether anybody listens: a notice that nobody reads is not made.
    pub(crate) fn heard(&self) -> bool {
        !self.listeners.is_empty() || self.sender.receiver_count() > 0
    }

    pub(crate) fn tell(&self, notice: Notice) {
        for listener in &self.listeners {
            listener(&notice);
        }
        // An error means that nobody listens.
        let _ = self.sender.send(notice);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
