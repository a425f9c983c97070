//! Leaving some payments to a human.
//!
//! A policy can say that a payment needs its owner: [`Policy::ask_above`] for single payments,
//! [`Policy::ask_above_total`] for many small ones. The agent puts a [`Question`] to its
//! [`Approver`] and pays only if the answer is yes. Without an approver such payments are refused.
//!
//! - [`Terminal`] asks on the terminal of the process.
//! - [`Webhook`] asks a service of the owner, which may take hours: `spec/approvals.md`.
//! - An approver of your own is one function.
//!
//! ```
//! use farebox_client::{
//!     Agent, Answer, Approver, ApproverError, Card, PaymentError, PaymentErrorExt as _, Policy,
//!     Question, usd,
//! };
//!
//! /// Says yes to books, and to nothing else.
//! struct Librarian;
//!
//! impl Approver for Librarian {
//!     async fn ask(&self, question: &Question) -> Result<Answer, ApproverError> {
//!         // The path is the provider's or a model's own words: compare it, do not believe it.
//!         let is_book = question.path == "/book" && question.price == usd!("2");
//!         Ok(if is_book { Answer::Approved } else { Answer::Denied })
//!     }
//! }
//!
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let shop = shop::open(&sandbox).await?;
//! # let card: Card = "4242424242424242:12:2034:123".parse()?;
//! let policy = Policy::new().allow("127.0.0.1").per_request(usd!("3"));
//! let policy = policy.per_top_up(usd!("5")).per_day(usd!("20")).ask_above(usd!("1"));
//! let agent = Agent::new(policy).card(card).approver(Librarian);
//! # let agent = agent.tokenizer(sandbox.url())?;
//! let http = agent.client(reqwest::Client::builder())?.build();
//!
//! // A page is cheap, but the top-up that it needs is not.
//! let error = http.get(format!("{shop}/page")).send().await.unwrap_err();
//! assert!(matches!(error.payment(), Some(PaymentError::ApprovalDenied)));
//! assert_eq!(sandbox.charges().len(), 0);
//!
//! let book = http.get(format!("{shop}/book")).send().await?;
//! assert_eq!(book.text().await?, "a book");
//! // The rest is credit, and one cent is nothing to ask about.
//! assert_eq!(http.get(format!("{shop}/page")).send().await?.text().await?, "a page");
//! assert_eq!(sandbox.charges().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What a yes is for
//!
//! One question: the server, the method, the path with its query, the price and the top-up. If any
//! of them changes, it is another question. A yes passes the thresholds and no limit, and the
//! policy looks at the payment again after it, for others may have spent meanwhile. A yes to a
//! top-up is used up by it.
//!
//! # When the owner takes long
//!
//! A call waits for [`Agent::approval_timeout`], ten minutes if nothing is said and never less than
//! five seconds. Then it ends with [`PaymentError::ApprovalPending`] and nothing was taken. The
//! question is not lost: a call with the same [`PaymentKey`] goes on with it, also in another
//! process with the same state, and is paid if the owner has said yes in the meantime. Without a
//! key the next call asks anew.
//!
//! ```
//! # use std::sync::atomic::{AtomicBool, Ordering};
//! # use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! # use farebox_client::{
//! #     Agent, Answer, Approver, ApproverError, Card, PaymentError, PaymentErrorExt as _, Policy,
//! #     Question, usd,
//! # };
//! use farebox_client::PaymentKey;
//!
//! # #[derive(Clone, Default)]
//! # struct Phone(Arc<AtomicBool>, Arc<Mutex<Vec<String>>>);
//! # impl Approver for Phone {
//! #     async fn ask(&self, question: &Question) -> Result<Answer, ApproverError> {
//! #         self.1.lock().unwrap().push(question.id.to_string());
//! #         Ok(if self.0.load(Ordering::SeqCst) { Answer::Approved } else { Answer::Pending })
//! #     }
//! # }
//! # mod shop { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guide/shop.rs")); }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let sandbox = farebox_sandbox::Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
//! # let shop = shop::open(&sandbox).await?;
//! # let card: Card = "4242424242424242:12:2034:123".parse()?;
//! # let folder = tempfile::tempdir()?;
//! # let phone = Phone::default();
//! # let policy = Policy::new().allow("127.0.0.1").per_request(usd!("3"));
//! # let policy = policy.per_top_up(usd!("5")).per_day(usd!("20")).ask_above(usd!("1"));
//! # let agent = Agent::new(policy).card(card).approver(phone.clone()).tokenizer(sandbox.url())?;
//! # let agent = agent.state(folder.path().join("agent.json"))?;
//! let agent = agent.approval_timeout(Duration::from_secs(5));
//! # let http = agent.client(reqwest::Client::builder())?.build();
//! let task = PaymentKey::new("task-17").ok_or("1 to 256 bytes")?;
//! let book = || http.get(format!("{shop}/book")).with_extension(task.clone()).send();
//!
//! let error = book().await.unwrap_err();
//! let Some(PaymentError::ApprovalPending { id, .. }) = error.payment() else { panic!("{error}") };
//! # let asked_as = id.to_string();
//! // The owner is told that question `id` waits, and says yes an hour later.
//! # phone.0.store(true, Ordering::SeqCst);
//! assert_eq!(book().await?.text().await?, "a book");
//! # assert!(phone.1.lock().unwrap().iter().all(|id| *id == asked_as), "one question");
//! # assert_eq!(sandbox.charges().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! [`Agent::approval_timeout`]: crate::Agent::approval_timeout
//! [`Approver`]: crate::Approver
//! [`PaymentError::ApprovalPending`]: crate::PaymentError::ApprovalPending
//! [`PaymentKey`]: crate::PaymentKey
//! [`Policy::ask_above`]: crate::Policy::ask_above
//! [`Policy::ask_above_total`]: crate::Policy::ask_above_total
//! [`Question`]: crate::Question
//! [`Terminal`]: crate::Terminal
//! [`Webhook`]: crate::Webhook
