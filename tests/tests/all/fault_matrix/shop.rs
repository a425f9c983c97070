//! A provider whose books can be looked into, an honest client, and the judgement of both.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use farebox_ledger::{
    Applied, Book, Command, Due, Entry, EntryId, Head, Ledger, Store, StoreError, TopUp, TopUpState,
};
use farebox_middleware::{Payments, Stripe, usd};
use farebox_protocol::{ClientId, ErrorCode, PayerId, Payment, TopUpId};
use http::Request;
use tower::ServiceExt as _;

use crate::support::{Answer, Bank};

/// A ledger that a test reads beside the provider that uses it.
#[derive(Clone)]
struct Shelf(Arc<Ledger>);

impl Store for Shelf {
    async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
        self.0.apply(payer, command).await
    }

    async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
        self.0.load(payer).await
    }

    async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
        self.0.top_up(id).await
    }

    async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
        self.0.book(payer).await
    }

    async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
        self.0.payers().await
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        self.0.due().await
    }
}

/// A provider in this process, with two priced routes.
pub(super) struct Shop {
    pub(super) payments: Payments,
    app: Router,
    shelf: Shelf,
}

/// What a request costs, in micros.
const PRICES: [(&str, i64); 2] = [("/joke", 10_000), ("/big", 5_000_000)];
/// Longer than any answer takes, by far.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Served,
    /// 503 `payment_pending`.
    Pending,
    /// 503 `processor_unavailable`.
    Unavailable,
    /// 402 `card_declined`.
    Declined,
    /// 402 `authentication_required`.
    HolderWanted,
    /// 402 `invalid_payment`.
    Invalid,
    /// Nothing: the server died.
    Nothing,
    /// Anything else, which is never right.
    Other(u16, Option<ErrorCode>),
}

impl Heard {
    fn of(answer: &Answer) -> Heard {
        match (answer.status, answer.code()) {
            (200, _) => Heard::Served,
            (503, Some(ErrorCode::PaymentPending)) => Heard::Pending,
            (503, Some(ErrorCode::ProcessorUnavailable)) => Heard::Unavailable,
            (402, Some(ErrorCode::CardDeclined)) => Heard::Declined,
            (402, Some(ErrorCode::AuthenticationRequired)) => Heard::HolderWanted,
            (402, Some(ErrorCode::InvalidPayment)) => Heard::Invalid,
            (status, code) => Heard::Other(status, code),
        }
    }

    /// Whether the client comes back.
    pub(super) fn is_no_end(self) -> bool {
        matches!(self, Heard::Pending | Heard::Unavailable | Heard::Nothing)
    }
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Credited,
    FromCredit,
    Declined,
    HolderWanted,
    NothingTaken,
    /// Which no try may be at the end.
    Open,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Word::Credited => "credited",
            Word::FromCredit => "from credit",
            Word::Declined => "declined",
            Word::HolderWanted => "holder wanted",
            Word::NothingTaken => "nothing taken",
            Word::Open => "open",
        })
    }
}

impl From<&TopUpState> for Word {
    fn from(state: &TopUpState) -> Word {
        match state {
            TopUpState::Open { .. } => Word::Open,
            TopUpState::Succeeded { .. } => Word::Credited,
            TopUpState::Failed { code: ErrorCode::CardDeclined } => Word::Declined,
            TopUpState::Failed { code: ErrorCode::AuthenticationRequired } => Word::HolderWanted,
            TopUpState::Failed { .. } => Word::NothingTaken,
        }
    }
}

impl Shop {
    pub(super) async fn open(stripe: Stripe, ledger: Ledger) -> Shop {
        let shelf = Shelf(Arc::new(ledger));
        let payments = Payments::builder(stripe).store(shelf.clone()).secret(&[7; 32]);
        let payments = payments.open().await.unwrap();
        let joke = get(|| async { "A joke." }).route_layer(payments.price(usd!("0.01")));
        let big = get(|| async { "A report." }).route_layer(payments.price(usd!("5")));
        let app = Router::new().route("/joke", joke).route("/big", big);
        Shop { payments, app, shelf }
    }

    async fn get(&self, path: &str, payment: &Payment) -> Answer {
        let request = Request::get(path).header("payment", payment.encode()).body(Body::empty());
        let response = self.app.clone().oneshot(request.unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn books(&self) -> BTreeMap<PayerId, Book> {
        let mut books = BTreeMap::new();
        for payer in self.shelf.payers().await.unwrap() {
            books.insert(payer, self.shelf.book(&payer).await.unwrap());
        }
        books
    }

    /// Every top-up of every book.
    pub(super) async fn top_ups(&self) -> Vec<(PayerId, TopUp)> {
        let mut top_ups = Vec::new();
        for (payer, book) in self.books().await {
            let of_book = book.entries.into_values().filter_map(|entry| match entry {
                Entry::TopUp(top_up) => Some((payer, *top_up)),
                _ => None,
            });
            top_ups.extend(of_book);
        }
        top_ups
    }

    /// How a top-up stands.
    pub(super) async fn word(&self, id: TopUpId) -> Word {
        let top_up = self.shelf.top_up(&id).await.unwrap();
        top_up.map_or(Word::NothingTaken, |top_up| Word::from(&top_up.state))
    }

    /// A purchase in which nothing goes wrong. Answers the credential.
    pub(super) async fn buys_a_joke(&self, payment: &Payment) -> ClientId {
        let served = self.get("/joke", payment).await;
        assert!(served.is_served(), "{served:?}");
        served.credential().parse().unwrap()
    }

    async fn has_open(&self) -> bool {
        self.top_ups().await.iter().any(|(_, top_up)| top_up.is_open())
    }

    /// Sweeps, and waits for the tasks that the sweep leaves at work; what stays open is wrong.
    pub(super) async fn sweep(&self, within: Duration, wrong: &mut Vec<String>) {
        self.payments.sweep().await;
        let deadline = tokio::time::Instant::now() + within;
        while self.has_open().await {
            if tokio::time::Instant::now() > deadline {
                return wrong.push(format!("a top-up is open {within:?} after the sweep"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A client that believes what it is told, and pays no more than it must.
pub(super) struct Client {
    pub(super) path: &'static str,
    pub(super) payment: Payment,
    /// The charges that there were before.
    before: usize,
    pub(super) served: usize,
    /// Requests whose answer never came.
    pub(super) unanswered: usize,
    pub(super) wrong: Vec<String>,
}

impl Client {
    pub(super) fn new(path: &'static str, payment: Payment, bank: &Bank) -> Client {
        let (before, wrong) = (bank.charges().len(), Vec::new());
        Client { path, payment, before, served: 0, unanswered: 0, wrong }
    }

    /// Sends the request once, and does what the answer says the next time.
    pub(super) async fn ask(&mut self, shop: &Shop, bank: &Bank) -> Heard {
        let answer = tokio::time::timeout(PATIENCE, shop.get(self.path, &self.payment)).await;
        let Ok(answer) = answer else {
            self.wrong.push(format!("no answer within {PATIENCE:?}"));
            return Heard::Other(0, None);
        };
        let heard = Heard::of(&answer);
        self.check_form(&answer, heard);
        match heard {
            Heard::Pending => self.payment.top_up_id = answer.refusal().top_up_id,
            // A definite no: nothing was taken, and nothing is going to be.
            Heard::Unavailable | Heard::Declined | Heard::HolderWanted | Heard::Invalid => {
                if bank.charges().len() > self.before || shop.has_open().await {
                    self.wrong.push(format!("{heard:?}, and the card was or will be charged"));
                }
                self.payment.top_up_id = None;
            }
            Heard::Served => self.served += 1,
            Heard::Nothing | Heard::Other(..) => {
                self.wrong.push(format!("was answered {heard:?}"));
            }
        }
        heard
    }

    /// Comes back until the answer is an end, but not for ever.
    pub(super) async fn insist(&mut self, times: usize, shop: &Shop, bank: &Bank) -> Heard {
        let mut heard = Heard::Nothing;
        for _ in 0..times {
            heard = self.ask(shop, bank).await;
            if !heard.is_no_end() {
                break;
            }
        }
        heard
    }

    fn check_form(&mut self, answer: &Answer, heard: Heard) {
        let mut check = |holds: bool, what: &str| {
            if !holds {
                self.wrong.push(format!("{heard:?} {what}"));
            }
        };
        if answer.status == 503 {
            check(answer.header("retry-after").is_some(), "without Retry-After");
            check(answer.offer().is_none(), "with an offer to pay again");
        }
        if heard == Heard::Pending {
            check(answer.refusal().top_up_id.is_some(), "without topUpId");
        }
        if heard != Heard::Served {
            check(answer.header("cache-control") == Some("no-store"), "may be cached");
        }
    }

    /// Compares what the bank took with what the books say, for everything that happened.
    pub(super) async fn judge(&mut self, shop: &Shop, bank: &Bank) {
        let mut paid: BTreeMap<String, (String, i64)> = BTreeMap::new();
        for charge in bank.charges() {
            let top_up = charge.metadata["top_up"].clone();
            let earlier = paid.insert(charge.id.clone(), (top_up, charge.amount * 10_000));
            assert!(earlier.is_none(), "an intent succeeds once");
        }
        if paid.len() > self.before + 1 {
            self.wrong.push(format!("the card was charged {} times", paid.len() - self.before));
        }
        let mut credited = BTreeMap::new();
        let mut spent = 0;
        for (payer, book) in shop.books().await {
            for (id, entry) in &book.entries {
                let Entry::TopUp(top_up) = entry else { continue };
                let TopUpState::Succeeded { intent } = &top_up.state else { continue };
                let EntryId::TopUp(currency, number) = *id else { continue };
                let id = TopUpId { payer, currency, number };
                let received = top_up.totals.received.get();
                if credited.insert(intent.clone(), (id.to_string(), received)).is_some() {
                    self.wrong.push("one charge was credited twice".to_owned());
                }
            }
            spent += self.add_up(&book);
        }
        if paid != credited {
            self.wrong.push(format!("cards paid {paid:?}, credited is {credited:?}"));
        }
        self.judge_spending(spent);
        for intent in bank.unfinished_intents().await {
            self.wrong.push(format!("the intent {intent} may still take money"));
        }
    }

    /// What a book says was spent, in micros.
    fn add_up(&mut self, book: &Book) -> i64 {
        let mut received = 0;
        for entry in book.entries.values() {
            if let Entry::TopUp(top_up) = entry {
                received += top_up.totals.received.get();
            }
        }
        let (mut sum, mut spent) = (0, 0);
        for account in book.head.accounts.values() {
            sum += account.available.get() + account.reserved.get() + account.spent.get();
            spent += account.spent.get();
        }
        if sum != received {
            self.wrong.push(format!("an account holds {sum} of {received} micros"));
        }
        spent
    }

    fn judge_spending(&mut self, spent: i64) {
        let price = PRICES.iter().find(|(path, _)| *path == self.path).unwrap().1;
        let units = |requests: usize| i64::try_from(requests).unwrap() * price;
        let least = units(self.served);
        // Those before this client bought jokes.
        let spent = spent - self.before_spent();
        if !(least..=least + units(self.unanswered)).contains(&spent) {
            self.wrong.push(format!("{spent} micros were spent for {} answers", self.served));
        }
    }

    fn before_spent(&self) -> i64 {
        i64::try_from(self.before).unwrap() * PRICES[0].1
    }
}
