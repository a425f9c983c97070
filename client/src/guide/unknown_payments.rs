//! What to do when nobody knows whether the card was charged.
//!
//! A payment was sent and its answer was lost: a broken connection, a proxy's 502, a server that
//! stopped. The agent does not guess. The amount stays held in the budget, the payment stays in the
//! journal, and the call fails with [`PaymentError::Unknown`]. In most cases the right thing to do
//! is to send the request again: the agent repeats the *same* payment, with the same PaymentMethod,
//! and a Farebox server charges it once.
//!
//! ```
//! use farebox_client::{Currency, PaymentError, PaymentErrorExt as _, Receipt};
//! # use farebox_client::{Agent, Card, Policy, usd};
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let url = shop::open_losing(&sandbox, 1).await? + "/page";
//! # let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! # let policy = policy.per_top_up(usd!("5")).per_day(usd!("5"));
//! # let now = 1_700_000_000;
//! # let card: Card = "4242424242424242:12:2034:123".parse()?;
//! # let agent = Agent::new(policy).card(card).clock(move || now).tokenizer(sandbox.url())?;
//! # let http = agent.client(reqwest::Client::builder())?.build();
//! let error = http.get(&url).send().await.unwrap_err(); // a proxy lost the answer
//! assert!(matches!(error.payment(), Some(PaymentError::Unknown)));
//! assert_eq!(agent.usage().await?.held(Currency::USD, now), usd!("5"));
//! assert_eq!(agent.known().await?[0].unresolved, Some(usd!("5")));
//!
//! let response = http.get(&url).send().await?; // goes on with the same payment
//! let receipt = response.extensions().get::<Receipt>().cloned().ok_or("it was free")?;
//! assert_eq!(receipt.remaining, usd!("4.98")); // the lost page was charged, too
//! assert_eq!(agent.known().await?[0].unresolved, None);
//! assert_eq!(sandbox.charges().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What the errors mean
//!
//! | error | the card | the hold | what to do |
//! |---|---|---|---|
//! | [`Unknown`] | may have been charged | stays | send the request again, later |
//! | [`PaidButRefused`] | may have been charged, and the server asks for another payment | stays | talk to the provider; then [write it off](#writing-it-off) |
//! | [`AlreadyCharged`] | was not charged again | as below, if this call made one | nothing was lost but an answer; another call, if it is still needed |
//! | [`Declined`] | was not charged, says the server | as below | look at its code and its [`actor`] |
//!
//! That nothing was taken is the server's word. What was set aside goes back if the policy
//! [trusts](crate::Policy::trust) the server; otherwise it stays counted, and
//! [`Agent::take_back`](crate::Agent::take_back) returns it after you have looked at the card's
//! statement.
//!
//! [`PaymentError::is_unknown`] is true for the first two. Until such a payment is resolved, its
//! server gets no other top-up from this agent. Other servers are paid as before, as far as the
//! budget, which counts it, allows.
//!
//! A server of stripe402 v1 cannot tell a repeat from a second payment. There the agent sets the
//! amount aside once more before it repeats, and does not repeat within the same call. It may be
//! charged twice, and both are counted.
//!
//! # Calls with a name
//!
//! A call ends with the process that made it, unless it has a name. [`PaymentKey`] is that name:
//! with a state file, requests of one name are one call, also after a restart. The card is
//! offered for it at most once, and a server that knows `Idempotency-Key` charges it once. Name a
//! call after the task, not after the attempt:
//!
//! ```
//! use farebox_client::PaymentKey;
//! # use farebox_client::{Agent, Card, PaymentError, PaymentErrorExt as _, Policy, usd};
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let url = shop::open_losing(&sandbox, 1).await? + "/page";
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("agent.json");
//! # let agent = || -> Result<Agent, Box<dyn std::error::Error>> {
//! #     let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! #     let policy = policy.per_top_up(usd!("5")).per_day(usd!("20"));
//! #     let card: Card = "4242424242424242:12:2034:123".parse()?;
//! #     Ok(Agent::new(policy).card(card).state(&path)?.tokenizer(sandbox.url())?)
//! # };
//! let name = PaymentKey::new("invoice-2026-11/page-1").ok_or("1 to 256 bytes")?;
//! let http = agent()?.client(reqwest::Client::builder())?.build();
//! assert!(http.get(&url).with_extension(name.clone()).send().await.is_err());
//! drop(http); // and the process ends here
//!
//! let http = agent()?.client(reqwest::Client::builder())?.build();
//! let again = http.get(&url).with_extension(name).send().await;
//! // The page was charged before its answer was lost, and is not charged again.
//! assert!(matches!(again.unwrap_err().payment(), Some(PaymentError::AlreadyCharged)));
//! assert_eq!(sandbox.charges().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Layers that retry
//!
//! A layer that retries belongs around the client, with the same extensions at every attempt, as
//! layers of reqwest-middleware do. Then all attempts are one call: one payment, one
//! `Idempotency-Key`, one question to a human. A loop that builds a new request each time makes new
//! calls, unless they have the same [`PaymentKey`]; even then a server with an unresolved payment
//! gets no second one.
//!
//! # Writing it off
//!
//! A server that is gone, or that denies a payment, never resolves it. Its owner can count it as
//! spent and go on; no server can do that. [`Agent::write_off`] answers the amount.
//!
//! ```
//! # use farebox_client::{Agent, Card, Currency, Policy, usd};
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let url = shop::open_losing(&sandbox, 1).await? + "/page";
//! # let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! # let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//! # let now = 1_700_000_000;
//! # let card: Card = "4242424242424242:12:2034:123".parse()?;
//! # let agent = Agent::new(policy).card(card).clock(move || now).tokenizer(sandbox.url())?;
//! # let http = agent.client(reqwest::Client::builder())?.build();
//! # assert!(http.get(&url).send().await.is_err());
//! assert_eq!(agent.write_off(&url).await?, Some(usd!("5")));
//! assert_eq!(agent.write_off(&url).await?, None); // there is no other
//! // It stays counted: the day's budget has this much less.
//! assert_eq!(agent.usage().await?.held(Currency::USD, now), usd!("5"));
//! # Ok(())
//! # }
//! ```
//!
//! Do this only after you have asked: the provider, by the [`Receipt`]s and the time of the event
//! [`Unknown`](crate::Event::Unknown); and the card's statement, where a charge appears within
//! days. A charge that the provider denies, or for which it gives no credit, is disputed at the
//! bank that issued the card: no program can take it back.
//!
//! [`Agent::write_off`]: crate::Agent::write_off
//! [`AlreadyCharged`]: crate::PaymentError::AlreadyCharged
//! [`Declined`]: crate::PaymentError::Declined
//! [`PaidButRefused`]: crate::PaymentError::PaidButRefused
//! [`PaymentError::Unknown`]: crate::PaymentError::Unknown
//! [`PaymentError::is_unknown`]: crate::PaymentError::is_unknown
//! [`PaymentKey`]: crate::PaymentKey
//! [`Receipt`]: crate::Receipt
//! [`Unknown`]: crate::PaymentError::Unknown
//! [`actor`]: crate::PaymentError::actor
