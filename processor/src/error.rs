//! Why a look-up failed, sorted by who must act.

/// Why a look-up at Stripe failed. Nothing was charged by it.
///
/// Each case says who must act and whether trying again can help. What Stripe said is in the log,
/// under its request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LookUpError {
    /// Stripe does not know the object, or the customer that it was asked about. Trying again
    /// does not help.
    #[error("Stripe does not know the object")]
    NotFound,
    /// The payer must act: the card cannot be used here. Trying again does not help.
    #[error("the card cannot be used here")]
    Refused,
    /// The operator must act: Stripe refuses our key or our parameters. Trying again does not
    /// help.
    #[error("Stripe refuses the provider's key or parameters")]
    Operator,
    /// Stripe did not answer, or not now. Trying again helps.
    #[error("Stripe is not available")]
    Unavailable,
}

/// A value that cannot be an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 printable ASCII characters")]
pub struct KeyError;
