//! Random commands almost always name what does not exist. Aiming gives them the names, numbers
//! and versions that a real caller would have read from the book.

use farebox_protocol::{Currency, Micros, PayerId};

use crate::book::{Book, ClaimKey, Entry, EntryId, Line, Reservation, Totals};
use crate::clock::Timestamp;
use crate::machine::{Command, Proof, Then};
use crate::{ReservationId, TopUp};

/// The book that a history has come to, as far as can be told without its store.
#[derive(Default)]
pub(super) struct Aim {
    book: Book,
    now: i64,
}

/// A top-up that pays for what follows.
pub(super) fn funded() -> Vec<Command> {
    let (currency, number) = (Currency::USD, 1);
    let received = Micros::new(400_000).unwrap_or_default();
    let (card, call) = (PayerId::from_bytes([9; 32]), "call".to_owned());
    let Ok(method) = "pm_1".parse() else { return Vec::new() };
    let totals = Totals { received, ..Totals::default() };
    let (intent, seen_version) = ("pi_1".to_owned(), 0);
    vec![
        Command::OpenTopUp { currency, number, needed: None, method, card, call },
        Command::Observe { currency, number, intent, seen_version, totals },
    ]
}

impl Aim {
    pub(super) fn step(&mut self, command: &Command, millis: i64) {
        self.now += millis;
        self.book.apply(command, Timestamp::from_millis(self.now), |_, _| ());
    }

    /// The command, with names and numbers that fit the book.
    pub(super) fn at(&self, command: Command) -> Command {
        match command {
            Command::Reserve { id, currency, amount, ttl, proof, claim } => {
                let proof = self.proof(proof);
                let is_free = |id: &ReservationId| self.open().all(|(_, open, _)| open != *id);
                let id = (0..6).map(ReservationId::from).find(is_free).unwrap_or(id);
                let most = Micros::new(self.book.head.account(currency).available.get() / 3);
                let most = most.unwrap_or_default();
                let amount = if most > Micros::ZERO { amount.min(most) } else { amount };
                Command::Reserve { id, currency, amount, ttl, proof, claim }
            }
            Command::Expire { id } => {
                let mut ids: Vec<_> = self.book.entries.iter().collect();
                ids.retain(|(_, entry)| !matches!(entry, Entry::TopUp(_)));
                Command::Expire { id: ids.iter().map(|(id, _)| **id).min().unwrap_or(id) }
            }
            Command::Unfreeze { reason } => {
                let reason = self.book.head.frozen.first().cloned().unwrap_or(reason);
                Command::Unfreeze { reason }
            }
            Command::Settle { id, claim, lines, then } => self.settle(id, claim, lines, then),
            Command::OpenTopUp { currency, needed, method, card, .. } => {
                let number = self.book.head.account(currency).ended + 1;
                let call = format!("call {number}");
                Command::OpenTopUp { currency, number, needed, method, card, call }
            }
            Command::Observe { currency, number, totals, .. } => {
                let (number, top_up) = self.top_up(currency, number, |_| true);
                let seen_version = top_up.map_or(0, |top_up| top_up.version);
                let totals = top_up.map_or(totals, |top_up| later(top_up, totals));
                let intent = format!("pi_{number}");
                Command::Observe { currency, number, intent, seen_version, totals }
            }
            Command::FailTopUp { currency, number, code } => {
                let number = self.book.head.account(currency).open.unwrap_or(number);
                Command::FailTopUp { currency, number, code }
            }
            Command::OpenRefund { currency, number, amount, .. } => {
                let pays = |top_up: &TopUp| top_up.totals.net().is_some_and(|n| n > Micros::ZERO);
                let (number, top_up) = self.top_up(currency, number, pays);
                let refund = top_up.map_or(1, |top_up| top_up.refunds + 1);
                let call = format!("refund {refund}");
                Command::OpenRefund { currency, number, refund, amount, call }
            }
            Command::CloseRefund { currency, number, refund: drawn, seen_version, totals } => {
                let (number, top_up) = self.top_up(currency, number, |t| t.refund.is_some());
                let refund = top_up.map_or(1, |top_up| top_up.refunds + 1);
                let fits = top_up.filter(|_| drawn < 3); // some were read too early
                let seen_version = fits.map_or(seen_version, |top_up| top_up.version);
                let totals = top_up.map_or(totals, |top_up| refunded(top_up, totals));
                Command::CloseRefund { currency, number, refund, seen_version, totals }
            }
            Command::IssueCredential { label, limit, .. } => {
                let number = self.book.head.issued.saturating_add(1);
                Command::IssueCredential { number, label, limit }
            }
            Command::RevokeCredential { number } => {
                let number = self.book.head.credentials.keys().next().copied().unwrap_or(number);
                Command::RevokeCredential { number }
            }
            other => other,
        }
    }

    fn proof(&self, proof: Proof) -> Proof {
        let head = &self.book.head;
        match proof {
            Proof::Credential { number, .. } => {
                let known = number.and_then(|_| head.credentials.keys().next_back().copied());
                Proof::Credential { generation: head.generation, number: known }
            }
            Proof::Method(_) if head.known.is_empty() => {
                Proof::Credential { generation: head.generation, number: None }
            }
            Proof::Method(method) => Proof::Method(head.known.first().cloned().unwrap_or(method)),
        }
    }

    /// What is set aside for requests.
    fn open(&self) -> impl Iterator<Item = (Option<ClaimKey>, ReservationId, Reservation)> {
        self.book.entries.iter().filter_map(|(entry_id, entry)| {
            let open = entry.reservation()?.clone();
            match (*entry_id, entry) {
                (EntryId::Claim(key), Entry::Claim(found)) => Some((Some(key), found.id, open)),
                (EntryId::Reservation(id), _) => Some((None, id, open)),
                _ => None,
            }
        })
    }

    fn settle(
        &self,
        id: ReservationId,
        claim: Option<ClaimKey>,
        lines: Vec<Line>,
        then: Then,
    ) -> Command {
        let keyed = claim.is_some();
        let fits = |(key, id, _): &(Option<ClaimKey>, _, _)| (key.is_some() == keyed, *id, *key);
        let Some((claim, id, open)) = self.open().max_by_key(fits) else {
            return Command::Settle { id, claim, lines, then };
        };
        Command::Settle { id, claim, lines: risen(&open, &lines), then }
    }

    /// A top-up of the account that fits, or the one of the number.
    fn top_up(
        &self,
        currency: Currency,
        number: u64,
        fits: impl Fn(&TopUp) -> bool,
    ) -> (u64, Option<&TopUp>) {
        let find = |number| match self.book.entries.get(&EntryId::TopUp(currency, number)) {
            Some(Entry::TopUp(top_up)) => Some(&**top_up),
            _ => None,
        };
        let account = self.book.head.account(currency);
        let numbers = account.open.into_iter().chain((1..=account.ended).rev().take(6));
        let first = numbers.into_iter().find(|n| find(*n).is_some_and(&fits));
        let number = first.filter(|_| find(number).is_none_or(|t| !fits(t))).unwrap_or(number);
        (number, find(number))
    }
}

/// Totals that Stripe may tell after those that the book knows.
fn later(top_up: &TopUp, totals: Totals) -> Totals {
    let received = totals.received.max(top_up.totals.received);
    let within = |total: Micros| total.max(Micros::ZERO).min(received);
    Totals { received, refunded: within(totals.refunded), withdrawn: within(totals.withdrawn) }
}

/// Totals after the open refund: it was paid out, or it was refused.
fn refunded(top_up: &TopUp, totals: Totals) -> Totals {
    let known = top_up.totals;
    let left = top_up.refund.as_ref().map_or(Micros::ZERO, |refund| refund.left);
    let paid_out = totals.refunded.get() % 3 != 0;
    let sum = known.refunded.checked_add(left).filter(|_| paid_out);
    let withdrawn = totals.withdrawn.min(known.withdrawn); // some are below zero
    Totals { refunded: sum.unwrap_or(known.refunded), withdrawn, ..known }
}

/// Lines that a metered request may have come to: each total at least as high as it was, and all
/// together at most what is set aside.
fn risen(open: &Reservation, lines: &[Line]) -> Vec<Line> {
    let mut left = open.left();
    let mut risen: Vec<Line> = Vec::new();
    for line in lines.iter().filter(|line| line.spent >= Micros::ZERO) {
        let known = open.spent.iter().chain(&risen).rfind(|known| known.route == line.route);
        let known = known.map_or(Micros::ZERO, |known| known.spent);
        let share = Micros::new(left.get() / 3).unwrap_or_default();
        let more = line.spent.min(share);
        left = left.checked_sub(more).unwrap_or_default();
        let Some(spent) = known.checked_add(more) else { continue };
        risen.retain(|known| known.route != line.route);
        risen.push(Line { route: line.route.clone(), spent });
    }
    risen
}
