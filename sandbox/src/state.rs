//! Everything a sandbox remembers.

use std::collections::{HashMap, VecDeque};

use crate::balance::BalanceTransaction;
use crate::customers::Customer;
use crate::disputes::Dispute;
use crate::events::{self, Event};
use crate::faults::Faults;
use crate::fraud_warnings::FraudWarning;
use crate::idempotency::SavedAnswers;
use crate::ids::Ids;
use crate::limits::Limiter;
use crate::payment_intents::PaymentIntent;
use crate::payment_intents::charges::Charge;
use crate::payment_methods::PaymentMethod;
use crate::refunds::Refund;
use crate::setup_intents::SetupIntent;
use crate::webhooks::{self, Outbox};
use crate::{Call, ChargeRecord};

/// Calls remembered for [`Sandbox::calls`](crate::Sandbox::calls).
const MAX_CALLS: usize = 100_000;

/// What objects have in common.
pub(crate) trait Stored {
    fn id(&self) -> &str;
    /// Seconds since 1970.
    fn created(&self) -> i64;
}

/// Objects of one kind, in the order of their creation.
pub(crate) struct Table<T> {
    rows: Vec<T>,
    index: HashMap<String, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), index: HashMap::new() }
    }
}

impl<T: Stored + Clone> Table<T> {
    /// A copy, to be changed and [`put`](Self::put) back.
    pub(crate) fn get(&self, id: &str) -> Option<T> {
        self.index.get(id).map(|at| self.rows[*at].clone())
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.index.contains_key(id)
    }

    /// Adds an object, or replaces the one of the same id.
    pub(crate) fn put(&mut self, row: T) {
        if let Some(at) = self.index.get(row.id()) {
            self.rows[*at] = row;
        } else {
            self.index.insert(row.id().to_owned(), self.rows.len());
            self.rows.push(row);
        }
    }

    pub(crate) fn newest_first(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.rows.iter().rev()
    }
}

pub(crate) struct State {
    pub(crate) ids: Ids,
    pub(crate) customers: Table<Customer>,
    pub(crate) payment_methods: Table<PaymentMethod>,
    pub(crate) payment_intents: Table<PaymentIntent>,
    pub(crate) setup_intents: Table<SetupIntent>,
    pub(crate) charges: Table<Charge>,
    pub(crate) refunds: Table<Refund>,
    pub(crate) disputes: Table<Dispute>,
    pub(crate) fraud_warnings: Table<FraudWarning>,
    pub(crate) balance_transactions: Table<BalanceTransaction>,
    pub(crate) events: Table<Event>,
    pub(crate) paid: Vec<ChargeRecord>,
    pub(crate) saved_answers: SavedAnswers,
    pub(crate) faults: Faults,
    pub(crate) limiter: Limiter,
    pub(crate) outbox: Outbox,
    calls: VecDeque<Call>,
}

impl State {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            ids: Ids::new(seed),
            customers: Table::default(),
            payment_methods: Table::default(),
            payment_intents: Table::default(),
            setup_intents: Table::default(),
            charges: Table::default(),
            refunds: Table::default(),
            disputes: Table::default(),
            fraud_warnings: Table::default(),
            balance_transactions: Table::default(),
            events: Table::default(),
            paid: Vec::new(),
            saved_answers: SavedAnswers::default(),
            faults: Faults::default(),
            limiter: Limiter::default(),
            outbox: Outbox::new(seed),
            calls: VecDeque::new(),
        }
    }

    /// An event's webhook: the header `Stripe-Signature` of this time, and the body.
    pub(crate) fn signed(&self, event: &str, timestamp: i64) -> Option<(String, String)> {
        let body = events::show(&self.events.get(event)?).to_string();
        Some((webhooks::signature(self.outbox.secrets(), timestamp, &body), body))
    }

    pub(crate) fn record(&mut self, call: Call) {
        if self.calls.len() == MAX_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.iter().cloned().collect()
    }
}
