//! Verifications and charges: what is counted by card, and for all strangers together.

use std::time::Duration;

use farebox_ledger::book::{Entry, TopUpState};
use farebox_ledger::counters::{Count, Counter};
use farebox_ledger::{Book, StoreError};
use farebox_protocol::{ErrorCode, PayerId};

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
/// After which time a stranger may be one of those who are tried.
const STRANGER_LATER: Duration = Duration::from_secs(60);

/// Whether it was admitted, if the counters answered.
type Admitted = Result<Result<(), Refusal>, StoreError>;

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
    /// Admits the use of a card at its bank, which `payer` wants.
    async fn use_card(&self, asker: Asker, card: PayerId, payer: PayerId) -> Result<(), Refusal> {
        self.attempt(asker)?;
        self.answered(asker, self.card(card, payer).await)?;
        match asker {
            Asker::Payer(_) => Ok(()),
            Asker::Stranger(_) => self.answered(asker, self.breaker().await),
        }
    }

    /// Without counters strangers wait, and whoever is known goes on.
    fn answered(&self, asker: Asker, admitted: Admitted) -> Result<(), Refusal> {
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

    /// Whether strangers are admitted, or this one is, to see how it goes.
    async fn breaker(&self) -> Admitted {
        let window = self.limits.breaker_window_seconds;
        let (charges, declined) = tokio::try_join!(
            self.counters.total(charges(window)),
            self.counters.total(declines(None, window))
        )?;
        let is_judged = charges >= i64::from(self.limits.breaker_charges_min);
        let most = charges.saturating_mul(self.limits.breaker_declines_percent.into());
        if !is_judged || declined.saturating_mul(100) <= most {
            return Ok(Ok(()));
        }
        let probes = Counter { name: "probes", of: None, window_seconds: 60 };
        let most = self.limits.breaker_probes_per_minute.into();
        Ok(match self.counters.add(probes, 1, most).await? {
            Count::Added { .. } => Ok(()),
            Count::Full { .. } => Err(Refusal::later(STRANGER_LATER)),
        })
    }

    /// Counts how a charge ended.
    async fn count(&self, ask: &Ask, ending: Ending) -> Result<(), StoreError> {
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
    /// Admits the verification of a card.
    pub(crate) async fn admit_verification(
        &self,
        asker: Asker,
        card: PayerId,
        payer: PayerId,
    ) -> Result<(), Refusal> {
        self.gate.use_card(asker, card, payer).await?;
        self.gate.turn(Endpoint::SetupIntents, asker).await
    }

    /// Admits a charge. How it ended must be reported.
    pub(crate) async fn admit_charge(&self, ask: &Ask) -> Result<(), Refusal> {
        // This one is among them.
        if !ask.asker.is_known() && self.drivers.len() > self.gate.limits.charges_open_max {
            return Err(Refusal::later(STRANGER_LATER));
        }
        self.gate.use_card(ask.asker, ask.card.book, ask.payer).await?;
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
fn declines(of: Option<PayerId>, window_seconds: u32) -> Counter<'static> {
    Counter { name: "declines", of, window_seconds }
}

/// Charges of strangers whose outcome is known.
fn charges(window_seconds: u32) -> Counter<'static> {
    Counter { name: "charges", of: None, window_seconds }
}

/// What was taken from a card, in micros.
fn taken(ask: &Ask) -> String {
    format!("taken.{}", ask.currency)
}

fn day<'a>(name: &'a str, ask: &Ask) -> Counter<'a> {
    Counter { name, of: Some(ask.card.book), window_seconds: DAY_SECONDS }
}
