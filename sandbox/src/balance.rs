//! Balance transactions: every movement of the account's money.
//!
//! Source: Stripe's API reference "Balance transactions", and its page "Balance transaction types".
//! Money settles in the currency it was charged in, and is available at once.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Context, Job};
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::lists::Page;
use crate::money::Currency;
use crate::state::Stored;

/// What Stripe takes for a chargeback, won or lost: 15 dollars, here of any currency's minor unit.
const DISPUTE_FEE: i64 = 1_500;

/// Why money moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Movement {
    Charge,
    Refund,
    /// A refund could not be paid out: its money is back.
    RefundFailure,
    /// A chargeback took money.
    Withdrawal,
    /// A chargeback was won: its money is back.
    Reinstatement,
}

#[derive(Clone)]
pub(crate) struct BalanceTransaction {
    pub(crate) id: String,
    created: i64,
    movement: Movement,
    /// Positive: to the account. Without the fee.
    amount: i64,
    currency: Currency,
    /// The charge, refund or dispute that moved it.
    source: String,
}

impl Stored for BalanceTransaction {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

impl Movement {
    /// The fee, what it is for, and `type` and `reporting_category` of the transaction.
    fn terms(self, amount: i64) -> (i64, &'static str, &'static str, &'static str) {
        match self {
            Self::Charge => (processing_fee(amount), "Stripe processing fees", "charge", "charge"),
            Self::Refund => (0, "", "refund", "refund"),
            Self::RefundFailure => (0, "", "refund_failure", "refund_failure"),
            Self::Withdrawal => (DISPUTE_FEE, "Dispute fee", "adjustment", "dispute"),
            Self::Reinstatement => (0, "", "adjustment", "dispute_reversal"),
        }
    }
}

/// Stripe's price for a domestic card: 2.9% and 30 cents, here of any currency.
fn processing_fee(amount: i64) -> i64 {
    (amount * 29 + 500) / 1_000 + 30
}

impl Context<'_> {
    /// Moves money to the account (`amount` is positive) or away from it.
    pub(crate) fn book(
        &mut self,
        movement: Movement,
        amount: i64,
        currency: Currency,
        source: &str,
    ) -> BalanceTransaction {
        let booked = BalanceTransaction {
            id: self.state.ids.next("txn"),
            created: self.now,
            movement,
            amount,
            currency,
            source: source.to_owned(),
        };
        self.state.balance_transactions.put(booked.clone());
        booked
    }
}

/// `GET /v1/balance_transactions/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| {
        let missing =
            || ApiError::missing("balance_transaction", &id, "id").status(StatusCode::NOT_FOUND);
        context.state.balance_transactions.get(&id).map(|it| show(&it)).ok_or_else(missing)
    }))
}

/// `GET /v1/balance_transactions`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let (kind, source) = (params.text("type")?, params.text("source")?);
    let currency = params.text("currency")?;
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted = |it: &BalanceTransaction| {
            kind.as_ref().is_none_or(|kind| it.movement.terms(it.amount).2 == kind)
                && source.as_ref().is_none_or(|source| it.source == *source)
                && currency.as_ref().is_none_or(|code| it.currency.code() == code)
        };
        let names = ("balance_transaction", "/v1/balance_transactions");
        page.list(&context.state.balance_transactions, names, wanted, show)
    }))
}

pub(crate) fn show(booked: &BalanceTransaction) -> Value {
    let (fee, what_for, kind, category) = booked.movement.terms(booked.amount);
    let fee_detail = json!({
        "amount": fee,
        "application": null,
        "currency": booked.currency.code(),
        "description": what_for,
        "type": "stripe_fee",
    });
    json!({
        "id": booked.id,
        "object": "balance_transaction",
        "amount": booked.amount,
        "available_on": booked.created,
        "balance_type": "payments",
        "created": booked.created,
        "currency": booked.currency.code(),
        "description": null,
        "exchange_rate": null,
        "fee": fee,
        "fee_details": if fee == 0 { json!([]) } else { json!([fee_detail]) },
        "net": booked.amount - fee,
        "reporting_category": category,
        "source": booked.source,
        "status": "available",
        "type": kind,
    })
}
