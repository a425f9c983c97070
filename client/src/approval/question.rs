//! What the owner is asked.

use std::fmt;
use std::str::FromStr;

use farebox_protocol::{Currency, Micros, Money};
use http::Method;
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// What a question is known by: 32 lower-case hex digits, unique per question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(u128);

/// Not 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an approval's id is 32 lower-case hex digits")]
pub struct ApprovalIdError;

impl ApprovalId {
    /// The id with these bytes. They are random, so that no one guesses the id.
    pub const fn from_bytes(bytes: [u8; 16]) -> ApprovalId {
        ApprovalId(u128::from_be_bytes(bytes))
    }
}

impl FromStr for ApprovalId {
    type Err = ApprovalIdError;

    fn from_str(text: &str) -> Result<ApprovalId, ApprovalIdError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits && text.len() == 32);
        number.map(ApprovalId).ok_or(ApprovalIdError)
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ApprovalId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApprovalId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ApprovalId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What an approval is for, as a hash: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the owner is asked: whether this request may be paid.
///
/// As JSON it is the message of `spec/approvals.md`, with the fingerprint. One whose fingerprint
/// is not its own cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Message", try_from = "Message")]
#[non_exhaustive]
pub struct Question {
    /// What it is known by.
    pub id: ApprovalId,
    /// When it was first asked, in Unix seconds.
    pub asked_at: i64,
    /// Who is to be paid: `scheme://host:port`, without the port where it is the scheme's own.
    pub origin: String,
    /// The method of the request.
    pub method: String,
    /// Path and query of the request.
    pub path: String,
    /// What the request costs.
    pub price: Money,
    /// What the card is to be charged; `None` when there is credit for the price.
    pub top_up: Option<Money>,
    /// Why the owner is asked; the policy's words.
    pub reason: String,
}

/// A text that is not a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// The fingerprint belongs to another question.
    #[error("the fingerprint is not that of the question")]
    Fingerprint,
}

impl Question {
    /// The question whether the request `method` `url` may be paid at this price from credit.
    /// `asked_at` is in Unix seconds. A fragment of the URL is left out: it is not sent.
    pub fn new(
        id: ApprovalId,
        asked_at: i64,
        method: &Method,
        url: &Url,
        price: Money,
    ) -> Question {
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Question {
            id,
            asked_at,
            origin: url.origin().ascii_serialization(),
            method: method.as_str().to_owned(),
            path: format!("{}{query}", url.path()),
            price,
            top_up: None,
            reason: String::new(),
        }
    }

    /// The card is to be charged this amount.
    #[must_use]
    pub fn top_up(mut self, amount: Money) -> Question {
        self.top_up = Some(amount);
        self
    }

    /// Why the owner is asked.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Question {
        self.reason = reason.into();
        self
    }

    /// What an approval of this question is for: origin, method, path and query, price and
    /// top-up. The id, the time and the reason are not part of it.
    ///
    /// SHA-256 of [netstrings](https://cr.yp.to/proto/netstrings.txt), as `spec/approvals.md`
    /// says.
    pub fn fingerprint(&self) -> Fingerprint {
        let amount = |money: Money| money.micros().get().to_string();
        let currency = |money: Money| money.currency().code();
        let fields = [
            "farebox-approval-1",
            &self.origin,
            &self.method,
            &self.path,
            &amount(self.price),
            currency(self.price),
            &self.top_up.map(amount).unwrap_or_default(),
            self.top_up.map(currency).unwrap_or_default(),
        ];
        let mut hash = Sha256::new();
        for field in fields {
            hash.update(format!("{}:{field},", field.len()));
        }
        Fingerprint(hash.finalize().into())
    }
}

/// A question on the wire.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    id: ApprovalId,
    asked_at: i64,
    origin: String,
    method: String,
    path: String,
    price: Amount,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    top_up: Option<Amount>,
    reason: String,
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Amount {
    micros: Micros,
    currency: Currency,
}

impl From<Money> for Amount {
    fn from(money: Money) -> Amount {
        Amount { micros: money.micros(), currency: money.currency() }
    }
}

impl From<Amount> for Money {
    fn from(amount: Amount) -> Money {
        Money::new(amount.micros, amount.currency)
    }
}

impl From<Question> for Message {
    fn from(question: Question) -> Message {
        Message {
            fingerprint: question.fingerprint().to_string(),
            id: question.id,
            asked_at: question.asked_at,
            origin: question.origin,
            method: question.method,
            path: question.path,
            price: question.price.into(),
            top_up: question.top_up.map(Amount::from),
            reason: question.reason,
        }
    }
}

impl TryFrom<Message> for Question {
    type Error = QuestionError;

    fn try_from(message: Message) -> Result<Question, QuestionError> {
        let question = Question {
            id: message.id,
            asked_at: message.asked_at,
            origin: message.origin,
            method: message.method,
            path: message.path,
            price: message.price.into(),
            top_up: message.top_up.map(Money::from),
            reason: message.reason,
        };
        let own = question.fingerprint().to_string() == message.fingerprint;
        own.then_some(question).ok_or(QuestionError::Fingerprint)
    }
}
