//! Why a request was not paid for, or not served after it was.
//!
//! ```
//! use farebox_client::{Actor, PaymentError, PaymentErrorExt as _};
//!
//! let error = reqwest_middleware::Error::middleware(PaymentError::CardTokenizationDisabled);
//! let payment = error.payment().expect("it came from the payment");
//! assert_eq!(payment.actor(), Actor::Provider);
//! assert!(!payment.is_unknown());
//! ```

use std::io;
use std::path::PathBuf;

use farebox_policy::{Escalation, Refusal};
use farebox_protocol::{ErrorCode, Money};

use crate::approval::{ApprovalId, ApproverError};
use crate::budget::BudgetError;
use crate::guard::Blocked;

/// Why a request was not paid for, or not served after it was. [`PaymentError::actor`] says who
/// must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PaymentError {
    /// The owner's rules forbid it; nothing was sent to Stripe. The owner may change the policy.
    #[error("not paid: {0}")]
    Refused(Reason),
    /// The server refused the payment, and says that it took nothing. The hold goes back if the
    /// policy [trusts](crate::Policy::trust) the server; otherwise it stays counted until the owner
    /// takes it back ([`Agent::take_back`](crate::Agent::take_back)).
    #[error("the payment was refused: {}", .0.message())]
    Declined(ErrorCode),
    /// Stripe would not make a PaymentMethod of the card. The owner must look at the card.
    #[error("Stripe refused the card ({0})")]
    CardRejected(String),
    /// The provider must enable publishable-key tokenization at Stripe; nothing was taken.
    #[error("the provider has not enabled card tokenization with a publishable key at Stripe")]
    CardTokenizationDisabled,
    /// Stripe does not accept the provider's publishable key; nothing was taken.
    #[error("Stripe does not accept the publishable key of the provider")]
    PublishableKeyRejected,
    /// Stripe's tokenizer did not answer; nothing was taken. Ask again later.
    #[error("Stripe's tokenizer did not answer; nothing was taken")]
    TokenizerUnavailable,
    /// The server took a payment and asked for another one. The hold stays, and this origin gets
    /// no other top-up until this one is resolved or written off
    /// ([`Agent::write_off`](crate::Agent::write_off)).
    #[error("the server was paid and asks to be paid again; the hold stays")]
    PaidButRefused,
    /// The outcome of a payment is not known. The hold stays; the next request to this origin
    /// goes on with the same payment.
    #[error("the outcome of the payment is not known yet; the hold stays")]
    Unknown,
    /// The server has served and charged this call before, and its answer was lost. Nothing was
    /// taken again. A program that still needs the answer makes another call.
    #[error("this call was charged before, and its answer is lost; nothing was taken again")]
    AlreadyCharged,
    /// A top-up is needed, and the agent has no card.
    #[error("a top-up is needed and the agent has no card")]
    NoCard,
    /// [`StoredMethods`](crate::StoredMethods) holds nothing for the publishable key of this
    /// provider; nothing was taken. The owner must store a PaymentMethod there.
    #[error("no PaymentMethod is stored for the publishable key of {origin}")]
    NoPaymentMethod {
        /// Whose key it is: `scheme://host:port`.
        origin: String,
    },
    /// The [`PaymentSource`](crate::PaymentSource) says no, for good; nothing was taken. The
    /// reason says what its owner must change.
    #[error("the source of payment refuses: {reason}")]
    SourceRefused {
        /// In the source's words.
        reason: String,
    },
    /// The [`PaymentSource`](crate::PaymentSource) has nothing to pay with at the moment: it does
    /// not answer, or waits for somebody; nothing was taken. Ask again later.
    #[error("the source of payment is not ready: {reason}")]
    SourceUnavailable {
        /// In the source's words.
        reason: String,
    },
    /// The owner, asked because the policy says so, said no; nothing was taken.
    #[error("the owner was asked and denied the payment")]
    ApprovalDenied,
    /// The owner was asked and has not answered yet; nothing was taken. A call with the same
    /// payment key goes on with the same question.
    #[error("the owner has not answered yet whether this may be paid: approval {id}")]
    ApprovalPending {
        /// What the approver knows the question by.
        id: ApprovalId,
        /// Why the question may not have reached the owner.
        source: Option<ApproverError>,
    },
    /// The body is a stream that was sent once and cannot be sent again with a payment; nothing
    /// was taken. The program must send the body from memory.
    #[error("the request must be sent again to be paid for, and its body cannot be")]
    BodyNotReplayable,
    /// The budget could not say whether there is money left, so nothing was sent.
    #[error("the budget could not be asked, so nothing was paid")]
    Budget(#[source] BudgetError),
    /// The journal could not be written, so nothing was sent.
    #[error("the payment could not be written down, so it was not sent")]
    State(#[source] StateError),
    /// The system has no randomness for an `Idempotency-Key`; nothing was sent.
    #[error("the system's source of randomness failed")]
    Randomness,
}

/// Which rule of the owner, or of this client, forbids a payment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The policy.
    #[error(transparent)]
    Policy(#[from] Refusal),
    /// The policy wants a human to decide, and the agent has no
    /// [`Approver`](crate::Approver).
    #[error("{0}, and nobody can be asked")]
    NobodyToAsk(Escalation),
    /// The price is above the request's own [`MaxPrice`](crate::MaxPrice).
    #[error("{price} is above the MaxPrice of this request, {max}")]
    MaxPrice {
        /// What the server asks.
        price: Money,
        /// What the caller allows.
        max: Money,
    },
    /// The server's smallest top-up that would pay for this request is above its largest.
    #[error("the offer contradicts itself: a top-up of {needed} is needed, {max} is the largest")]
    TopUpBounds {
        /// The smallest top-up that would do.
        needed: Money,
        /// The largest that the server takes.
        max: Money,
    },
    /// Neither https nor loopback.
    #[error("payments travel over https only, or over http on loopback")]
    Insecure,
    /// A redirect left the origin that was asked, or changed a request that is not a GET.
    #[error("a redirect led elsewhere before the price was asked")]
    Redirected,
    /// The publishable key is not of the form `pk_test_...` or `pk_live_...`.
    #[error("the publishable key of the offer is malformed")]
    PublishableKey,
    /// The publishable key is not the one that this origin used before.
    #[error(
        "the publishable key of this origin has changed; if its provider says so elsewhere, \
         `Agent::forget_key` accepts another one"
    )]
    PublishableKeyChanged,
    /// The server offers nothing that can be paid.
    #[error("the server offers nothing that can be paid")]
    NoOffer,
    /// Too many origins have payments of unknown outcome.
    #[error("too many origins have unresolved payments")]
    TooManyOrigins,
    /// The host is not on the public internet; see [`guard`](crate::guard). Nothing was sent.
    #[error(transparent)]
    PrivateAddress(#[from] Blocked),
}

/// Who must act before the same request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Actor {
    /// The owner of the agent: policy, card or disk.
    Owner,
    /// The author of the calling program.
    Developer,
    /// The provider who runs the server.
    Provider,
    /// Nobody: ask again later.
    Nobody,
}

impl PaymentError {
    /// Who must act before the same request can succeed.
    pub fn actor(&self) -> Actor {
        match self {
            PaymentError::Refused(Reason::MaxPrice { .. }) | PaymentError::BodyNotReplayable => {
                Actor::Developer
            }
            PaymentError::Refused(
                Reason::TopUpBounds { .. }
                | Reason::PublishableKey
                | Reason::Redirected
                | Reason::NoOffer,
            )
            | PaymentError::CardTokenizationDisabled
            | PaymentError::PublishableKeyRejected
            | PaymentError::PaidButRefused => Actor::Provider,
            PaymentError::Declined(code) => actor_of(*code),
            PaymentError::AlreadyCharged => Actor::Developer,
            PaymentError::Budget(error) => error.actor(),
            PaymentError::TokenizerUnavailable
            | PaymentError::SourceUnavailable { .. }
            | PaymentError::Unknown => Actor::Nobody,
            PaymentError::Refused(_)
            | PaymentError::CardRejected(_)
            | PaymentError::NoCard
            | PaymentError::NoPaymentMethod { .. }
            | PaymentError::SourceRefused { .. }
            | PaymentError::ApprovalDenied
            | PaymentError::ApprovalPending { .. }
            | PaymentError::State(_)
            | PaymentError::Randomness => Actor::Owner,
        }
    }

    /// From when on (Unix seconds) the policy has room for the same payment, if time alone makes
    /// it: a window of the budget resets. `None` when somebody must change something first.
    pub fn retry_at(&self) -> Option<i64> {
        match self {
            PaymentError::Refused(Reason::Policy(refusal)) => refusal.resets_at(),
            _ => None,
        }
    }

    /// Whether money may have left the card.
    pub fn is_unknown(&self) -> bool {
        matches!(self, PaymentError::Unknown | PaymentError::PaidButRefused)
    }
}

fn actor_of(code: ErrorCode) -> Actor {
    match code {
        ErrorCode::CardDeclined | ErrorCode::AuthenticationRequired | ErrorCode::AccountFrozen => {
            Actor::Owner
        }
        ErrorCode::IdempotencyConflict => Actor::Developer,
        ErrorCode::LedgerUnavailable
        | ErrorCode::ProcessorUnavailable
        | ErrorCode::PriceUnavailable
        | ErrorCode::PriceAboveMaximum
        | ErrorCode::RateLimited => Actor::Nobody,
        _ => Actor::Provider,
    }
}

/// Finds the [`PaymentError`] in an error of the client.
pub trait PaymentErrorExt {
    /// The payment's error, or `None` when the failure has nothing to do with a payment.
    fn payment(&self) -> Option<&PaymentError>;
}

impl PaymentErrorExt for reqwest_middleware::Error {
    fn payment(&self) -> Option<&PaymentError> {
        match self {
            reqwest_middleware::Error::Middleware(error) => {
                error.chain().find_map(|cause| cause.downcast_ref())
            }
            reqwest_middleware::Error::Reqwest(_) => None,
        }
    }
}

/// Why the state file cannot be used. It is never overwritten in that case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another agent has the file open.
    #[error("{} is in use by another agent", .0.display())]
    Locked(PathBuf),
    /// The file is not a state file of this version.
    #[error("{} is not a state file that this version can read", .0.display())]
    Malformed(PathBuf),
    /// The file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The runtime shut down before the file was written.
    #[error("the runtime shut down before the state was written")]
    Interrupted,
}

/// Why an agent or its client cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The tokenizer's address is neither https nor http on loopback.
    #[error("the tokenizer must be an https address, or http on loopback")]
    Tokenizer,
    /// The approver's address is neither https nor http on loopback, or has a user, a query or a
    /// fragment; or its token cannot be sent in a header.
    #[error("the approver must be an https address, or http on loopback, with a printable token")]
    Approver,
    /// The address is not a URL with a host.
    #[error("not the URL of a server")]
    Url,
    /// The HTTP client cannot be built from these settings.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// The budget.
    #[error(transparent)]
    Payment(PaymentError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
}
