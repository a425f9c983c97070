//! The card processor: Stripe, its calls and their outcomes.
//!
//! A charge is encoded first and sent later: [`Stripe::top_up`] makes a [`Call`], a ledger stores
//! it, and [`Stripe::charge`] sends it under a key until its outcome is known or time is up. An
//! outcome that is not known is the value [`Charge::Unknown`], never an error and never a no; the
//! stored call, sent again under the same key with [`Stripe::repeat`], makes it known without
//! charging twice.
//!
//! What comes after a charge is read as absolute totals: [`Stripe::standing`] says what was
//! received, given back and disputed. Events, by webhook ([`WebhookSecrets`]) or as a list
//! ([`Stripe::events_since`]), only say which charge to read again.
//!
//! Requests are built by the generated crates of async-stripe and sent by a transport of our own,
//! because retries, idempotency keys and the headers of answers decide about money here. Answers
//! are read by small types of just the fields that decide something.
//!
//! # Layout
//!
//! - `stripe`: [`Stripe`], its keys, and charging, verifying and looking up
//! - `call`: [`Call`], [`TopUp`] and [`IdempotencyKey`]; requests as they are sent and stored
//! - `verdict`: whether a call that moves money may have run, as pure decisions
//! - `charge`: [`Charge`]; what an attempt to charge means
//! - `refund`: [`Refund`] and [`GiveBack`]; giving money back
//! - `standing`: [`Standing`] and [`Dispute`]; how a charge stands
//! - `event`, `webhook`: [`Event`]; what happened, and whether Stripe says so
//! - `warning`: [`Warning`]; a bank suspects fraud
//! - `cards`: the cards that are attached to a customer
//! - `lookup`: what the answer to a look-up means
//! - `list`: lists, page by page
//! - `answer`: [`Intent`] and the other objects, as they are read
//! - `retry`: deadlines, waits and repetitions
//! - `transport`: the one place that builds an HTTP request
//! - `config`: keys, base URL and [`Mode`]
//! - `error`: [`LookUpError`], by who must act
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use farebox_processor::{Charge, IdempotencyKey, Stripe, TopUp};
//! use farebox_protocol::{IdentityKey, PaymentMethodId, TopUpId, usd};
//!
//! # async fn top_up() -> Result<(), Box<dyn std::error::Error>> {
//! let stripe = Stripe::from_env()?;
//! let card: PaymentMethodId = "pm_1".parse()?;
//!
//! let fingerprint = stripe.payment_method(&card).await?.fingerprint;
//! let payer = IdentityKey::new(b"a secret of at least 32 random bytes").payer(&fingerprint);
//! let customer = stripe.customer(&payer, None).await?;
//!
//! let id: TopUpId = format!("tu_{payer}_usd_1").parse()?;
//! let amount = usd!("5").micros();
//! let call = stripe.top_up(&TopUp { id, amount, customer: &customer, payment_method: &card, save_card: true });
//! // ... the ledger stores `call` under `id` ...
//! match stripe.charge(&call, &IdempotencyKey::from(id), Duration::from_secs(20)).await {
//!     Charge::Charged { received, .. } => println!("{} micros", received.get()),
//!     Charge::Unknown(_) => println!("not known yet; `call` is sent again"),
//!     refused => println!("nothing was taken: {refused:?}"),
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod call;
mod cards;
mod charge;
mod config;
mod error;
mod event;
mod list;
mod lookup;
mod refund;
mod retry;
mod standing;
mod stripe;
mod transport;
mod verdict;
mod warning;
mod webhook;

pub use answer::{CvcCheck, Intent, IntentStatus};
pub use call::{Call, IdempotencyKey, TopUp};
pub use charge::{Charge, Rejection, Unknown};
pub use config::{ConfigError, Mode};
pub use error::{KeyError, LookUpError};
pub use event::{Event, EventKind};
pub use refund::{GiveBack, Refund};
pub use standing::{Dispute, DisputeState, Standing};
pub use stripe::{Account, PaymentMethod, Stripe, Verification};
pub use warning::Warning;
pub use webhook::{Unverified, WebhookSecrets};
