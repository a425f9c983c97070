//! A client that pays, in ten lines.
//!
//! ```
//! use farebox_client::{Agent, Card, Policy, Receipt, usd};
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let url = shop::open(&sandbox).await? + "/page";
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("agent.json");
//! let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//! let card: Card = "4242424242424242:12:2034:123".parse()?; // or Card::from_env("FAREBOX_CARD")
//! let agent = Agent::new(policy).card(card).state(path)?;
//! # let agent = agent.tokenizer(sandbox.url())?;
//! let http = agent.client(reqwest::Client::builder())?.build();
//!
//! let response = http.get(&url).send().await?;
//! let receipt = response.extensions().get::<Receipt>().cloned().ok_or("it was free")?;
//! assert_eq!(response.text().await?, "a page");
//! assert_eq!(receipt.charged, Some(usd!("0.01"))); // what the page cost
//! assert_eq!(receipt.top_up, Some(usd!("5"))); // what the card was charged
//! assert_eq!(receipt.remaining, usd!("4.99")); // what can still be spent there
//!
//! let again = http.get(&url).send().await?;
//! let receipt = again.extensions().get::<Receipt>().cloned().ok_or("it was free")?;
//! assert_eq!((receipt.top_up, receipt.remaining), (None, usd!("4.98"))); // from credit
//! # assert_eq!(sandbox.charges().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! The first request goes out as any other and is answered 402 with a price. The agent asks its
//! policy, sets 5 usd aside in its budget, lets Stripe make a PaymentMethod of the card, writes the
//! payment down, and sends the request once more. From then on it pays from credit, in one round
//! trip.
//!
//! - The **policy** says what may be paid. A new one allows nothing: see
//!   [policies by example](super::policies).
//! - The **card** goes to Stripe and nowhere else. [`source`](crate::source) has other ways to pay.
//! - The **state** keeps credit and budget over a restart. Without [`Agent::state`] they are in
//!   memory: a new process has a fresh budget, and has forgotten the way to its credit.
//! - The **client** is reqwest's. [`Agent::client`] is the only way to one, because its redirect
//!   policy is part of the protection.
//!
//! # When it is not paid
//!
//! The call fails, and [`PaymentErrorExt::payment`] finds out why. A caller may also want less than
//! its owner allows: [`MaxPrice`] is for one request.
//!
//! ```
//! use farebox_client::{Actor, MaxPrice, PaymentError, PaymentErrorExt as _, Reason, Rule};
//! # use farebox_client::{Agent, Card, Policy, usd};
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let shop = shop::open(&sandbox).await?;
//! # let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! # let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//! # let card: Card = "4242424242424242:12:2034:123".parse()?;
//! # let agent = Agent::new(policy).card(card).tokenizer(sandbox.url())?;
//! # let http = agent.client(reqwest::Client::builder())?.build();
//! let error = http.get(format!("{shop}/book")).send().await.unwrap_err();
//! let Some(PaymentError::Refused(Reason::Policy(refusal))) = error.payment() else {
//!     panic!("not about the policy: {error}");
//! };
//! assert_eq!(refusal.rule(), Rule::PerRequest);
//! assert_eq!((refusal.asked(), refusal.limit()), (Some(usd!("2")), Some(usd!("0.05"))));
//!
//! let page = http.get(format!("{shop}/page")).with_extension(MaxPrice(usd!("0.005")));
//! let error = page.send().await.unwrap_err();
//! let payment = error.payment().expect("a payment was the reason");
//! assert_eq!(
//!     payment.to_string(),
//!     "not paid: 0.01 usd is above the MaxPrice of this request, 0.005 usd"
//! );
//! assert_eq!(payment.actor(), Actor::Developer); // who must act before it can succeed
//!
//! assert_eq!(sandbox.charges().len(), 0); // nothing was taken
//! # Ok(())
//! # }
//! ```
//!
//! [`PaymentError::actor`] says who must act: the owner of the agent, the author of the program,
//! the provider, or nobody, which means: ask again later. [`PaymentError::is_unknown`] says that
//! money may have left the card: see [unknown payments](super::unknown_payments).
//!
//! # In production
//!
//! A file for the state, and a policy in a file that its owner can read ([`Policy::from_toml`]). An
//! agent that takes addresses from pages or from a model has a [`Guard`]. Somebody hears its
//! [`event`](crate::event)s. `docs/agent.md` says the rest.
//!
//! [`Agent::state`]: crate::Agent::state
//! [`Agent::client`]: crate::Agent::client
//! [`Guard`]: crate::Guard
//! [`MaxPrice`]: crate::MaxPrice
//! [`PaymentErrorExt::payment`]: crate::PaymentErrorExt::payment
//! [`PaymentError::actor`]: crate::PaymentError::actor
//! [`PaymentError::is_unknown`]: crate::PaymentError::is_unknown
//! [`Policy::from_toml`]: crate::Policy::from_toml
