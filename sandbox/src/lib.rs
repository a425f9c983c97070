//! Stripe on loopback: a stand-in for tests, demos and everything else that must not move money.
//!
//! A sandbox speaks the part of Stripe's API that a card payment needs (PaymentMethods, Customers
//! and their search, SetupIntents, PaymentIntents, charges, refunds, disputes, early fraud
//! warnings, balance transactions, events), over HTTP, so that any Stripe client can talk to it
//! once its base URL is set. It knows Stripe's test cards and `pm_card_...` aliases, idempotency
//! keys, declines, 3D Secure, minimum amounts, capturing later, and which PaymentMethod may be
//! used again. It is strict where Stripe is: an unknown parameter is an error, not a shrug. An
//! unknown route answers 404, as it does with Stripe.
//!
//! What the card network does after a payment is done with methods of [`Sandbox`], such as
//! [`Sandbox::dispute`] and [`Sandbox::fail_refund`], or by tests in other languages over HTTP:
//!
//! ```text
//! POST /sandbox/disputes              {"payment_intent": "pi_...", "kind": "inquiry"}
//! POST /sandbox/disputes/{id}         {"end": "won"}
//! POST /sandbox/refunds/{id}/succeed
//! POST /sandbox/refunds/{id}/fail
//! POST /sandbox/early_fraud_warnings  {"payment_intent": "pi_..."}
//! ```
//!
//! `kind` is `chargeback` (the default) or `inquiry`; with an `amount` it is about a part of the
//! payment. `end` is `won`, `lost`, `warning_closed` or `escalate`. Each answers with Stripe's
//! object as it is then, or with an error in Stripe's form.
//!
//! Test cards that promise a dispute, an inquiry or a fraud warning keep their promise in the same
//! call. So do the refunds of `pm_card_refundFail`: they succeed, and have failed when they are
//! read again. Those of `pm_card_pendingRefund` stay pending until they are settled.
//!
//! What goes wrong between a client and Stripe is a [`Fault`]; how events reach a webhook endpoint
//! is a [`Delivery`]; [`Builder::rate_limit`] limits requests. `GET /sandbox` lists the requests that
//! do all of this for tests in other languages.
//!
//! Judges that were written elsewhere hold it to this: async-stripe's types read its answers, and
//! Stripe's own Python and Node libraries drive it (`scripts/conformance` in the repository).
//!
//! It listens on loopback only, takes no live keys, keeps everything in memory, and forgets it when
//! it stops.
//!
//! What it cannot do: complete a 3D Secure authentication, capture in several parts, let a hold
//! expire, cancel a refund, take evidence or let its deadline pass, convert currencies, pay out,
//! or update objects. Where Stripe's documentation leaves a question open (which failed attempts use
//! up a PaymentMethod), it takes the stricter reading.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use farebox_sandbox::Sandbox;
//!
//! let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! let answer = reqwest::Client::new()
//!     .post(format!("{}/v1/payment_methods", sandbox.url()))
//!     .bearer_auth(sandbox.publishable_key())
//!     .header("content-type", "application/x-www-form-urlencoded")
//!     .body(
//!         "type=card&card[number]=4242424242424242\
//!          &card[exp_month]=12&card[exp_year]=2040&card[cvc]=123",
//!     )
//!     .send()
//!     .await?;
//! assert_eq!(answer.status(), 200);
//! assert!(answer.text().await?.contains(r#""last4":"4242""#));
//! assert_eq!(sandbox.calls().len(), 1);
//! sandbox.stop().await;
//! # Ok(())
//! # }
//! ```

// The largest Stripe object has more fields than `json!` can count by default.
#![recursion_limit = "256"]

mod account;
mod api;
mod auth;
mod balance;
mod builder;
mod cards;
mod clock;
mod connection;
mod control;
mod customers;
mod disputes;
mod error;
mod events;
mod expand;
mod faults;
mod form;
mod fraud_warnings;
pub mod hostile;
mod idempotency;
mod ids;
mod intents;
mod limits;
mod lists;
mod money;
mod network;
mod payment_intents;
mod payment_methods;
mod post;
mod refunds;
mod sandbox;
mod search;
mod server;
mod setup_intents;
mod state;
mod webhooks;

use std::time::Duration;

pub use crate::builder::{Builder, StartError, StartErrorKind};
pub use crate::clock::ManualClock;
pub use crate::faults::{Fault, FaultKind, InvalidFault};
pub use crate::network::{Impossible, RefundRecord};
pub use crate::sandbox::{Call, ChargeRecord, EventRecord, Sandbox};
pub use crate::webhooks::{Delivery, DeliveryRecord, InvalidWebhook};

/// What a sandbox was told when it was built.
#[derive(Clone)]
struct Config {
    keys: auth::Keys,
    clock: clock::Clock,
    latency: Duration,
    raw_cards_with_secret_key: bool,
    tokenization: bool,
}
