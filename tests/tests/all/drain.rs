//! SIGTERM under load: what is in flight is answered, and what was answered is on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farebox_ledger::audit::audit;
use farebox_ledger::{Ledger, Store as _};
use farebox_protocol::{Currency, PayerId};
use futures_util::future::join_all;

use crate::support::{
    Answer, Bank, Program, Wire, by_card, by_credential, card, eventually, whole_machine,
};

const CLIENTS: u32 = 16;

/// What a client knows in the end.
struct Known {
    payer: PayerId,
    acknowledged: i64,
    /// Requests that were sent and not answered.
    lost: usize,
}

/// Spends until the server does not listen any more. Half of the clients' last requests are
/// first requests, by a card that is still to be charged.
async fn spend(bank: Arc<Bank>, url: String, n: u32, answered: Arc<AtomicUsize>) -> Option<Known> {
    let (mut wire, method) = (Wire::default(), bank.method(&card(n)).await);
    let mut payment = by_card(&method);
    let mut known: Option<Known> = None;
    loop {
        let path = if n.is_multiple_of(2) { "/joke" } else { "/slow" };
        let answer: Answer = match wire.get(&url, path, &payment).await {
            Ok(answer) => answer,
            Err(unanswered) => {
                if let (Some(known), crate::support::Unanswered::Lost) = (&mut known, unanswered) {
                    known.lost += 1;
                }
                return known;
            }
        };
        assert!(answer.is_served(), "{answer:?}");
        answered.fetch_add(1, Ordering::SeqCst);
        let credential = answer.credential();
        let payer = credential.split('.').next().unwrap().parse().unwrap();
        payment = by_credential(&credential);
        let known = known.get_or_insert(Known { payer, acknowledged: 0, lost: 0 });
        known.acknowledged += answer.charged();
    }
}

async fn drains(settle_within: Option<u64>) {
    let _machine = whole_machine().await;
    let bank = Arc::new(Bank::slow(Duration::from_millis(100)).await);
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_LEDGER", ledger.clone()));
    if let Some(millis) = settle_within {
        environment.push(("FAREBOX_SETTLE_WITHIN", millis.to_string()));
    }
    let program = Program::start("recorded-api", &environment).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let spend = |n| tokio::spawn(spend(bank.clone(), program.url.clone(), n, answered.clone()));
    let early: Vec<_> = (0..CLIENTS).map(spend).collect();
    let count = async || answered.load(Ordering::SeqCst);
    eventually(Duration::from_secs(20), count, |count| *count >= 500).await;
    // These are at the bank when the signal comes.
    let late: Vec<_> = (CLIENTS..CLIENTS + 4).map(spend).collect();
    let charging = async || bank.charges().len();
    let cards = CLIENTS as usize + 1;
    eventually(Duration::from_secs(20), charging, |charges| *charges >= cards).await;
    program.terminate().await;
    let started = Instant::now();
    assert!(program.end().await.success(), "it did not exit as it should");
    let drained = started.elapsed();

    let known = join_all(early.into_iter().chain(late)).await;
    let known: Vec<Known> = known.into_iter().filter_map(Result::unwrap).collect();
    assert!(known.len() >= CLIENTS as usize);
    let (ledger, _) = Ledger::open_existing(&ledger).await.unwrap();
    let mut acknowledged = 0;
    for Known { payer, acknowledged: units, lost } in known {
        let account = ledger.load(&payer).await.unwrap().account(Currency::USD);
        let spent = account.spent.units_floor().get();
        // A connection that was idle may be closed just when its next request is on its way.
        assert!(lost <= 1);
        assert_eq!(spent, units, "what was acknowledged is on disk, and nothing else");
        acknowledged += units;
    }
    let audit = audit(&ledger, |_, _| ()).await.unwrap();
    assert!(audit.is_clean() && audit.open == 0, "{audit:?}");
    let totals = audit.totals[&Currency::USD];
    assert_eq!(totals.received, i128::from(bank.charged()) * 100);
    println!(
        "SIGTERM after {} answers, settle within {settle_within:?} ms: drained in {drained:?}, \
         exit 0; {acknowledged} units acknowledged, {acknowledged} on disk",
        answered.load(Ordering::SeqCst)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_has_written_what_it_acknowledged() {
    drains(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_settles_late_has_written_everything_when_it_stops() {
    // So late that only the end can have written it.
    drains(Some(60_000)).await;
}
