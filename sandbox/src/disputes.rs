//! Disputes: the cardholder, or the bank for them, wants the money back.
//!
//! ```text
//! chargeback: needs_response (money withdrawn) -> won (money reinstated), lost
//! inquiry:    warning_needs_response (no money moves) -> warning_closed, or a chargeback
//! ```
//!
//! Source: Stripe's API reference "Disputes", and its page "How disputes work".

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::{Context, Job};
use crate::balance::{self, BalanceTransaction, Movement};
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::lists::Page;
use crate::money::Currency;
use crate::network::Impossible;
use crate::payment_intents::charges::Charge;
use crate::state::{State, Stored};

/// When Stripe wants evidence by; it takes 7 to 21 days, depending on the network.
const RESPONSE_SECONDS: i64 = 21 * 24 * 60 * 60;

const EVIDENCE: [&str; 27] = [
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
];

#[derive(Clone)]
pub(crate) struct Dispute {
    pub(crate) id: String,
    created: i64,
    /// In minor units.
    amount: i64,
    currency: Currency,
    charge: String,
    intent: String,
    brand: &'static str,
    reason: &'static str,
    status: Status,
    /// What it moved, in order.
    moved: Vec<BalanceTransaction>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    WarningNeedsResponse,
    WarningClosed,
    NeedsResponse,
    Won,
    Lost,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WarningNeedsResponse => "warning_needs_response",
            Self::WarningClosed => "warning_closed",
            Self::NeedsResponse => "needs_response",
            Self::Won => "won",
            Self::Lost => "lost",
        }
    }

    /// Whether the money is with the cardholder's bank.
    fn holds_money(self) -> bool {
        matches!(self, Self::NeedsResponse | Self::Lost)
    }

    fn is_inquiry(self) -> bool {
        matches!(self, Self::WarningNeedsResponse | Self::WarningClosed)
    }
}

impl Stored for Dispute {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

/// What a dispute begins as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chargeback,
    Inquiry,
}

/// How a dispute goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Won,
    Lost,
    WarningClosed,
    /// An inquiry becomes a chargeback.
    Escalated,
}

fn of_charge<'a>(state: &'a State, charge: &'a str) -> impl Iterator<Item = &'a Dispute> {
    state.disputes.newest_first().filter(move |dispute| dispute.charge == charge)
}

/// Whether a chargeback has taken money of this charge, and not given it back.
pub(crate) fn holds_money(state: &State, charge: &str) -> bool {
    of_charge(state, charge).any(|dispute| dispute.status.holds_money())
}

/// What of a charge is still with the account.
fn left(state: &State, charge: &Charge) -> i64 {
    let held = of_charge(state, &charge.id).filter(|dispute| dispute.status.holds_money());
    charge.unrefunded() - held.map(|dispute| dispute.amount).sum::<i64>()
}

/// Opens a dispute. Without an amount it is about everything that is left.
pub(crate) fn open(
    context: &mut Context<'_>,
    mut charge: Charge,
    kind: Kind,
    (reason, amount): (&'static str, Option<i64>),
) -> Result<Dispute, Impossible> {
    let left = left(context.state, &charge);
    let amount = amount.unwrap_or(left);
    if !(1..=left).contains(&amount) {
        return Err(Impossible::Amount { left });
    }
    let mut dispute = Dispute {
        id: context.state.ids.next("dp"),
        created: context.now,
        amount,
        currency: charge.currency(),
        charge: charge.id.clone(),
        intent: charge.intent().to_owned(),
        brand: charge.card().brand,
        reason,
        status: match kind {
            Kind::Chargeback => Status::NeedsResponse,
            Kind::Inquiry => Status::WarningNeedsResponse,
        },
        moved: Vec::new(),
    };
    charge.disputed = true;
    context.state.charges.put(charge);
    if kind == Kind::Chargeback {
        dispute.book(context, Movement::Withdrawal, -amount);
    }
    dispute.store(context, &["charge.dispute.created"]);
    if kind == Kind::Chargeback {
        context.happened("charge.dispute.funds_withdrawn", show(&dispute));
    }
    Ok(dispute)
}

/// Takes a dispute one step further.
pub(crate) fn go_on(context: &mut Context<'_>, id: &str, end: End) -> Result<Dispute, Impossible> {
    let mut dispute = context.state.disputes.get(id).ok_or(Impossible::NotFound)?;
    let from = match end {
        End::Won | End::Lost => Status::NeedsResponse,
        End::WarningClosed | End::Escalated => Status::WarningNeedsResponse,
    };
    if dispute.status != from {
        return Err(Impossible::WrongStatus(dispute.status.name()));
    }
    let events: &[&'static str] = match end {
        End::Won => {
            dispute.status = Status::Won;
            dispute.book(context, Movement::Reinstatement, dispute.amount);
            &["charge.dispute.funds_reinstated", "charge.dispute.closed"]
        }
        End::Lost => {
            dispute.status = Status::Lost;
            &["charge.dispute.closed"]
        }
        End::WarningClosed => {
            dispute.status = Status::WarningClosed;
            &["charge.dispute.closed"]
        }
        End::Escalated => {
            dispute.escalate(context)?;
            &["charge.dispute.updated", "charge.dispute.funds_withdrawn"]
        }
    };
    dispute.store(context, events);
    Ok(dispute)
}

impl Dispute {
    /// Withdraws what is left of the amount: a payment that was refunded meanwhile is not taken
    /// twice.
    fn escalate(&mut self, context: &mut Context<'_>) -> Result<(), Impossible> {
        let charge = context.state.charges.get(&self.charge).ok_or(Impossible::NotFound)?;
        let left = left(context.state, &charge);
        if left == 0 {
            return Err(Impossible::Amount { left });
        }
        self.amount = self.amount.min(left);
        self.status = Status::NeedsResponse;
        self.book(context, Movement::Withdrawal, -self.amount);
        Ok(())
    }

    fn book(&mut self, context: &mut Context<'_>, movement: Movement, amount: i64) {
        let booked = context.book(movement, amount, self.currency, &self.id);
        self.moved.push(booked);
    }

    fn store(&self, context: &mut Context<'_>, events: &[&'static str]) {
        context.state.disputes.put(self.clone());
        for event in events {
            context.happened(event, show(self));
        }
    }

    /// Visa's number for the reason; an inquiry has the one without a dot.
    fn network_reason_code(&self) -> Option<&'static str> {
        if self.brand != "visa" {
            return None;
        }
        match (self.status.is_inquiry(), self.reason) {
            (true, _) => Some("10"),
            (false, "fraudulent") => Some("10.4"),
            (false, "product_not_received") => Some("13.1"),
            (false, _) => None,
        }
    }
}

/// `GET /v1/disputes/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| {
        let missing = || ApiError::missing("dispute", &id, "id").status(StatusCode::NOT_FOUND);
        context.state.disputes.get(&id).map(|dispute| show(&dispute)).ok_or_else(missing)
    }))
}

/// `GET /v1/disputes`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let (charge, intent) = (params.text("charge")?, params.text("payment_intent")?);
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted = |dispute: &Dispute| {
            charge.as_ref().is_none_or(|charge| dispute.charge == *charge)
                && intent.as_ref().is_none_or(|intent| dispute.intent == *intent)
        };
        page.list(&context.state.disputes, ("dispute", "/v1/disputes"), wanted, show)
    }))
}

pub(crate) fn show(dispute: &Dispute) -> Value {
    let mut evidence: Map<String, Value> =
        EVIDENCE.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    evidence.insert("enhanced_evidence".to_owned(), json!({}));
    let moved: Vec<Value> = dispute.moved.iter().map(balance::show).collect();
    json!({
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": moved,
        "charge": dispute.charge,
        "created": dispute.created,
        "currency": dispute.currency.code(),
        "enhanced_eligibility_types": [],
        "evidence": evidence,
        "evidence_details": {
            "due_by": dispute.created + RESPONSE_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": false,
            "past_due": false,
            "submission_count": 0,
        },
        "is_charge_refundable": !dispute.status.holds_money(),
        "livemode": false,
        "metadata": {},
        "payment_intent": dispute.intent,
        "payment_method_details": {
            "card": {
                "brand": dispute.brand,
                "case_type": if dispute.status.is_inquiry() { "inquiry" } else { "chargeback" },
                "network": dispute.brand,
                "network_reason_code": dispute.network_reason_code(),
            },
            "type": "card",
        },
        "reason": dispute.reason,
        "status": dispute.status.name(),
    })
}
