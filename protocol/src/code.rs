//! Every error code of the wire: the status it travels with and the words it is told in.
//!
//! The words are ours. What Stripe or a store said stays in the server's log.
//!
//! ```
//! use farebox_protocol::ErrorCode;
//!
//! // Only an answer of 402 may make a client pay; an unknown outcome is never one.
//! assert_eq!(ErrorCode::InsufficientCredits.status(), 402);
//! assert_eq!(ErrorCode::PaymentPending.status(), 503);
//! ```

use std::borrow::Cow;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $status:ident $message:literal;)*) => {
        /// What went wrong, as the wire spells it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code of a peer that this version does not know.
            Unknown,
        }

        impl ErrorCode {
            /// Every code that this version knows.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* ErrorCode::Unknown => "unknown" }
            }

            /// The status of an answer with this code.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(ErrorCode::$name => StatusCode::$status,)*
                    ErrorCode::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
                }
            }

            /// What the payer is told.
            pub const fn message(self) -> &'static str {
                match self { $(ErrorCode::$name => $message,)* ErrorCode::Unknown => "Unknown error" }
            }
        }
    };
}

codes! {
    /// The request brought no payment.
    PaymentRequired "payment_required" PAYMENT_REQUIRED "Payment is required";
    /// The payment is malformed, or names a card that cannot be used here.
    InvalidPayment "invalid_payment" PAYMENT_REQUIRED "The payment is malformed or cannot be used";
    /// The credit does not cover the price, and the payment brought no card.
    InsufficientCredits "insufficient_credits" PAYMENT_REQUIRED "The credit does not cover the price";
    /// The price is above the payment's `maxAmount`.
    PriceAboveMaximum "price_above_maximum" PAYMENT_REQUIRED "The price is above maxAmount";
    /// The top-up is below the offer's `minTopUp`, or would not pay for this request.
    TopUpBelowMinimum "top_up_below_minimum" PAYMENT_REQUIRED "The top-up is too small";
    /// The top-up is above the offer's `maxTopUp`.
    TopUpAboveMaximum "top_up_above_maximum" PAYMENT_REQUIRED "The top-up is above maxTopUp";
    /// The card was refused; one code for every reason.
    CardDeclined "card_declined" PAYMENT_REQUIRED "The card was declined";
    /// The card's bank wants its holder to authenticate.
    AuthenticationRequired "authentication_required" PAYMENT_REQUIRED "The card needs its holder to authenticate";
    /// A v1 server's answer to any failure; never sent by Farebox.
    PaymentFailed "payment_failed" PAYMENT_REQUIRED "The payment failed";
    /// A charge was begun and its outcome is not known yet.
    PaymentPending "payment_pending" SERVICE_UNAVAILABLE "The outcome of the charge is not known yet; repeat the request";
    /// The ledger did not answer; nothing was taken.
    LedgerUnavailable "ledger_unavailable" SERVICE_UNAVAILABLE "The ledger is unavailable; nothing was taken";
    /// The card processor did not answer; nothing was taken.
    ProcessorUnavailable "processor_unavailable" SERVICE_UNAVAILABLE "The card processor is unavailable; nothing was taken";
    /// The price could not be determined; nothing was taken.
    PriceUnavailable "price_unavailable" SERVICE_UNAVAILABLE "The price is unavailable; nothing was taken";
    /// The payer is frozen by a dispute; no card is touched.
    AccountFrozen "account_frozen" FORBIDDEN "The account is frozen";
    /// The credential may not spend so much; no card is touched.
    CredentialLimitReached "credential_limit_reached" FORBIDDEN "The credential may not spend so much";
    /// The `Idempotency-Key` is malformed, or there are several.
    InvalidIdempotencyKey "invalid_idempotency_key" BAD_REQUEST "The Idempotency-Key is malformed, or there are several";
    /// A request with this `Idempotency-Key` is being served.
    RequestInFlight "request_in_flight" CONFLICT "A request with this key is being served";
    /// The request with this `Idempotency-Key` was served and charged; its answer is not kept.
    AlreadyCharged "already_charged" CONFLICT "The request with this key was served and charged before";
    /// This `Idempotency-Key` was used for another request.
    IdempotencyConflict "idempotency_conflict" UNPROCESSABLE_ENTITY "The key was used for another request";
    /// Too many attempts.
    RateLimited "rate_limited" TOO_MANY_REQUESTS "Too many attempts";
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let known = ErrorCode::ALL.iter().find(|code| code.as_str() == text);
        Ok(known.copied().unwrap_or(ErrorCode::Unknown))
    }
}
