//! Asking the owner whether something may be paid.
//!
//! A policy can say that a payment needs its owner. The agent then puts a [`Question`] to an
//! [`Approver`] and pays only if the answer is [`Answer::Approved`]. [`Terminal`] asks on the
//! terminal of the process, [`Webhook`] through a service of the owner; `spec/approvals.md` is
//! the protocol of the latter.
//!
//! An approval is for one question: its [fingerprint](Question::fingerprint) covers everything
//! that is to be paid, so another price is another question. A question without an answer can be
//! asked again under its id after any time, also by another process.
//!
//! ```
//! use farebox_client::{ApprovalId, Question, usd};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let id: ApprovalId = "000102030405060708090a0b0c0d0e0f".parse()?;
//! let url = "https://api.example.com/joke?lang=en".parse()?;
//! let question = Question::new(id, 1_700_000_000, &http::Method::GET, &url, usd!("0.02"));
//! let dearer = Question::new(id, 1_700_000_000, &http::Method::GET, &url, usd!("0.03"));
//! assert_eq!(question.path, "/joke?lang=en");
//! assert_ne!(question.fingerprint(), dearer.fingerprint());
//! # Ok(())
//! # }
//! ```

mod question;
mod terminal;
mod wait;
mod webhook;

use std::io;
use std::pin::Pin;

pub use question::{ApprovalId, ApprovalIdError, Fingerprint, Question, QuestionError};
pub use terminal::Terminal;
pub(crate) use wait::{Pace, Waited, wait};
pub use webhook::Webhook;

/// What the owner says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It may be paid.
    Approved,
    /// It may not be paid.
    Denied,
    /// There is no answer yet.
    Pending,
}

/// Somebody who can be asked.
pub trait Approver: Send + Sync + 'static {
    /// Puts `question` to the owner, or looks for the answer.
    ///
    /// It is called again and again with the same question until the answer is not
    /// [`Answer::Pending`], perhaps by another process. The same id is the same question, and is
    /// put to a human once; an answer to a question with another fingerprint is no answer. The
    /// future may be dropped at any time, and takes as long as it likes.
    ///
    /// # Errors
    ///
    /// [`ApproverError`] when it cannot be told what the owner says. It counts as no answer.
    fn ask(
        &self,
        question: &Question,
    ) -> impl Future<Output = Result<Answer, ApproverError>> + Send;
}

/// Why an approver has no answer. None of these is an approval.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApproverError {
    /// The process has no terminal to ask on. Waiting does not help.
    #[error("there is no terminal to ask on")]
    NoTerminal,
    /// The terminal failed.
    #[error("the terminal cannot be used")]
    Terminal(#[source] io::Error),
    /// The approver's service did not answer in time, or not to the end.
    #[error("the approver did not answer")]
    Unavailable,
    /// The approver's service answered with a status that is not 200 or 202.
    #[error("the approver answered with status {0}")]
    Status(u16),
    /// The approver's service answered something else than `spec/approvals.md` says.
    #[error("the approver's answer is malformed")]
    Malformed,
    /// The approver's service answered another question, or the same under another price.
    #[error("the approver's answer is to another question")]
    OtherQuestion,
    /// Another approver's reason.
    #[error("the approver failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Approver`] as an object.
pub(crate) trait DynApprover: Send + Sync {
    fn ask_boxed<'a>(
        &'a self,
        question: &'a Question,
    ) -> BoxFuture<'a, Result<Answer, ApproverError>>;
}

impl<A: Approver> DynApprover for A {
    fn ask_boxed<'a>(
        &'a self,
        question: &'a Question,
    ) -> BoxFuture<'a, Result<Answer, ApproverError>> {
        Box::pin(self.ask(question))
    }
}
