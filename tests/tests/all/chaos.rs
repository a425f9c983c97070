//! Many payers at once, with handlers that fail, clients that hang up and a bank that is not
//! always heard. Whatever happened, each payer's books balance.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farebox_protocol::{Payment, Units};
use futures_util::future::join_all;

use crate::support::{
    Bank, Books, Fault, Gate, Provider, by_card, by_credential, card, eventually, get,
    whole_machine,
};

const PAYERS: u32 = 6;
const WORKERS: u64 = 36;
const REQUESTS: usize = 25;
/// The paths, and what a served request costs there.
const PATHS: [(&str, i64); 6] = [
    ("/api/joke", 100),
    ("/api/joke", 100),
    ("/api/fail", 0),
    ("/api/missing", 0),
    ("/api/big", 50_000),
    ("/api/wait", 0),
];

/// One payer, as its own programs know it.
#[derive(Default)]
struct Known {
    credential: Option<String>,
    acknowledged: i64,
    unanswered: i64,
}

type Payers = Arc<Mutex<HashMap<u32, Known>>>;

/// The same seed makes the same choices; their order is the machine's.
struct Choices(u64);

impl Choices {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Sends requests of random payers, and gives up on some of them.
async fn work(provider: Arc<Provider>, methods: Arc<Vec<String>>, payers: Payers, seed: u64) {
    let mut choices = Choices(seed);
    for _ in 0..REQUESTS {
        let payer = u32::try_from(choices.below(methods.len())).unwrap();
        let (path, price) = PATHS[choices.below(PATHS.len())];
        let credential = payers.lock().unwrap().get(&payer).and_then(|p| p.credential.clone());
        let by_card = by_card(&methods[usize::try_from(payer).unwrap()]);
        let payment = match (credential, choices.below(3)) {
            (Some(credential), 0) => by_credential(&credential),
            (Some(credential), 1) => Payment {
                client_id: credential.parse().ok(),
                min_credit: Units::new(20_000),
                ..by_card
            },
            _ => by_card,
        };
        let patience = match (path, choices.below(3)) {
            ("/api/wait", _) => Duration::from_millis(20),
            ("/api/joke" | "/api/fail", 0) => Duration::from_millis(5),
            // Dear ones are waited for, so that what nobody knows stays far below a top-up.
            _ => Duration::from_secs(30),
        };
        let url = provider.at(path);
        let answer = tokio::time::timeout(patience, get(&provider.http, &url, &payment)).await;
        let mut payers = payers.lock().unwrap();
        let known = payers.entry(payer).or_default();
        match answer {
            Ok(Ok(answer)) if answer.headers.contains_key("payment-response") => {
                known.acknowledged += answer.charged();
                known.credential = Some(answer.credential());
            }
            Ok(answer) => assert!([402, 429, 503].contains(&answer.unwrap().status)),
            Err(_) => known.unanswered += price,
        }
    }
}

/// A payer's balance, and what was spent by requests that were given up, once all is quiet.
async fn audit(bank: &Bank, provider: &Provider, known: &Known) -> (i64, i64) {
    let credential = known.credential.as_ref().expect("every payer was served");
    let id = credential.split('.').next();
    let taken = || -> i64 {
        let charges = bank.charges();
        let charges = charges.iter().filter(|c| c.metadata.get("payer").map(|p| &**p) == id);
        charges.map(|charge| charge.amount * 100).sum()
    };
    let left = async || {
        let balance = provider.balance(credential).await;
        (balance, taken() - balance - known.acknowledged)
    };
    let balanced = |(_, missing): &(i64, i64)| (0..=known.unanswered).contains(missing);
    eventually(Duration::from_secs(20), left, balanced).await
}

async fn chaos(books: Books) {
    let _machine = whole_machine().await;
    let bank = Bank::open().await;
    let gate = Gate::open(&bank).await;
    let provider = Arc::new(Provider::with(bank.stripe_at(&gate.url), books).await);
    let mut methods = Vec::new();
    for n in 0..PAYERS {
        methods.push(bank.method(&card(n)).await);
    }
    let (methods, payers) = (Arc::new(methods), Payers::default());
    let workers = (0..WORKERS).map(|seed| {
        tokio::spawn(work(provider.clone(), methods.clone(), payers.clone(), seed + 1))
    });
    let mut workers = std::pin::pin!(join_all(workers));
    let mut faults = [(Fault::None, 150), (Fault::LoseAnswer, 50)].into_iter().cycle();
    let ended = loop {
        let (fault, millis) = faults.next().unwrap();
        gate.set(fault);
        let pause = Duration::from_millis(millis);
        if let Ok(ended) = tokio::time::timeout(pause, workers.as_mut()).await {
            break ended;
        }
    };
    assert!(ended.into_iter().all(|worker| worker.is_ok()), "a worker failed");
    gate.set(Fault::None);

    let (mut acknowledged, mut remaining, mut unknown) = (0, 0, 0);
    let payers = std::mem::take(&mut *payers.lock().unwrap());
    for known in payers.values() {
        let (balance, missing) = audit(&bank, &provider, known).await;
        remaining += balance;
        unknown += missing;
        acknowledged += known.acknowledged;
    }
    println!(
        "chaos, {books:?}: {} charges for {} calls, charged {} = remaining {remaining} \
         + acknowledged {acknowledged} + {unknown} of requests that were given up",
        bank.charges().len(),
        gate.charge_keys().len(),
        bank.charged(),
    );
    assert_eq!(bank.charged(), remaining + acknowledged + unknown);
    assert!(unknown < 50_000, "a lost top-up could hide in {unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_payers_books_balance_after_chaos_in_memory() {
    chaos(Books::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_payers_books_balance_after_chaos_on_disk() {
    chaos(Books::Embedded).await;
}
