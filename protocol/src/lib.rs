//! Headers, messages, money and ids of stripe402 v1.
//!
//! This crate speaks the wire and nothing else: it does no I/O, reads no clock and knows no
//! runtime. `spec/protocol.md` at the root of the repository is the text it follows, and
//! `spec/vectors/` holds the cases it is tested against.
//!
//! # Layout
//!
//! - [`money`]: [`Micros`], [`Units`], [`Currency`] and [`Money`]; integers only
//! - [`header`]: the three header names, the base64 dialects, the size limit
//! - [`payment_required`], [`payment`], [`payment_response`]: one message per file
//! - [`id`]: [`PayerId`], [`TopUpId`] and the identifiers that clients send
//! - [`credential`]: what a client sends as `clientId` to spend from its accounts
//! - [`code`]: every error code, the status it travels with and the words it is told in
//!
//! # Example
//!
//! A client reads an offer and answers it:
//!
//! ```
//! use farebox_protocol::{Payment, PaymentRequired, usd};
//!
//! let header = PaymentRequired::stripe("/joke", usd!("0.01"), usd!("5"), "pk_test_1").encode();
//! let offer = &PaymentRequired::decode(header.as_bytes())?.accepts[0];
//! assert_eq!(offer.amount.get(), 100); // units of 1/10,000
//!
//! let payment = Payment { payment_method_id: Some("pm_1".parse()?), ..Payment::default() };
//! assert_eq!(Payment::decode(payment.encode().as_bytes())?, payment);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod code;
pub mod credential;
pub mod header;
pub mod id;
pub mod money;
pub mod payment;
pub mod payment_required;
pub mod payment_response;

pub use code::ErrorCode;
pub use credential::{Credential, CredentialKey};
pub use header::MessageError;
pub use id::{ClientId, IdentityKey, PayerId, PaymentMethodId, TopUpId};
pub use money::{AmountError, Currency, Micros, Money, Units};
pub use payment::Payment;
pub use payment_required::{Offer, PaymentRequired, Resource};
pub use payment_response::PaymentResponse;
