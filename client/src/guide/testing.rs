//! An agent of yours under test: with the sandbox, no account at Stripe and no money.
//!
//! `farebox-sandbox` is Stripe on loopback: it makes PaymentMethods, charges cards, and fails as it
//! is told. A provider is a few lines of `farebox-middleware`. What the agent does is the real
//! thing, over HTTP, and at the end the test asks the sandbox what the card was charged.
//!
//! ```toml
//! [dev-dependencies]
//! farebox-sandbox = { path = "farebox/sandbox" }
//! farebox-middleware = { path = "farebox/middleware", features = ["axum"] }
//! axum = "0.8"
//! ```
//!
//! ```
//! use axum::{Router, routing::get};
//! use farebox_client::{Agent, Card, Policy, usd};
//! use farebox_middleware::{Payments, Stripe};
//! use farebox_sandbox::Sandbox;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Stripe, and a provider that charges there.
//! let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! let stripe = Stripe::new(sandbox.secret_key(), sandbox.publishable_key())?;
//! let payments = Payments::builder(stripe.base_url(sandbox.url())?).ledger("memory:");
//! let payments = payments.open().await?;
//! let page = get(|| async { "a page" }).route_layer(payments.price(usd!("0.01")));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("http://{}/page", listener.local_addr()?);
//! tokio::spawn(async move { axum::serve(listener, Router::new().route("/page", page)).await });
//!
//! // The agent under test: its card goes to the sandbox.
//! let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! let card: Card = "4242424242424242:12:2034:123".parse()?;
//! let agent = Agent::new(policy.per_top_up(usd!("5")).per_day(usd!("10"))).card(card);
//! let agent = agent.tokenizer(sandbox.url())?;
//! let http = agent.client(reqwest::Client::builder())?.build();
//!
//! assert_eq!(http.get(&url).send().await?.text().await?, "a page");
//! let charged: Vec<i64> = sandbox.charges().iter().map(|charge| charge.amount).collect();
//! assert_eq!(charged, [500]); // cents
//! # Ok(())
//! # }
//! ```
//!
//! A provider of the payer's protocol in another language does as well: `farebox sandbox` runs the
//! sandbox as a program.
//!
//! # Cards that are declined
//!
//! | card | what happens |
//! |---|---|
//! | `4242424242424242` | is charged |
//! | `4000000000000002` | is declined |
//! | `4242424242424241` | is no card: Stripe refuses it before the server hears of it |
//!
//! ```
//! use farebox_client::{Actor, Currency, ErrorCode, PaymentError, PaymentErrorExt as _};
//! # use farebox_client::{Agent, Card, Policy, usd};
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let url = shop::open(&sandbox).await? + "/page";
//! # let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! # let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//! # let now = 1_700_000_000;
//! # let card: Card = "4000000000000002:12:2034:123".parse()?;
//! # let wary = Agent::new(policy.clone()).card(card).clock(move || now).tokenizer(sandbox.url())?;
//! let card: Card = "4000000000000002:12:2034:123".parse()?;
//! let policy = policy.trust("127.0.0.1");
//! let agent = Agent::new(policy).card(card).clock(move || now);
//! # let agent = agent.tokenizer(sandbox.url())?;
//! # let http = agent.client(reqwest::Client::builder())?.build();
//! let error = http.get(&url).send().await.unwrap_err();
//! let payment = error.payment().expect("a payment was the reason");
//! assert!(matches!(payment, PaymentError::Declined(ErrorCode::CardDeclined)));
//! assert_eq!(payment.actor(), Actor::Owner);
//! // The server says that nothing was taken, and is trusted: the budget has it back.
//! assert_eq!(agent.usage().await?.held(Currency::USD, now), usd!("0"));
//!
//! // To an agent that trusts nobody it is only a word, until its owner has looked.
//! # let http = wary.client(reqwest::Client::builder())?.build();
//! assert!(http.get(&url).send().await.is_err());
//! assert_eq!(wary.usage().await?.held(Currency::USD, now), usd!("5"));
//! assert_eq!(wary.take_back(&url).await?, 1);
//! assert_eq!(wary.usage().await?.held(Currency::USD, now), usd!("0"));
//! # assert_eq!(sandbox.charges().len(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Another day
//!
//! [`Agent::clock`](crate::Agent::clock) decides which day it is for the budget.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicI64, Ordering};
//! # use farebox_client::{Agent, Card, Policy, usd};
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let (first, second) = (shop::open(&sandbox).await?, shop::open(&sandbox).await?);
//! # let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! # let policy = policy.per_top_up(usd!("5")).per_day(usd!("5"));
//! # let card: Card = "4242424242424242:12:2034:123".parse()?;
//! let time = Arc::new(AtomicI64::new(1_700_000_000));
//! let clock = Arc::clone(&time);
//! let agent = Agent::new(policy).card(card).clock(move || clock.load(Ordering::SeqCst));
//! # let agent = agent.tokenizer(sandbox.url())?;
//! # let http = agent.client(reqwest::Client::builder())?.build();
//! # let (first, second) = (first + "/page", second + "/page");
//!
//! assert!(http.get(&first).send().await.is_ok()); // 5 usd of the 5 usd of this day
//! assert!(http.get(&second).send().await.is_err());
//! time.fetch_add(24 * 60 * 60, Ordering::SeqCst);
//! assert!(http.get(&second).send().await.is_ok());
//! # assert_eq!(sandbox.charges().len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # What goes wrong between the provider and Stripe
//!
//! The sandbox loses answers, resets connections and fails on request. Here Stripe charges the card
//! and its answer is lost: the provider asks again under the same key, and neither the agent nor
//! the card notices.
//!
//! ```
//! use farebox_sandbox::{Fault, FaultKind};
//! # use farebox_client::{Agent, Card, Policy, usd};
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let url = shop::open(&sandbox).await? + "/page";
//! # let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! # let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//! # let card: Card = "4242424242424242:12:2034:123".parse()?;
//! # let agent = Agent::new(policy).card(card).tokenizer(sandbox.url())?;
//! # let http = agent.client(reqwest::Client::builder())?.build();
//! sandbox.inject(Fault::at("POST", "/v1/payment_intents", FaultKind::ResetAfter));
//! assert_eq!(http.get(&url).send().await?.text().await?, "a page");
//! assert_eq!((sandbox.faults_hit(), sandbox.charges().len()), (1, 1));
//! # Ok(())
//! # }
//! ```
//!
//! An answer that is lost between the provider and the agent is in
//! [unknown payments](super::unknown_payments). All faults, and the sandbox as a program, are in
//! `docs/sandbox.md`.
//!
//! # Without HTTP
//!
//! A policy is a pure function: [`decide`](farebox_policy::decide()) needs no agent. See
//! [policies by example](super::policies).
