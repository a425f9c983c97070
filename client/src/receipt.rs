//! What a caller may say about a price, and what it is told about a payment.
//!
//! ```
//! use farebox_client::{MaxPrice, usd};
//!
//! // Attached to a request: `http.get(url).with_extension(MaxPrice(usd!("0.02")))`.
//! assert_eq!(MaxPrice(usd!("0.02")).0, usd!("0.02"));
//! ```

use farebox_protocol::{Money, TopUpId};

/// The highest price of one request: an extension of the request, beside the policy's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrice(pub Money);

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
