//! Verifications and charges: what is counted by card, and for all strangers together.

use std::time::Duration;

use farebox_ledger::book::{Entry, TopUpState};
use farebox_ledger::counters::{Count, Counter};
use farebox_ledger::{Book, StoreError};
use farebox_protocol::{ErrorCode, PayerId};

use super::breaker::STRANGER_LATER;
use super::{Asker, Endpoint, Gate};
use crate::payments::Shared;
use crate::refusal::Refusal;
use crate::top_up::{Ask, Ended};

const HOUR_SECONDS: u32 = 3_600;
const DAY_SECONDS: u32 = 24 * HOUR_SECONDS;
/// How old the first charge of a card is when the card is no longer new.
const NEW_FOR_MILLIS: i64 = 7 * 24 * 3_600 * 1_000;
/// After which time a card that was tried too often may be tried again.
const CARD_LATER: Duration = Duration::from_secs(3_600);

/// Whether it was admitted, if the counters answered.
pub(super) type Admitted = Result<Result<(), Refusal>, StoreError>;

/// How a charge ended, as far as it is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Paid,
    Declined,
    /// No bank was asked.
    NotTried,
    Unknown,
}

impl Ending {
    fn of(ended: &Ended) -> Ending {
        match ended {
            Ok(Some(_)) => Ending::Paid,
            Ok(None) => Ending::NotTried,
            Err(failed) => match failed.refusal.code {
                ErrorCode::CardDeclined | ErrorCode::AuthenticationRequired => Ending::Declined,
                ErrorCode::PaymentPending => Ending::Unknown,
                _ => Ending::NotTried,
            },
        }
    }
}

impl Gate {
    /// Admits the verification of a card. When it is over, that must be reported.
    pub(crate) async fn admit_verification(
        &self,
        asker: Asker,
        card: PayerId,
        payer: PayerId,
    ) -> Result<(), Refusal> {
        self.use_card(asker, card, payer).await?;
        let admitted = self.turn(Endpoint::SetupIntents, asker).await;
        if admitted.is_err() {
            self.cleared(asker);
        }
        admitted
    }

    /// Admits the use of a card at its bank, which `payer` wants.
    async fn use_card(&self, asker: Asker, card: PayerId, payer: PayerId) -> Result<(), Refusal> {
        self.holder(asker).await?;
        // Whoever shows a card that was tried too often is not cleared: its look-up took the turn
        // of somebody else.
        self.answered(asker, self.card(card, payer).await)
    }

    /// Without counters strangers wait, and whoever is known goes on.
    pub(super) fn answered(&self, asker: Asker, admitted: Admitted) -> Result<(), Refusal> {
        match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                tracing::error!(%error, "the counters of cards do not answer");
                let refused = ErrorCode::LedgerUnavailable.into();
                if asker.is_known() { Ok(()) } else { Err(refused) }
            }
        }
    }

    async fn card(&self, card: PayerId, payer: PayerId) -> Admitted {
        let later = Ok(Err(Refusal::later(CARD_LATER)));
        let most = i64::from(self.limits.card_declines_per_day);
        for of in both(card, payer) {
            if self.counters.total(declines(Some(of), DAY_SECONDS)).await? >= most {
                return later;
            }
        }
        let uses = Counter { name: "uses", of: Some(card), window_seconds: HOUR_SECONDS };
        match self.counters.add(uses, 1, self.limits.card_per_hour.into()).await? {
            Count::Added { .. } => Ok(Ok(())),
            Count::Full { .. } => later,
        }
    }

    /// Counts how a charge ended.
    async fn count(&self, ask: &Ask, ending: Ending) -> Result<(), StoreError> {
        if matches!(ending, Ending::Paid | Ending::NotTried) {
            self.cleared(ask.asker);
        }
        let add = |counter| async move { self.counters.add(counter, 1, i64::MAX).await.map(drop) };
        if ending == Ending::Declined {
            for of in both(ask.card.book, ask.payer) {
                add(declines(Some(of), DAY_SECONDS)).await?;
            }
        }
        if !ask.asker.is_known() && matches!(ending, Ending::Paid | Ending::Declined) {
            let window = self.limits.breaker_window_seconds;
            if ending == Ending::Declined {
                add(declines(None, window)).await?;
            }
            add(charges(window)).await?;
        }
        if matches!(ending, Ending::Declined | Ending::NotTried) {
            let name = taken(ask);
            let _ = self.counters.add(day(&name, ask), -ask.amount.get(), 0).await?;
        }
        Ok(())
    }
}

impl Shared {
    /// Admits a charge. How it ended must be reported.
    pub(crate) async fn admit_charge(&self, ask: &Ask) -> Result<(), Refusal> {
        self.gate.use_card(ask.asker, ask.card.book, ask.payer).await?;
        let admitted = self.charge_turn(ask).await;
        if admitted.is_err() {
            self.gate.cleared(ask.asker);
        }
        admitted
    }

    async fn charge_turn(&self, ask: &Ask) -> Result<(), Refusal> {
        // This one is among them.
        if !ask.asker.is_known() && self.drivers.len() > self.gate.limits.charges_open_max {
            return Err(Refusal::later(STRANGER_LATER));
        }
        self.gate.turn(Endpoint::PaymentIntents, ask.asker).await?;
        let admitted = self.within_the_day(ask).await;
        self.gate.answered(ask.asker, admitted)
    }

    /// Reports how an admitted charge ended.
    pub(crate) async fn report(&self, ask: &Ask, ended: &Ended) {
        if let Err(error) = self.gate.count(ask, Ending::of(ended)).await {
            tracing::error!(%error, "the outcome of a charge was not counted");
        }
    }

    /// Counts what is taken from a card in 24 hours. A new one has a limit.
    async fn within_the_day(&self, ask: &Ask) -> Admitted {
        let (counters, name, amount) = (&self.gate.counters, taken(ask), ask.amount.get());
        let most = self.new_card_per_day(ask.currency).map_or(i64::MAX, |most| most.get());
        if let Count::Added { .. } = counters.add(day(&name, ask), amount, most).await? {
            return Ok(Ok(()));
        }
        let Ok(book) = self.whole_book(&ask.payer).await else {
            return Ok(Err(ErrorCode::LedgerUnavailable.into()));
        };
        if is_new(&book, ask.card.book, self.clock.now().millis()) {
            return Ok(Err(Refusal::later(CARD_LATER)));
        }
        counters.add(day(&name, ask), amount, i64::MAX).await.map(|_| Ok(()))
    }
}

/// Whether no charge of a card that succeeded is old.
fn is_new(book: &Book, card: PayerId, now: i64) -> bool {
    let is_old = |entry: &Entry| match entry {
        Entry::TopUp(top_up) => {
            let succeeded = matches!(top_up.state, TopUpState::Succeeded { .. });
            succeeded && top_up.card == card && top_up.opened.millis() + NEW_FOR_MILLIS <= now
        }
        _ => false,
    };
    !book.entries.values().any(is_old)
}

/// A card and the payer that wants to use it, if it is not the card's own.
fn both(card: PayerId, payer: PayerId) -> impl Iterator<Item = PayerId> {
    std::iter::once(card).chain(Some(payer).filter(|payer| *payer != card))
}

/// Declines of one card or payer, or of all strangers.
pub(super) fn declines(of: Option<PayerId>, window_seconds: u32) -> Counter<'static> {
    Counter { name: "declines", of, window_seconds }
}

/// Charges of strangers whose outcome is known.
pub(super) fn charges(window_seconds: u32) -> Counter<'static> {
    Counter { name: "charges", of: None, window_seconds }
}

/// What was taken from a card, in micros.
fn taken(ask: &Ask) -> String {
    format!("taken.{}", ask.currency)
}

fn day<'a>(name: &'a str, ask: &Ask) -> Counter<'a> {
    Counter { name, of: Some(ask.card.book), window_seconds: DAY_SECONDS }
}
