//! What a client is told, and what becomes of a try.

use std::fmt;

use farebox_ledger::TopUpState;
use farebox_protocol::ErrorCode;

use crate::support::Answer;

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Served,
    /// 503 `payment_pending`.
    Pending,
    /// 503 `processor_unavailable`.
    Unavailable,
    /// 402 `card_declined`.
    Declined,
    /// 402 `authentication_required`.
    HolderWanted,
    /// 402 `invalid_payment`.
    Invalid,
    /// Nothing: the server died.
    Nothing,
    /// Anything else, which is never right.
    Other(u16, Option<ErrorCode>),
}

impl Heard {
    pub(super) fn of(answer: &Answer) -> Heard {
        match (answer.status, answer.code()) {
            (200, _) => Heard::Served,
            (503, Some(ErrorCode::PaymentPending)) => Heard::Pending,
            (503, Some(ErrorCode::ProcessorUnavailable)) => Heard::Unavailable,
            (402, Some(ErrorCode::CardDeclined)) => Heard::Declined,
            (402, Some(ErrorCode::AuthenticationRequired)) => Heard::HolderWanted,
            (402, Some(ErrorCode::InvalidPayment)) => Heard::Invalid,
            (status, code) => Heard::Other(status, code),
        }
    }

    /// Whether the client comes back.
    pub(super) fn is_no_end(self) -> bool {
        matches!(self, Heard::Pending | Heard::Unavailable | Heard::Nothing)
    }
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Credited,
    FromCredit,
    Declined,
    HolderWanted,
    NothingTaken,
    /// Which no try may be at the end.
    Open,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Word::Credited => "credited",
            Word::FromCredit => "from credit",
            Word::Declined => "declined",
            Word::HolderWanted => "holder wanted",
            Word::NothingTaken => "nothing taken",
            Word::Open => "open",
        })
    }
}

impl From<&TopUpState> for Word {
    fn from(state: &TopUpState) -> Word {
        match state {
            TopUpState::Open { .. } => Word::Open,
            TopUpState::Succeeded { .. } => Word::Credited,
            TopUpState::Failed { code: ErrorCode::CardDeclined } => Word::Declined,
            TopUpState::Failed { code: ErrorCode::AuthenticationRequired } => Word::HolderWanted,
            TopUpState::Failed { .. } => Word::NothingTaken,
        }
    }
}
