//! Many agents, processes or machines under one budget.
//!
//! A [`Budget`] is the count of what has left the card. The check against a policy and the
//! reservation of the amount are one step in it, which is durable before anything is sent: two
//! agents never spend the same dollar, and money in flight is counted.
//!
//! ```
//! use farebox_client::{Agent, Budget, Card, Currency, PaymentError, Policy, usd};
//! # use farebox_client::PaymentErrorExt as _;
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let mut shops = Vec::new();
//! # for _ in 1..=3 {
//! #     shops.push(shop::open(&sandbox).await? + "/page");
//! # }
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("team.budget");
//! let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
//! let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
//!
//! let mut paid = 0;
//! for url in &shops {
//!     // Each agent has a server of its own to pay.
//!     let card: Card = "4242424242424242:12:2034:123".parse()?;
//!     let agent = Agent::new(policy.clone()).card(card).budget(Budget::file(&path)?);
//! #   let agent = agent.tokenizer(sandbox.url())?;
//!     let http = agent.client(reqwest::Client::builder())?.build();
//!     match http.get(url).send().await {
//!         Ok(_) => paid += 1,
//!         Err(error) => assert!(matches!(error.payment(), Some(PaymentError::Refused(_)))),
//!     }
//! }
//! assert_eq!(paid, 2); // two top-ups of 5 usd are the 10 usd of the day
//! let held = Budget::file(&path)?.usage().await?.held(Currency::USD, now());
//! assert_eq!(held, usd!("10"));
//! # assert_eq!(sandbox.charges().iter().map(|charge| charge.amount).sum::<i64>(), 1_000);
//! # Ok(())
//! # }
//! # fn now() -> i64 {
//! #     let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
//! #     i64::try_from(since.as_secs()).unwrap()
//! # }
//! ```
//!
//! # Which store
//!
//! | agents | budget | survives |
//! |---|---|---|
//! | tasks of one process | one [`Agent`], or one [`Budget::in_memory`] and its clones | nothing |
//! | processes of one machine | [`Agent::state`] with one path: the budget is beside it | kill -9, loss of power |
//! | agents of one machine, each with a state of its own | [`Budget::file`] | the same |
//! | several machines | `Budget::redis`, with the feature `redis` | what that Redis survives |
//!
//! ```no_run
//! # #[cfg(feature = "redis")]
//! # async fn run(agent: farebox_client::Agent) -> Result<(), farebox_client::BudgetError> {
//! # use farebox_client::Budget;
//! let budget = Budget::redis("redis://10.0.0.7/", "research-team").await?;
//! let agent = agent.budget(budget);
//! # Ok(())
//! # }
//! ```
//!
//! Redis must keep what it answered: `appendonly yes`, `appendfsync always`, `maxmemory-policy
//! noeviction`. If it does not answer for ten seconds, nothing is paid; if it has forgotten, a
//! process that knew better refuses to go on ([`BudgetError::Lost`]).
//!
//! # What a budget counts, and what it does not
//!
//! It counts **top-ups**: money that leaves the card. A top-up counts from the moment at which it
//! is set aside, also while its outcome is unknown, and goes back only when a server that the
//! policy [trusts](crate::Policy::trust) says that it took nothing, or when you [take it
//! back](crate::Agent::take_back). **Spending from credit** is counted nowhere, because that money
//! left the card before; `per_request` and [`MaxPrice`](crate::MaxPrice) cap it. So a budget of 10
//! usd a day is spent after two top-ups of 5 usd, even if the agent has read pages for two cents:
//! the rest is credit at the servers, for tomorrow.
//!
//! The limits are those of each agent's own policy; what they are compared with is the same count.
//! Give all of them the same policy, or smaller ones to some: the agent with the largest limit
//! decides what all of them together can spend.
//!
//! # What else is shared through a state file
//!
//! A budget is only the count. Processes that open the same [`Agent::state`] also share credit,
//! prices, pinned publishable keys, and the payments in flight: they pay one server one after the
//! other, and what one of them topped up, all spend. Agents with states of their own top up each
//! for itself, unless they have the same card: it leads to the credit that it paid for. Share the
//! state where agents do the same work with the same card; share only the budget where one must not
//! spend the other's credit.
//!
//! # One clock
//!
//! A day ends for everybody at once. With Redis it is the clock of Redis. In a file every process
//! brings the clock of the machine, and time never goes back: a payment at an earlier time than the
//! latest that was counted is counted at the latest. A clock that is more than a day behind is
//! refused until it is right.
//!
//! # Crashes
//!
//! A payment is held in the budget, written into the journal of the agent's state, and sent, in
//! this order. An agent that dies before it is in the journal has sent nothing: when it starts
//! again with its state, the hold goes back. One that dies later leaves an [unknown
//! payment](super::unknown_payments), which stays counted and is gone on with. Holds of an agent
//! that never starts again stay counted: that is the side on which it errs.
//!
//! [`Agent`]: crate::Agent
//! [`Agent::state`]: crate::Agent::state
//! [`Budget`]: crate::Budget
//! [`Budget::file`]: crate::Budget::file
//! [`Budget::in_memory`]: crate::Budget::in_memory
//! [`BudgetError::Lost`]: crate::BudgetError::Lost
