//! The tower layer that charges for requests.
//!
//! A route gets a price; a request to it that brings no payment is answered with a 402 that says
//! what it costs and how to pay. A client pays by card once, for a top-up of a few dollars, and
//! spends from that credit in fractions of a cent.
//!
//! # Layout
//!
//! - [`Builder`]: what is set before payments are opened, and what stops a start
//! - [`Payments`]: opens the ledger, knows Stripe, makes layers; cheap to clone
//! - [`PaymentLayer`] and [`PaymentService`]: the way of a paid request, in `service.rs`
//! - [`Price`] and [`Pricer`]: what a request costs
//! - [`Payer`]: who paid, for handlers
//! - [`AccountService`]: a payer's balance, statement and credentials, by credential
//! - [`AdminService`]: what the operator asks and changes, by token
//! - [`WebhookService`]: what Stripe tells about charges
//! - [`Admission`] and [`ClientIp`]: how often cards may be tried, and by whom
//!
//! In `pay.rs` a payment becomes a reservation; in `top_up.rs` a card becomes credit, and in
//! `refund.rs` credit goes back; `observe.rs` books what Stripe says about a charge, whoever asks:
//! an event (`webhook.rs`), or a comparison of everything (`reconcile.rs`); `keyed.rs`
//! knows requests by their `Idempotency-Key`, `meter.rs` counts what a metered one costs, and
//! `sweep.rs` does what is due; `admission/` keeps who tests stolen cards from Stripe;
//! `endpoint.rs` is what account and admin routes share.
//!
//! # Example
//!
//! ```
//! use axum::{Router, body::Body, http::Request, routing::get};
//! use farebox_middleware::{Payer, Payments, usd};
//! use tower::ServiceExt as _;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let payments = Payments::for_tests(); // Payments::builder(Stripe::from_env()?) in earnest
//! let joke = get(|payer: Payer| async move { format!("A joke for {}.", payer.id()) });
//! let app = Router::new().route("/joke", joke.route_layer(payments.price(usd!("0.01"))));
//!
//! let unpaid = app.clone().oneshot(Request::get("/joke").body(Body::empty())?).await?;
//! assert_eq!(unpaid.status(), 402);
//!
//! let payment = payments.fund(usd!("5")).await;
//! let paid = Request::get("/joke").header("payment", payment).body(Body::empty())?;
//! assert_eq!(app.oneshot(paid).await?.status(), 200);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod account;
mod admin;
mod admission;
mod answer;
mod builder;
mod cards;
mod endpoint;
mod keyed;
mod layer;
mod meter;
mod observe;
mod pay;
mod payer;
mod payments;
mod price;
mod quote;
mod reconcile;
mod refund;
mod refusal;
mod reservation;
mod secret;
mod service;
mod sweep;
#[cfg(test)]
mod tests;
mod top_up;
mod webhook;
mod who;

pub use account::AccountService;
pub use admin::{AdminService, Peer, TokenError};
pub use admission::{Admission, ClientIp};
pub use builder::{Builder, OpenError};
pub use farebox_ledger::StoreError;
#[cfg(feature = "test-util")]
pub use farebox_ledger::clock::{Clock, ManualClock, Timestamp};
pub use farebox_processor::Stripe;
pub use farebox_protocol::{Currency, Micros, Money, PayerId, usd};
pub use layer::PaymentLayer;
pub use meter::PaidBody;
pub use payer::{NotPaid, Payer};
pub use payments::{CloseError, Payments};
pub use price::{FixedPrice, Price, PriceError, Pricer};
pub use quote::LimitsError;
pub use reconcile::{Difference, ReconcileError, Reconciliation, Repair, What};
pub use refund::{RefundError, RefundState, Refundable, Refunded, RefundedPart};
pub use secret::SecretError;
pub use service::PaymentService;
pub use webhook::{NoWebhookSecret, WebhookService};
