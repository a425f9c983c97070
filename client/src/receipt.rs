//! What a caller may say about a request's payment, and what it is told about it.
//!
//! ```
//! use farebox_client::{MaxPrice, PaymentKey, usd};
//!
//! // Attached to a request: `http.get(url).with_extension(MaxPrice(usd!("0.02")))`.
//! assert_eq!(MaxPrice(usd!("0.02")).0, usd!("0.02"));
//! assert_eq!(PaymentKey::new("task-17").unwrap().as_str(), "task-17");
//! assert!(PaymentKey::new("").is_none());
//! ```

use farebox_protocol::{Money, TopUpId};

/// The highest price of one request: an extension of the request, beside the policy's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrice(pub Money);

/// The name of a call: an extension of the request, beside [`MaxPrice`].
///
/// Requests of one name are one call, in this process and in later ones that use the same state
/// file: the card is offered for it at most once, a server that knows `Idempotency-Key` charges it
/// once, and a human is asked about it once. The caller makes sure that two calls never have the
/// same name; the names of the last 4,096 calls that were paid by card are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentKey(String);

impl PaymentKey {
    /// A name of 1 to 256 bytes; `None` for any other.
    pub fn new(name: impl Into<String>) -> Option<PaymentKey> {
        let name = name.into();
        (1..=256).contains(&name.len()).then_some(PaymentKey(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a request cost: an extension of the response to a paid request.
///
/// It repeats what the server said. Only the policy's own count is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// What this request cost: nothing when its handler failed. A v1 server does not say.
    pub charged: Option<Money>,
    /// What can still be spent at this server.
    pub remaining: Money,
    /// What the card was charged for this request, if it was.
    pub top_up: Option<Money>,
    /// The charge at Stripe, if there was one.
    pub charge_id: Option<String>,
    /// The server's name for the top-up, if there was one.
    pub top_up_id: Option<TopUpId>,
}
