//! What an answer means: for the hold, for the journal, and for the caller.
//!
//! Whatever left the card, or may have, is closed in the budget before it leaves the journal.
//! What goes back leaves the journal first. A crash between the two counts too much, never too
//! little, and the next turn of the origin mends it.

use std::sync::Arc;

use farebox_protocol::{ErrorCode, Money, PaymentResponse, TopUpId};
use http::StatusCode;
use reqwest::Response;
use tracing::{debug, info, warn};

use crate::answer::{self, Verdict};
use crate::books::Books;
use crate::call::Ended;
use crate::error::PaymentError;
use crate::event::Event;
use crate::middleware::PaymentMiddleware;
use crate::origin::Origin;
use crate::pay::Opened;
use crate::receipt::Receipt;
use crate::spending::Cost;
use crate::state::Flight;
use crate::visit::Visit;

impl PaymentMiddleware {
    /// What the answer to a payment by card means. The origin's turn ends with it.
    pub(crate) async fn close(
        &self,
        visit: &Visit<'_>,
        opened: Opened,
        mut response: Response,
        verdict: Verdict,
    ) -> Result<Response, PaymentError> {
        let origin = visit.origin.key();
        let amount = opened.unresolved.hold.amount();
        self.purse.state.set_sent(&visit.gate); // also whoever began after the payment was sent looks again
        match verdict {
            Verdict::Accepted(told) => {
                self.accept(visit, &opened, &mut response, &told).await;
                Ok(response)
            }
            Verdict::Refused(code, about)
                if opened.fresh || ends_top_up(code) || opened.is_about(about) =>
            {
                Err(self.refuse(visit, &opened, code, about).await)
            }
            Verdict::AlreadyCharged => Err(self.charged_before(visit, &opened).await),
            Verdict::AskedAgain => {
                warn!(origin, "paid, and asked to pay again");
                self.tell(visit, || Event::Unknown { amount });
                self.asked_again(visit, &opened).await;
                Err(visit.call.end(Ended::PaidButRefused))
            }
            Verdict::Pending(id) => {
                info!(origin, "the charge is pending");
                self.tell(visit, || Event::Unknown { amount });
                self.pending(visit, &opened, id).await;
                Err(PaymentError::Unknown)
            }
            Verdict::Untold => {
                warn!(origin, "served without a word about the payment: its outcome is unknown");
                self.tell(visit, || Event::Unknown { amount });
                Ok(response)
            }
            // A refusal of the repeat says nothing about the payment that it repeats.
            Verdict::Refused(..) | Verdict::Unknown => {
                warn!(origin, "the outcome of a payment is unknown");
                self.tell(visit, || Event::Unknown { amount });
                Err(PaymentError::Unknown)
            }
        }
    }

    async fn accept(
        &self,
        visit: &Visit<'_>,
        opened: &Opened,
        response: &mut Response,
        told: &PaymentResponse,
    ) {
        let topped_up = told.charge_id.is_some() || told.top_up_id.is_some();
        let amount = opened.unresolved.hold.amount();
        if opened.ahead && !topped_up {
            visit.gate.set_unwanted((self.clock)()); // with the turn: who waits for it looks again
        }
        if opened.own_hold && !topped_up {
            // Credit that was there already paid for it.
            self.return_hold(visit, opened, Some(told)).await;
        } else {
            self.count(visit, opened, Some(told)).await;
        }
        self.purse.steps.at("closed");
        let receipt = receipt(told, opened.price, topped_up.then_some(amount));
        let remaining = receipt.remaining;
        info!(
            origin = visit.origin.key(),
            top_up = receipt.top_up.map(tracing::field::display),
            %remaining,
            "paid by card"
        );
        if let Some(amount) = receipt.top_up {
            self.tell(visit, || Event::ToppedUp { amount, remaining });
        }
        self.spent(visit, &receipt, opened.price);
        if let Err(error) = self.tally.flush().await {
            warn!(origin = visit.origin.key(), %error, "what was spent was not written down yet");
        }
        if topped_up && opened.first && opened.fresh {
            self.short_credited(visit, &receipt, opened.price, amount);
        }
        response.extensions_mut().insert(receipt);
    }

    async fn refuse(
        &self,
        visit: &Visit<'_>,
        opened: &Opened,
        code: ErrorCode,
        about: Option<TopUpId>,
    ) -> PaymentError {
        let refused_card =
            matches!(code, ErrorCode::CardDeclined | ErrorCode::AuthenticationRequired);
        // A repeat that was refused otherwise leaves open what became of the first payment.
        if opened.own_hold || refused_card || opened.is_about(about) {
            self.return_hold(visit, opened, None).await;
        } else {
            self.count(visit, opened, None).await;
        }
        if code == ErrorCode::PriceAboveMaximum {
            let (at, route) = (visit.origin.clone(), visit.route.clone());
            let forget = move |books: &mut Books| {
                if let Some(known) = books.known(&at) {
                    known.forget_price(&route);
                }
            };
            self.purse.state.keep(forget).await;
        }
        self.purse.steps.at("closed");
        info!(origin = visit.origin.key(), code = code.as_str(), "the payment was refused");
        self.tell(visit, || Event::Declined { code });
        if opened.ahead {
            visit.gate.set_unwanted((self.clock)());
            return PaymentError::Declined(code);
        }
        if refused_card {
            visit.gate.set_refused(code);
        }
        visit.call.end(Ended::Declined(code))
    }

    /// The server has served this call before. A payment that was made for it is counted; one that
    /// was sent for the first time was not taken.
    async fn charged_before(&self, visit: &Visit<'_>, opened: &Opened) -> PaymentError {
        if opened.own_hold {
            self.return_hold(visit, opened, None).await;
        } else if self.glimpse(visit).credential.is_some() {
            self.count(visit, opened, None).await;
        }
        // Without a credential the payment stays: another call goes on with it, and is told one.
        info!(origin = visit.origin.key(), "this call was charged before");
        visit.call.end(Ended::AlreadyCharged)
    }

    async fn pending(&self, visit: &Visit<'_>, opened: &Opened, id: Option<TopUpId>) {
        let (state, at) = (Arc::clone(&self.purse.state), visit.origin.clone());
        let amend = move |books: &mut Books| {
            let Some(known) = books.known(&at) else { return };
            known.extended = true;
            if let Some(unresolved) = &mut known.unresolved {
                unresolved.top_up_id = id.or(unresolved.top_up_id);
                unresolved.asked_again = false;
            }
        };
        opened.finish(async move { state.keep(amend).await }).await;
    }

    /// The money of this payment left the card, or must be counted as if it had.
    async fn count(&self, visit: &Visit<'_>, opened: &Opened, told: Option<&PaymentResponse>) {
        let (purse, at, told) = (self.purse.clone(), visit.origin.clone(), told.cloned());
        let id = opened.unresolved.id;
        let count = async move {
            if let Err(error) = purse.budget.close(id).await {
                warn!(origin = at.key(), %error, "a hold that counts as spent is still open");
            }
            purse.steps.at("counted");
            let resolve = move |books: &mut Books| {
                if let Some(told) = &told {
                    remember(books, &at, told);
                }
                if let Some(known) = books.known(&at) {
                    known.unresolved = None;
                }
            };
            purse.state.keep(resolve).await;
        };
        opened.finish(count).await;
    }

    /// The server says that nothing was taken under this payment's hold. It goes back if the
    /// policy trusts the server's word, and otherwise stays counted until the owner takes it back.
    async fn return_hold(
        &self,
        visit: &Visit<'_>,
        opened: &Opened,
        told: Option<&PaymentResponse>,
    ) {
        let (at, told) = (visit.origin.clone(), told.cloned());
        let name = visit.call.name().cloned();
        let (id, trusted) = (opened.unresolved.id, self.trusts(visit));
        let learn = move |books: &mut Books| {
            if let Some(told) = &told {
                remember(books, &at, told);
            }
            if let Some(name) = name.as_ref().filter(|_| trusted) {
                books.unset_paid(name);
            }
            if let Some(known) = books.known(&at).filter(|_| !trusted) {
                known.unresolved = None;
                known.deny(id);
            }
        };
        let (purse, origin) = (self.purse.clone(), visit.origin.clone());
        let returned = async move {
            if trusted {
                purse.give_back(&origin, id, None, learn).await;
            } else {
                purse.state.keep(learn).await;
            }
        };
        opened.finish(returned).await;
    }

    /// The answer to a payment from credit.
    pub(crate) async fn credited(
        &self,
        visit: &Visit<'_>,
        response: &mut Response,
        max: Money,
        flight: &Flight,
    ) {
        if response.status() == StatusCode::PAYMENT_REQUIRED {
            return;
        }
        let told = answer::payment_response(response).filter(|told| told.success);
        let Some(told) = told else { return };
        if self.purse.state.with(|books| is_news(books, &visit.origin, &told)) {
            let (at, told) = (visit.origin.clone(), told.clone());
            self.purse.state.keep(move |books| remember(books, &at, &told)).await;
        }
        let receipt = receipt(&told, max, None);
        debug!(origin = visit.origin.key(), remaining = %receipt.remaining, "paid from credit");
        let before = visit.gate.remaining().filter(|_| flight.was_alone());
        let fell = before.and_then(|before| difference(before, receipt.remaining));
        self.spent(visit, &receipt, max);
        // A server of version 1 does not say what it took, but what is left.
        if let Some(fell) = fell.filter(|fell| receipt.charged.is_none() && exceeds(*fell, max)) {
            self.overcharged(visit, fell, max);
        }
        response.extensions_mut().insert(receipt);
    }

    /// What a served request cost, and whether that is what was said.
    fn spent(&self, visit: &Visit<'_>, receipt: &Receipt, max: Money) {
        let (charged, remaining) = (receipt.charged, receipt.remaining);
        visit.gate.set_remaining(remaining);
        self.tell(visit, || Event::Spent { charged, remaining });
        let (spent, assumed) = (charged.unwrap_or(max), charged.is_none());
        let cost = Cost { spent, assumed, topped_up: receipt.top_up, remaining };
        self.tally.count(visit.origin.key(), &cost, (self.clock)());
        if let Some(charged) = charged.filter(|charged| exceeds(*charged, max)) {
            self.overcharged(visit, charged, max);
        }
    }

    /// A first top-up must leave what it was for, less the price.
    fn short_credited(&self, visit: &Visit<'_>, receipt: &Receipt, price: Money, amount: Money) {
        let taken = difference(amount, receipt.remaining);
        if let Some(taken) = taken.filter(|taken| exceeds(*taken, price)) {
            self.overcharged(visit, taken, price);
        }
    }

    /// A server that takes more than `maxAmount` breaks the protocol; its owner should hear of it.
    fn overcharged(&self, visit: &Visit<'_>, taken: Money, allowed: Money) {
        warn!(origin = visit.origin.key(), %taken, %allowed, "charged more than was allowed");
        self.tell(visit, || Event::Overcharged { taken, allowed });
    }

    async fn asked_again(&self, visit: &Visit<'_>, opened: &Opened) {
        let (state, at) = (Arc::clone(&self.purse.state), visit.origin.clone());
        let amend = move |books: &mut Books| {
            if let Some(unresolved) = books.known(&at).and_then(|known| known.unresolved.as_mut()) {
                unresolved.asked_again = true;
            }
        };
        opened.finish(async move { state.keep(amend).await }).await;
    }
}

fn exceeds(taken: Money, allowed: Money) -> bool {
    taken.currency() != allowed.currency() || taken.micros() > allowed.micros()
}

/// `before` less `after`, where they are of one currency.
fn difference(before: Money, after: Money) -> Option<Money> {
    let fell = before.micros().checked_sub(after.micros())?;
    (before.currency() == after.currency()).then(|| Money::new(fell, before.currency()))
}

/// Whether an accepted payment says something new of its server.
fn is_news(books: &Books, origin: &Origin, told: &PaymentResponse) -> bool {
    let known = books.glimpse(origin, "");
    let credential = told.client_id.parse().ok();
    credential.is_some() && credential != known.credential
        || told.charged.is_some() && !known.extended
}

/// Keeps the credential of an accepted payment.
fn remember(books: &mut Books, origin: &Origin, told: &PaymentResponse) {
    let Some(known) = books.entry(origin) else { return };
    known.credential = told.client_id.parse().ok().or_else(|| known.credential.take());
    known.extended |= told.charged.is_some();
}

/// Codes that end a top-up that was sent before.
fn ends_top_up(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CardDeclined
            | ErrorCode::AuthenticationRequired
            | ErrorCode::InvalidPayment
            | ErrorCode::TopUpBelowMinimum
            | ErrorCode::TopUpAboveMaximum
    )
}

fn receipt(told: &PaymentResponse, price: Money, top_up: Option<Money>) -> Receipt {
    let currency = told.currency.unwrap_or(price.currency());
    Receipt {
        charged: told.charged.map(|units| Money::new(units.micros(), currency)),
        remaining: Money::new(told.credits_remaining.micros(), currency),
        top_up,
        charge_id: told.charge_id.clone(),
        top_up_id: told.top_up_id,
    }
}
