//! A payment becomes a reservation, by way of a top-up if credit is short.

use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::machine::ClaimOf;
use farebox_ledger::{Command, Head, Outcome, Proof, Store as _};
use farebox_processor::Verification;
use farebox_protocol::{ClientId, Credential, ErrorCode, Micros, PayerId, Payment, TopUpId};
use http::request::Parts;

use crate::admission::{self, Asker};
use crate::payments::{Payments, Shared};
use crate::quote::Quote;
use crate::refusal::Refusal;
use crate::reservation::{NotReserved, Reservation, Wanted};
use crate::top_up::{ANSWER_WITHIN, Ask, Credited, Failed};
use crate::who::Card;

/// A request that is paid for, if it succeeds.
pub(crate) struct Paid {
    pub(crate) reservation: Reservation,
    /// The credential to spend with from now on.
    pub(crate) client_id: ClientId,
    /// The top-up that this request opened or went on with.
    pub(crate) top_up_id: Option<TopUpId>,
    /// Its charge at Stripe, if it succeeded.
    pub(crate) charge_id: Option<String>,
}

/// How often a request tries to reserve: its credit may be spent by others between a top-up and
/// the reservation.
const ROUNDS_MAX: usize = 8;
/// How long a request that credit already covers waits for a top-up of later ones.
const MIN_CREDIT_WITHIN: Duration = Duration::from_secs(5);

impl Payments {
    /// Sets the price aside, or says why not. A card is charged at most once on the way, and only
    /// if that pays for the request.
    pub(crate) async fn pay(
        &self,
        quote: &Quote,
        payment: Payment,
        claim: Option<ClaimOf>,
        parts: &Parts,
    ) -> Result<Paid, Refusal> {
        check_terms(quote, &payment)?;
        let mut purchase = Purchase::begin(&self.shared, quote, payment, claim, parts).await?;
        let run = purchase.run().await;
        let (top_up_id, charge_id) = match purchase.charged {
            Some(credited) => (Some(credited.id), Some(credited.intent)),
            // A top-up for `minCredit` may still be under way.
            None => (purchase.declined.and_then(Refusal::pending), None),
        };
        match run {
            Ok((reservation, client_id)) => {
                Ok(Paid { reservation, client_id, top_up_id, charge_id })
            }
            Err(refusal) => Err(refusal.after(top_up_id)),
        }
    }
}

/// What can be refused without asking who pays.
fn check_terms(quote: &Quote, payment: &Payment) -> Result<(), Refusal> {
    if payment.currency.is_some_and(|currency| currency != quote.currency) {
        return Err(ErrorCode::InvalidPayment.into());
    }
    if payment.max_amount.is_some_and(|most| quote.price > most.micros()) {
        return Err(ErrorCode::PriceAboveMaximum.into());
    }
    Ok(())
}

/// A given top-up, rounded up to what a card can be charged, if the offer allows it.
fn given_top_up(quote: &Quote, payment: &Payment) -> Result<Option<Micros>, Refusal> {
    let Some(given) = payment.top_up_amount else { return Ok(None) };
    match quote.currency.chargeable(given.micros()) {
        Some(amount) if amount < quote.min_top_up => Err(ErrorCode::TopUpBelowMinimum.into()),
        Some(amount) if amount <= quote.max_top_up => Ok(Some(amount)),
        _ => Err(ErrorCode::TopUpAboveMaximum.into()),
    }
}

/// The payer that the payment's card stands for, and as whom it asks.
async fn card_decides(
    shared: &Shared,
    quote: &Quote,
    payment: &Payment,
    parts: &Parts,
) -> Result<(PayerId, Card, Asker), Refusal> {
    let Some(method) = &payment.payment_method_id else {
        // An unknown or revoked credential looks like an empty account.
        return Err(ErrorCode::InsufficientCredits.into());
    };
    given_top_up(quote, payment)?; // before anyone at Stripe is asked
    let stranger = shared.gate.stranger(parts);
    let (card, asker) = shared.card(method, stranger).await?;
    let head = shared.load(card.book).await?;
    let payer = head.owner.unwrap_or(card.book);
    if !admission::has_paid(&head, card.book) {
        return Ok((payer, card, asker));
    }
    if let Asker::Newcomer(_) = asker {
        shared.gate.cleared(asker);
    }
    Ok((payer, card, Asker::Payer(payer)))
}

/// A payment on its way to a reservation.
struct Purchase<'a> {
    shared: &'a Arc<Shared>,
    quote: &'a Quote,
    payment: Payment,
    claim: Option<ClaimOf>,
    parts: &'a Parts,
    /// What is still to be set aside: the price, until it is.
    owed: Micros,
    payer: PayerId,
    proof: Proof,
    /// As whom it is counted at Stripe.
    asker: Asker,
    /// The card beside the credential, or instead of it; looked up when it is first needed.
    card: Option<Card>,
    /// The credential that was sent, while it is believed.
    client_id: Option<ClientId>,
    /// What came of the card.
    charged: Option<Credited>,
    declined: Option<Refusal>,
    /// Whether the top-up that the payment named was waited for.
    resumed: bool,
    verified: Option<Verification>,
}

impl<'a> Purchase<'a> {
    /// A valid credential decides who pays. Without one, the card does.
    async fn begin(
        shared: &'a Arc<Shared>,
        quote: &'a Quote,
        payment: Payment,
        claim: Option<ClaimOf>,
        parts: &'a Parts,
    ) -> Result<Self, Refusal> {
        let client_id = payment.client_id.clone();
        let credential = client_id.as_ref().and_then(|id| shared.credentials.check(id));
        let (payer, proof, asker, card, client_id) = match credential {
            Some(Credential { payer, generation, number }) => {
                let proof = Proof::Credential { generation, number };
                (payer, proof, Asker::Payer(payer), None, client_id)
            }
            None => {
                let (payer, card, asker) = card_decides(shared, quote, &payment, parts).await?;
                (payer, Proof::Method(card.method.clone()), asker, Some(card), None)
            }
        };
        let (charged, declined, verified) = (None, None, None);
        Ok(Purchase {
            shared,
            quote,
            payment,
            claim,
            parts,
            owed: quote.price,
            payer,
            proof,
            asker,
            card,
            client_id,
            charged,
            declined,
            resumed: false,
            verified,
        })
    }

    async fn run(&mut self) -> Result<(Reservation, ClientId), Refusal> {
        if self.claim.is_none() {
            self.keep_min_credit().await?;
        }
        for _ in 0..ROUNDS_MAX {
            match self.reserve().await {
                Ok(reservation) => return self.reserved(reservation).await,
                Err(NotReserved::Insufficient) => self.fund(ANSWER_WITHIN).await?,
                Err(NotReserved::Unauthorized) => self.prove().await?,
                Err(NotReserved::Refused(refusal)) => return Err(refusal),
                Err(NotReserved::Unavailable) => return Err(ErrorCode::LedgerUnavailable.into()),
            }
        }
        Err(ErrorCode::RateLimited.into())
    }

    async fn reserved(
        &mut self,
        reservation: Reservation,
    ) -> Result<(Reservation, ClientId), Refusal> {
        let credential = self.credential().await?;
        if self.claim.is_some() {
            // Not earlier: a key that is in flight, or done, takes nothing from a card.
            self.owed = Micros::ZERO;
            self.keep_min_credit().await?;
        }
        Ok((reservation, credential))
    }

    /// Tops up before the credit is gone, if the payment asks for it. Should that fail, the
    /// request is still paid from what is left.
    async fn keep_min_credit(&mut self) -> Result<(), Refusal> {
        if !self.may_charge()
            || self.payment.min_credit.is_none()
            || self.payment.top_up_id.is_some()
        {
            return Ok(());
        }
        if self.charged.is_some() {
            return Ok(()); // that top-up counted it in
        }
        let head = self.load(self.payer).await?;
        if !head.frozen.is_empty() {
            return Err(ErrorCode::AccountFrozen.into());
        }
        let number = match self.proof {
            Proof::Credential { number, .. } => number,
            Proof::Method(_) => None,
        };
        let issued = number.and_then(|number| head.credentials.get(&number));
        let left = issued.and_then(|issued| issued.left(self.quote.currency));
        if left.is_some_and(|left| left < self.owed) {
            return Ok(()); // more credit does not help: the request will be refused
        }
        let available = head.account(self.quote.currency).available;
        let covered = available >= self.owed;
        let within = if covered { MIN_CREDIT_WITHIN } else { ANSWER_WITHIN };
        if available < self.needed()
            && head.accepts(&self.proof)
            && let Err(refusal) = self.fund(within).await
        {
            self.declined = Some(refusal);
        }
        Ok(())
    }

    async fn reserve(&self) -> Result<Reservation, NotReserved> {
        let Quote { currency, price: amount, .. } = *self.quote;
        let (proof, claim) = (self.proof.clone(), self.claim);
        let wanted = Wanted { currency, amount, proof, claim };
        Reservation::open(self.shared, self.payer, wanted).await
    }

    /// The credit is short.
    async fn fund(&mut self, within: Duration) -> Result<(), Refusal> {
        if let Some(refusal) = self.declined {
            return Err(refusal);
        }
        if self.charged.is_some() {
            return Err(ErrorCode::InsufficientCredits.into()); // others spent it
        }
        if let Some(id) = self.payment.top_up_id {
            return match self.resumed {
                true => Err(ErrorCode::InsufficientCredits.into()),
                false => self.resume(id).await,
            };
        }
        let account = self.load(self.payer).await?.account(self.quote.currency);
        if self.may_charge() {
            let needed = Some(self.needed());
            return self.charge(account.available, needed, within).await;
        }
        let Some(number) = account.open else { return Err(ErrorCode::InsufficientCredits.into()) };
        // Money may be on its way: a 402 would invite the client to pay twice.
        let id = TopUpId { payer: self.payer, currency: self.quote.currency, number };
        match self.shared.resume(id).await {
            Ok(_) => Ok(()),
            Err(failed) => match failed.refusal.pending() {
                Some(_) => Err(failed.refusal),
                None => Err(ErrorCode::InsufficientCredits.into()),
            },
        }
    }

    /// Whether there is a card for a top-up. A further credential never brings one: what a card paid
    /// makes it known to the payer, and a known card spends without the credential and its limit.
    fn may_charge(&self) -> bool {
        let is_further = matches!(self.proof, Proof::Credential { number: Some(_), .. });
        self.payment.payment_method_id.is_some() && !is_further
    }

    /// Goes on with the top-up that a `payment_pending` answer named. Such a payment never opens
    /// another one.
    async fn resume(&mut self, id: TopUpId) -> Result<(), Refusal> {
        if id.payer != self.payer || id.currency != self.quote.currency {
            return Err(ErrorCode::InvalidPayment.into());
        }
        let credited = self.shared.resume(id).await.map_err(|failed| failed.refusal)?;
        self.resumed = true;
        // What another card paid is no proof of this one.
        let method = self.payment.payment_method_id.clone();
        let proven = matches!(self.proof, Proof::Credential { .. });
        self.charged = credited.filter(|c| proven || Some(&c.method) == method.as_ref());
        Ok(())
    }

    /// The credential was revoked, or the payer does not know the card.
    async fn prove(&mut self) -> Result<(), Refusal> {
        if matches!(self.proof, Proof::Credential { .. }) {
            let (payer, card, asker) =
                card_decides(self.shared, self.quote, &self.payment, self.parts).await?;
            (self.payer, self.proof) = (payer, Proof::Method(card.method.clone()));
            (self.asker, self.card, self.client_id) = (asker, Some(card), None);
            return Ok(());
        }
        let head = self.load(self.payer).await?;
        if !head.frozen.is_empty() {
            return Err(ErrorCode::AccountFrozen.into());
        }
        if let (Some(id), false) = (self.payment.top_up_id, self.resumed) {
            return self.resume(id).await;
        }
        let available = head.account(self.quote.currency).available;
        if available < self.quote.price {
            return self.fund(ANSWER_WITHIN).await;
        }
        // There is credit: whoever shows the card must prove to hold it, or pay with it.
        if self.verified.is_none() {
            let card = self.card().await?;
            let verification = self.shared.verify(self.payer, &card, self.asker).await?;
            self.verified = Some(verification);
            if verification == Verification::Passed {
                let link = Command::LinkCard { method: card.method };
                self.apply(self.payer, &link).await?;
                self.proof = Proof::Credential { generation: head.generation, number: None };
                return Ok(());
            }
        }
        if self.payment.top_up_id.is_some() || self.charged.is_some() {
            return Err(ErrorCode::InvalidPayment.into());
        }
        self.charge(available, None, ANSWER_WITHIN).await
    }

    /// Takes a top-up from the card, or joins the one that is open. It is needed if less than
    /// `needed` is available; without that, unless the payer knows the card by now.
    async fn charge(
        &mut self,
        available: Micros,
        needed: Option<Micros>,
        within: Duration,
    ) -> Result<(), Refusal> {
        let amount = self.top_up_amount(available)?;
        let card = self.card().await?;
        if self.client_id.is_none() && card.book == self.payer {
            // First the card becomes its own payer's: another payer may show it meanwhile, and
            // what it pays must not go to a book that the card no longer leads to.
            self.payer = self.claim(card.book).await?;
            if card.book != self.payer {
                return Ok(());
            }
        }
        let (payer, currency, method) = (self.payer, self.quote.currency, card.method.clone());
        let ask = Ask { payer, currency, needed, amount, card, asker: self.asker };
        match self.shared.top_up(ask, within).await {
            Ok(credited) => self.charged = credited.filter(|credited| credited.method == method),
            // Another card failed, in a top-up that was joined. This one was not tried.
            Err(Failed { method: Some(failed), .. }) if failed != method => {}
            Err(failed) => return Err(failed.refusal.to_stranger()),
        }
        Ok(())
    }

    /// How much to take from the card, so that it pays for this request.
    fn top_up_amount(&self, available: Micros) -> Result<Micros, Refusal> {
        let quote = self.quote;
        let missing = |needed: Micros| needed.checked_sub(available).unwrap_or(Micros::MAX);
        let amount = match given_top_up(quote, &self.payment)? {
            Some(given) => given,
            None => {
                let wanted = missing(self.needed()).max(quote.min_top_up).min(quote.max_top_up);
                quote.currency.chargeable(wanted).ok_or(ErrorCode::TopUpAboveMaximum)?
            }
        };
        match (amount < missing(self.owed), self.payment.top_up_amount) {
            (false, _) => Ok(amount),
            (true, Some(_)) => Err(ErrorCode::TopUpBelowMinimum.into()),
            (true, None) => Err(ErrorCode::TopUpAboveMaximum.into()),
        }
    }

    /// What must be available: what is owed, and what the payment wants to be left.
    fn needed(&self) -> Micros {
        let wanted = self.payment.min_credit.unwrap_or_default().micros();
        // More would never be reached by one top-up, and so be topped up at each request.
        let min_credit = wanted.min(self.quote.max_top_up);
        self.owed.checked_add(min_credit).unwrap_or(Micros::MAX)
    }

    async fn card(&mut self) -> Result<Card, Refusal> {
        if let Some(card) = &self.card {
            return Ok(card.clone());
        }
        let method = self.payment.payment_method_id.as_ref();
        let method = method.ok_or(ErrorCode::InvalidPayment)?;
        let (card, _) = self.shared.card(method, self.asker).await?;
        self.card = Some(card.clone());
        Ok(card)
    }

    /// The credential to spend with from now on.
    async fn credential(&self) -> Result<ClientId, Refusal> {
        let generation = match (&self.client_id, &self.proof) {
            (Some(client_id), _) => return Ok(client_id.clone()),
            (None, Proof::Credential { generation, .. }) => *generation,
            (None, Proof::Method(_)) => self.load(self.payer).await?.generation,
        };
        Ok(self.shared.credentials.issue(self.payer, generation))
    }

    async fn load(&self, payer: PayerId) -> Result<Head, Refusal> {
        Ok(self.shared.load(payer).await?)
    }

    /// The card's owner, which it is itself if nobody came before.
    async fn claim(&self, card: PayerId) -> Result<PayerId, Refusal> {
        match self.apply(card, &Command::OwnCard { owner: card }).await? {
            Outcome::Owner(owner) => Ok(owner),
            _ => Ok(card),
        }
    }

    async fn apply(&self, payer: PayerId, command: &Command) -> Result<Outcome, Refusal> {
        match self.shared.ledger.apply(&payer, command).await {
            Ok(applied) => Ok(applied.outcome),
            Err(error) => {
                tracing::error!(%error, "the ledger did not answer");
                Err(ErrorCode::LedgerUnavailable.into())
            }
        }
    }
}
