//! A server that dies at every step of a purchase, and those who go on with it.

use std::time::Duration;

use farebox_ledger::{FirstRecord, Ledger, Options};
use farebox_sandbox::{Fault, FaultKind};
use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;

use super::cells::Holder;
use super::client::Client;
use super::shop::Shop;
use super::words::Word;
use crate::support::{
    Bank, Persistence, Program, Redis, Setup, Unanswered, Wire, by_card, eventually,
};

/// No death, no start and no sweep takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Deaths at one home at a time: a server in Redis waits more than it works.
const AT_A_TIME: usize = 3;
const CHARGE: (&str, &str) = ("POST", "/v1/payment_intents");

/// When the server dies.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Where `FAREBOX_CRASH` says.
    At(&'static str),
    /// While a call meets a fault, so many times.
    In((&'static str, &'static str), FaultKind, usize),
    /// The same in the next life, which goes on with what the first one left at this point.
    Resuming(&'static str, FaultKind),
}

/// One death, and what is required of it: what has become of the try before the client is back.
pub(super) struct Death {
    pub(super) name: &'static str,
    moment: Moment,
    holder: Holder,
    word: Word,
}

const fn pays(name: &'static str, moment: Moment, word: Word) -> Death {
    Death { name, moment, holder: Holder::Pays, word }
}

const fn ends(name: &'static str, moment: Moment, holder: Holder, word: Word) -> Death {
    Death { name, moment, holder, word }
}

const BEFORE: FaultKind = FaultKind::Stall { ran: false };
const AFTER: FaultKind = FaultKind::Stall { ran: true };
const RESET: FaultKind = FaultKind::ResetAfter;
const CRASH: FaultKind = FaultKind::ServerError { ran: true };
const LOOK_UP: (&str, &str) = ("GET", "/v1/payment_methods/*");
const CUSTOMER: (&str, &str) = ("POST", "/v1/customers");

pub(super) const DEATHS: [Death; 24] = [
    pays("before the look-up", Moment::In(LOOK_UP, BEFORE, 1), Word::NothingTaken),
    pays("after the look-up", Moment::At("before:Reserve:1"), Word::NothingTaken),
    pays("before the card is its own", Moment::At("before:OwnCard:1"), Word::NothingTaken),
    pays("after the card is its own", Moment::At("after:OwnCard:1"), Word::NothingTaken),
    pays("before the customer is made", Moment::In(CUSTOMER, BEFORE, 1), Word::NothingTaken),
    pays("while the customer is made", Moment::In(CUSTOMER, AFTER, 1), Word::NothingTaken),
    pays("before the customer is kept", Moment::At("before:SetCustomer:1"), Word::NothingTaken),
    pays("after the customer is kept", Moment::At("after:SetCustomer:1"), Word::NothingTaken),
    pays("before the top-up is written", Moment::At("before:OpenTopUp:1"), Word::NothingTaken),
    pays("after it is written, before the call", Moment::At("after:OpenTopUp:1"), Word::Credited),
    pays("after the call was sent, before it ran", Moment::In(CHARGE, BEFORE, 1), Word::Credited),
    pays("after it ran, before the answer", Moment::In(CHARGE, AFTER, 1), Word::Credited),
    pays("after the answer, before the credit", Moment::At("before:Observe:1"), Word::Credited),
    pays(
        "after the credit, before the client hears",
        Moment::At("after:Observe:1"),
        Word::Credited,
    ),
    pays("before the price is spent", Moment::At("before:Settle:1"), Word::Credited),
    pays("after the price is spent", Moment::At("after:Settle:1"), Word::Credited),
    pays("while every answer is lost", Moment::In(CHARGE, RESET, 3), Word::Credited),
    pays("after a saved 500", Moment::In(CHARGE, CRASH, 1), Word::Credited),
    pays(
        "while it goes on, before the call ran",
        Moment::Resuming("after:OpenTopUp:1", BEFORE),
        Word::Credited,
    ),
    pays(
        "while it goes on, after the call ran",
        Moment::Resuming("after:OpenTopUp:1", AFTER),
        Word::Credited,
    ),
    pays(
        "while it goes on with what was paid",
        Moment::Resuming("before:Observe:1", AFTER),
        Word::Credited,
    ),
    ends(
        "before a decline is written",
        Moment::At("before:FailTopUp:1"),
        Holder::Declined,
        Word::Declined,
    ),
    ends(
        "after a decline is written",
        Moment::At("after:FailTopUp:1"),
        Holder::Declined,
        Word::Declined,
    ),
    ends(
        "before it is written that the holder is wanted",
        Moment::At("before:FailTopUp:1"),
        Holder::Wanted,
        Word::HolderWanted,
    ),
];

/// Where the books are, and who goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// A file: the server starts again.
    Embedded,
    /// Redis: another server was there all the time, and its sweep finds the top-up.
    Redis,
}

/// A ledger that several lives share.
struct Books {
    url: String,
    folder: TempDir,
}

impl Books {
    async fn shop(&self, bank: &Bank) -> Shop {
        // As `recorded-api` opens it.
        let first = FirstRecord::new("recorded", "test", None);
        let ledger = Ledger::open(&self.url, &first, Options::default()).await.unwrap();
        Shop::open(bank.stripe(), ledger).await
    }

    async fn start(&self, bank: &Bank, crash: Option<&str>) -> Program {
        let mut environment = bank.environment().to_vec();
        environment.push(("FAREBOX_LEDGER", self.url.clone()));
        let record = self.folder.path().join("record");
        environment.push(("FAREBOX_RECORD", record.display().to_string()));
        environment.extend(crash.map(|crash| ("FAREBOX_CRASH", crash.to_owned())));
        Program::start("recorded-api", &environment).await
    }
}

impl Death {
    /// Lets a server die. Answers what went wrong with that.
    async fn happen(&self, books: &Books, bank: &Bank, client: &Client) -> Option<String> {
        let (crash, fault, times) = match self.moment {
            Moment::At(crash) | Moment::Resuming(crash, _) => (Some(crash), None, 0),
            Moment::In(call, kind, times) => (None, Some((call, kind)), times),
        };
        let mut program = books.start(bank, crash).await;
        if let Some(((method, path), kind)) = fault {
            bank.inject(Fault::at(method, path, kind).times(u32::MAX));
        }
        let (url, payment) = (program.url.clone(), client.payment.clone());
        let request =
            tokio::spawn(async move { Wire::default().get(&url, "/joke", &payment).await });
        if crash.is_some() && !program.dies(PATIENCE).await {
            return Some("the server did not die".to_owned());
        }
        let met = async || bank.faults_hit();
        if fault.is_some() {
            eventually(PATIENCE, met, |hit| *hit >= times).await;
        }
        program.kill().await;
        if !matches!(request.await, Ok(Err(Unanswered::Lost))) {
            return Some("the request was answered before the death".to_owned());
        }
        if let Moment::Resuming(_, kind) = self.moment {
            bank.inject(Fault::at(CHARGE.0, CHARGE.1, kind));
            let program = books.start(bank, None).await;
            eventually(PATIENCE, met, |hit| *hit == 1).await;
            program.kill().await;
        }
        None
    }

    /// The death, those who go on, and the judgement: what became of the try, and what is wrong.
    async fn run(&self, home: Home, books: &Books) -> (Word, Vec<String>) {
        let bank = Bank::open().await;
        let payment = by_card(&bank.method(&self.holder.number()).await);
        let mut client = Client::new("/joke", payment, &bank);
        let neighbour = match home {
            Home::Redis => Some(books.shop(&bank).await),
            Home::Embedded => None,
        };
        client.unanswered = 1;
        let failed = self.happen(books, &bank, &client).await;
        client.wrong.extend(failed);
        bank.clear_faults();
        let shop = match neighbour {
            Some(neighbour) => neighbour,
            None => books.shop(&bank).await,
        };
        shop.sweep(PATIENCE, &mut client.wrong).await;
        let top_ups = shop.top_ups().await;
        let word =
            top_ups.first().map_or(Word::NothingTaken, |(_, top_up)| Word::from(&top_up.state));
        if word != self.word || top_ups.len() > 1 {
            client.wrong.push(format!("{word}, not {}: {} top-ups", self.word, top_ups.len()));
        }
        client.judge(&shop, &bank).await;
        let last = client.insist(4, &shop, &bank).await;
        if !self.holder.may_end(last) {
            client.wrong.push(format!("at the end the client hears {last:?}"));
        }
        client.judge(&shop, &bank).await;
        if let Err(error) = shop.payments.close().await {
            client.wrong.push(error.to_string());
        }
        (word, client.wrong)
    }
}

/// All deaths at one home: what became of each, and what is wrong.
pub(super) async fn run_all(home: Home) -> Vec<(Word, Vec<String>)> {
    let redis = match home {
        Home::Redis => Some(Redis::start(Setup::persistent(Persistence::EverySecond)).await),
        Home::Embedded => None,
    };
    let one = async |(n, death): (usize, &Death)| {
        let folder = tempfile::tempdir().unwrap();
        let url = match &redis {
            Some(redis) => redis.url(&format!("shop{n}")),
            None => format!("embedded:{}", folder.path().join("books.redb").display()),
        };
        death.run(home, &Books { url, folder }).await
    };
    stream::iter(DEATHS.iter().enumerate()).map(one).buffered(AT_A_TIME).collect().await
}
