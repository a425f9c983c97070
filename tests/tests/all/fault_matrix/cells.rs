//! The cells: what goes wrong, at which call, and what is required of it.

use farebox_sandbox::{Fault, FaultKind};

use super::words::{Heard, Word};

/// Beyond the patience of every caller; the longest is 30 seconds.
const LATE_MILLIS: u64 = 40_000;

pub(super) const FAULTS: [(&str, FaultKind); 13] = [
    ("the answer comes after 40 s", FaultKind::Latency { millis: LATE_MILLIS }),
    ("429", FaultKind::RateLimited),
    ("409, the key is in use", FaultKind::Conflict),
    ("500, saved; nothing ran", FaultKind::ServerError { ran: false }),
    ("500, saved; it ran", FaultKind::ServerError { ran: true }),
    ("401", FaultKind::Unauthorized),
    ("connection reset before it ran", FaultKind::ResetBefore),
    ("connection reset after it ran", FaultKind::ResetAfter),
    ("half of the JSON", FaultKind::Truncated),
    ("a proxy's 502 before it ran", FaultKind::BadGateway { ran: false }),
    ("a proxy's 502 after it ran", FaultKind::BadGateway { ran: true }),
    ("no answer, nothing ran", FaultKind::Stall { ran: false }),
    ("no answer, it ran", FaultKind::Stall { ran: true }),
];

/// How long the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// One request meets it.
    Once,
    /// Every request meets it until it is cleared, just before the sweep.
    UntilTheSweep,
}

/// A card, by what Stripe does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Pays,
    Declined,
    /// The bank wants the holder, and Stripe refuses as it was asked to.
    Wanted,
    /// The same, where Stripe answers with the intent that waits.
    Awaited,
}

/// A call of a purchase that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    LookUp,
    Customer,
    Charge(Holder),
    Cancel,
    Read,
    /// The list that decides after a saved 500.
    List {
        /// Whether the charge ran.
        ran: bool,
    },
    /// A second client shows a card whose book has credit.
    Verify,
    /// Its card is read again for what the bank said about the code.
    Reread,
    /// A card that paid beside a credential is read again before it leads to the book.
    Claim,
}

pub(super) const CALLS: [Call; 13] = [
    Call::LookUp,
    Call::Customer,
    Call::Charge(Holder::Pays),
    Call::Charge(Holder::Declined),
    Call::Charge(Holder::Wanted),
    Call::Charge(Holder::Awaited),
    Call::Cancel,
    Call::Read,
    Call::List { ran: true },
    Call::List { ran: false },
    Call::Verify,
    Call::Reread,
    Call::Claim,
];

impl Call {
    /// The column's head.
    pub(super) fn name(self) -> &'static str {
        match self {
            Call::LookUp => "look-up",
            Call::Customer => "customer",
            Call::Charge(Holder::Pays) => "charge",
            Call::Charge(Holder::Declined) => "charge of a declined card",
            Call::Charge(Holder::Wanted) => "charge that wants the holder",
            Call::Charge(Holder::Awaited) => "charge that awaits the holder",
            Call::Cancel => "cancel",
            Call::Read => "read after cancel",
            Call::List { ran: true } => "list after a 500 that ran",
            Call::List { ran: false } => "list after a 500 that did not",
            Call::Verify => "verification",
            Call::Reread => "look-up after verification",
            Call::Claim => "look-up of a card beside a credential",
        }
    }

    /// What makes Stripe's part of the purchase take the way on which the call is.
    pub(super) fn holder(self) -> Holder {
        match self {
            Call::Charge(holder) => holder,
            Call::Cancel | Call::Read => Holder::Awaited,
            _ => Holder::Pays,
        }
    }

    /// The fault before this one, without which the call is not made.
    pub(super) fn leads_there(self) -> Option<Fault> {
        let Call::List { ran } = self else { return None };
        Some(Fault::at("POST", "/v1/payment_intents", FaultKind::ServerError { ran }))
    }

    /// The fault at this call.
    pub(super) fn fault(self, kind: FaultKind, span: Span) -> Fault {
        let (method, path, skip) = match self {
            Call::LookUp => ("GET", "/v1/payment_methods/*", 0),
            Call::Reread | Call::Claim => ("GET", "/v1/payment_methods/*", 1),
            Call::Customer => ("POST", "/v1/customers", 0),
            Call::Charge(_) => ("POST", "/v1/payment_intents", 0),
            Call::Cancel => ("POST", "/v1/payment_intents/*/cancel", 0),
            Call::Read => ("GET", "/v1/payment_intents/*", 0),
            Call::List { .. } => ("GET", "/v1/payment_intents", 0),
            Call::Verify => ("POST", "/v1/setup_intents", 0),
        };
        let times = if span == Span::Once { 1 } else { u32::MAX };
        Fault::at(method, path, kind).skip(skip).times(times)
    }
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) call: Call,
    pub(super) kind: FaultKind,
    pub(super) span: Span,
}

/// Faults by what a caller can know of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    /// Turned away before anything ran, for now.
    Limited,
    /// Turned away before anything ran, for good.
    Refused,
    /// Stripe crashed, and says so for as long as it knows the key.
    Crashed,
    /// No answer of Stripe's; the next attempt gets one.
    Lost,
    /// No answer within anybody's patience.
    Silent,
}

impl Nature {
    /// And whether the call ran.
    fn of(kind: FaultKind) -> (Nature, bool) {
        match kind {
            FaultKind::RateLimited => (Nature::Limited, false),
            FaultKind::Unauthorized => (Nature::Refused, false),
            FaultKind::ServerError { ran } => (Nature::Crashed, ran),
            FaultKind::BadGateway { ran } => (Nature::Lost, ran),
            FaultKind::ResetAfter | FaultKind::Truncated => (Nature::Lost, true),
            FaultKind::Conflict | FaultKind::ResetBefore => (Nature::Lost, false),
            FaultKind::Latency { .. } => (Nature::Silent, true),
            FaultKind::Stall { ran } => (Nature::Silent, ran),
            other => unreachable!("{other:?} has no column"),
        }
    }
}

/// What is required of a cell: the first answer, and what becomes of the first try.
pub(super) type Expected = (Heard, Word);

/// The client is told that nothing was taken, which is so, and tries again.
const UNAVAILABLE: Expected = (Heard::Unavailable, Word::NothingTaken);

impl Cell {
    /// What the client is told at once, and what of the first try remains at the end. Nothing here
    /// is read off the code: a call that moves no money is repeated while its caller waits, or
    /// nothing is taken; a charge whose outcome is not known is pending and ends as the card does.
    pub(super) fn expected(self) -> Expected {
        let usual = self.call.without_fault();
        let late = (Heard::Pending, usual.1);
        let (nature, ran) = Nature::of(self.kind);
        let (in_time, in_vain) = match self.span {
            Span::Once => (usual, usual),
            Span::UntilTheSweep => (late, UNAVAILABLE),
        };
        match (self.call, nature) {
            // The charge is credited; whether the card alone finds the credit is a detail.
            (Call::Claim, _) => usual,
            // It stays so for a day; the charge itself proves who holds the card.
            (Call::Verify, Nature::Crashed) => (Heard::Served, Word::Credited),
            (
                Call::LookUp | Call::Customer | Call::Verify | Call::Reread,
                Nature::Limited | Nature::Crashed | Nature::Lost,
            )
            | (Call::Charge(_), Nature::Limited) => in_vain,
            (Call::LookUp | Call::Customer | Call::Verify | Call::Reread, _)
            | (Call::Charge(_), Nature::Refused) => UNAVAILABLE,
            // The list finds what was paid.
            (Call::Charge(Holder::Pays), Nature::Crashed) if ran => usual,
            (Call::Charge(_), Nature::Crashed) => UNAVAILABLE,
            (Call::Charge(_) | Call::Cancel | Call::Read, Nature::Silent) => late,
            // Not the answer to the cancellation decides but what the intent says.
            (Call::Cancel, _) if ran => usual,
            (Call::Charge(_) | Call::Cancel | Call::Read | Call::List { .. }, _) => in_time,
        }
    }
}

impl Call {
    /// What is heard, and what becomes of it, where nothing goes wrong at this call.
    fn without_fault(self) -> Expected {
        match (self, self.holder()) {
            (Call::List { ran: false }, _) => UNAVAILABLE,
            (Call::Verify | Call::Reread, _) => (Heard::Served, Word::FromCredit),
            (_, holder) => holder.wanted(),
        }
    }
}

impl Holder {
    /// Whether a client of this card may hear this last. A decline uses the PaymentMethod up, so
    /// whoever shows it again after it was declined unheard is told that it is none.
    pub(super) fn may_end(self, heard: Heard) -> bool {
        heard == self.wanted().0 || (self == Holder::Declined && heard == Heard::Invalid)
    }

    /// How a purchase with this card ends.
    pub(super) fn wanted(self) -> Expected {
        match self {
            Holder::Pays => (Heard::Served, Word::Credited),
            Holder::Declined => (Heard::Declined, Word::Declined),
            Holder::Wanted | Holder::Awaited => (Heard::HolderWanted, Word::HolderWanted),
        }
    }
}
