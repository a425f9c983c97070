//! Providers that count what they take from cards, for tests in which agents die or give up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use axum::response::Response;
use farebox_client::{Agent, Card, Money, PaymentKey, Policy, usd};
use farebox_policy::{Usage, Window};
use farebox_protocol::{ClientId, Currency, ErrorCode, PayerId, PaymentResponse, TopUpId, Units};
use http::StatusCode;

use crate::support::{
    CARD, CREDENTIAL, Http, Seen, Server, answer, asking, client, refused, required, served, told,
};

const PRICE: i64 = 100;
pub(crate) const TOP_UP: Money = usd!("5");

/// How a provider takes payments by card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Charges a repeated payment once, and names its top-ups.
    Knowing,
    /// The same; the first answer is that the charge is pending.
    Pending,
    /// The same; the first answer is lost.
    Losing,
    /// Refuses every card.
    Declining,
    /// There is credit that pays for the first request.
    Credited,
    /// Of version 1, at its worst: charges every card that it sees, repeated or not.
    V1,
}

pub(crate) const KINDS: [Kind; 6] =
    [Kind::Knowing, Kind::Pending, Kind::Losing, Kind::Declining, Kind::Credited, Kind::V1];

type Meet = Box<dyn Fn(&'static str) + Send + Sync>;

pub(crate) struct Till {
    kind: Kind,
    /// How many requests a top-up pays for.
    lasts: i64,
    books: Mutex<Books>,
    /// Called when a card arrived, and when it was charged.
    meet: Meet,
}

#[derive(Default)]
struct Books {
    balance: i64,
    payments: usize,
    /// The `Idempotency-Key` and the PaymentMethod of every charge.
    charges: Vec<(String, String)>,
}

impl Till {
    pub(crate) async fn open(kind: Kind, lasts: i64, meet: Meet) -> (Arc<Till>, Server) {
        let balance = if kind == Kind::Credited { 2 } else { 0 };
        let books = Mutex::new(Books { balance, ..Books::default() });
        let till = Arc::new(Till { kind, lasts, books, meet });
        let script = Arc::clone(&till);
        (till, Server::start(move |seen: &Seen| script.answer(seen)).await)
    }

    /// How often a card was charged; never twice for one call.
    pub(crate) fn charges(&self) -> usize {
        let books = self.books();
        let mut of_calls = BTreeMap::<&str, usize>::new();
        for (key, _) in &books.charges {
            *of_calls.entry(key).or_default() += 1;
        }
        let twice: Vec<_> = of_calls.iter().filter(|(_, charges)| **charges > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        books.charges.len()
    }

    /// What was taken from cards.
    pub(crate) fn taken(&self) -> Money {
        times(self.charges())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    fn answer(&self, seen: &Seen) -> Response {
        let mut required = required(PRICE);
        if self.kind != Kind::V1 {
            required.accepts[0].max_top_up = Units::new(10_000_000);
        }
        let Some(payment) = &seen.payment else { return asking(&required) };
        if let Some(card) = seen.card() {
            return self.take(seen.key().unwrap(), card);
        }
        let known = payment.client_id.as_ref().map(ClientId::as_str) == Some(CREDENTIAL);
        if known && self.spend() {
            return self.served(None);
        }
        required.error = Some(ErrorCode::InsufficientCredits);
        asking(&required)
    }

    fn take(&self, key: &str, card: &str) -> Response {
        (self.meet)("arrived");
        let (first, charged) = self.charge(key, card);
        if charged {
            (self.meet)("charged");
        }
        match self.kind {
            Kind::Declining => refused(ErrorCode::CardDeclined),
            Kind::Pending if first => pending(),
            Kind::Losing if first => answer(StatusCode::BAD_GATEWAY, "lost"),
            _ => self.served(charged.then_some("ch_1")),
        }
    }

    /// Whether this is the first payment by card, and whether the card was charged for it. The
    /// request is paid for with it.
    fn charge(&self, key: &str, card: &str) -> (bool, bool) {
        let mut books = self.books();
        books.payments += 1;
        let joins = books.balance > 0 || books.charges.iter().any(|charge| charge.1 == card);
        let charges = match self.kind {
            Kind::Declining => false,
            Kind::V1 => true,
            _ => !joins,
        };
        if charges {
            books.charges.push((key.to_owned(), card.to_owned()));
            books.balance += self.lasts;
        }
        books.balance = (books.balance - 1).max(0);
        (books.payments == 1, charges)
    }

    fn spend(&self) -> bool {
        let mut books = self.books();
        let enough = books.balance > 0;
        books.balance -= i64::from(enough);
        enough
    }

    fn served(&self, charge: Option<&str>) -> Response {
        let charged = (self.kind != Kind::V1).then_some(PRICE);
        served(StatusCode::OK, &told(charge, charged, self.books().balance * PRICE))
    }
}

fn pending() -> Response {
    let mut body = PaymentResponse::refused(ErrorCode::PaymentPending);
    let (payer, currency) = (PayerId::from_bytes([7; 32]), Currency::USD);
    body.top_up_id = Some(TopUpId { payer, currency, number: 1 });
    let body = String::from_utf8(body.to_json()).unwrap();
    answer(ErrorCode::PaymentPending.status(), &body)
}

/// The money of so many top-ups.
pub(crate) fn times(top_ups: usize) -> Money {
    let micros = (0..top_ups)
        .try_fold(farebox_protocol::Micros::ZERO, |sum, _| sum.checked_add(TOP_UP.micros()));
    Money::new(micros.unwrap(), Currency::USD)
}

/// All that a budget ever counted.
pub(crate) fn counted(usage: &Usage) -> Money {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    usage.held_in(Window::Lifetime, Currency::USD, i64::try_from(now.as_secs()).unwrap())
}

/// An agent by the machine's clock, as Redis has it too.
pub(crate) fn agent(limit: Money, tokenizer: &str) -> Agent {
    let card: Card = CARD.parse().unwrap();
    let policy = Policy::new().allow("127.0.0.1").trust("127.0.0.1").per_request(usd!("0.05"));
    let policy = policy.per_top_up(TOP_UP).per_day(limit);
    Agent::new(policy).card(card).tokenizer(tokenizer).unwrap()
}

/// Calls of one agent: all by one name, or each a new one.
pub(crate) struct Caller {
    pub(crate) http: Http,
    pub(crate) url: String,
    pub(crate) name: Option<String>,
}

impl Caller {
    pub(crate) fn new(agent: &Agent, url: &str, named: bool) -> Caller {
        let name = named.then(|| "task-17".to_owned());
        Caller { http: client(agent), url: url.to_owned(), name }
    }

    pub(crate) async fn call(&self) -> Result<reqwest::Response, reqwest_middleware::Error> {
        let request = self.http.get(&self.url);
        match &self.name {
            Some(name) => request.with_extension(PaymentKey::new(name).unwrap()).send().await,
            None => request.send().await,
        }
    }
}
