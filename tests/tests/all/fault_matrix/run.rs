//! What happens in a cell.

use std::time::Duration;

use farebox_ledger::Ledger;
use farebox_ledger::store::Memory;
use farebox_protocol::Payment;

use super::asking;
use super::cells::{Call, Cell, Holder};
use super::client::Client;
use super::shop::Shop;
use super::words::{Heard, Word};
use crate::support::{Bank, DECLINED_CARD, HOLDER_CARD, by_card, card};

/// The longest pause of a driver, the longest call before it, and some more.
const AFTER_THE_SWEEP: Duration = Duration::from_secs(90);

/// What was seen in a cell.
pub(super) struct Report {
    pub(super) first: Heard,
    pub(super) word: Word,
    pub(super) wrong: Vec<String>,
}

impl Holder {
    pub(super) fn number(self) -> String {
        match self {
            Holder::Pays => card(1),
            Holder::Declined => DECLINED_CARD.to_owned(),
            Holder::Wanted | Holder::Awaited => HOLDER_CARD.to_owned(),
        }
    }
}

/// A bank and a provider of one cell, and the client whose purchase goes wrong.
async fn set(call: Call) -> (Bank, Shop, Client) {
    let (bank, holder) = (Bank::open().await, call.holder());
    let stripe = match holder {
        Holder::Awaited => bank.stripe_at(&asking::wire(bank.url()).await),
        _ => bank.stripe(),
    };
    let shop = Shop::open(stripe, Ledger::Memory(Memory::default())).await;
    let first = by_card(&bank.method(&holder.number()).await);
    let (path, payment) = match call {
        Call::Verify | Call::Reread => {
            shop.buys_a_joke(&first).await;
            ("/joke", by_card(&bank.method(&holder.number()).await))
        }
        Call::Claim => {
            let other = by_card(&bank.method(&card(2)).await);
            let client_id = Some(shop.buys_a_joke(&other).await);
            ("/big", Payment { client_id, ..first })
        }
        _ => ("/joke", first),
    };
    let client = Client::new(path, payment, &bank);
    (bank, shop, client)
}

pub(super) async fn run(cell: Cell) -> Report {
    let Cell { call, kind, span } = cell;
    let (bank, shop, mut client) = set(call).await;
    let before = bank.charges().len();
    let faults: Vec<_> = call.leads_there().into_iter().chain([call.fault(kind, span)]).collect();
    let wanted = faults.len();
    faults.into_iter().for_each(|fault| bank.inject(fault));

    let first = client.ask(&shop, &bank).await;
    let tried = client.payment.top_up_id;
    let mut last = first;
    if last.is_no_end() {
        last = client.ask(&shop, &bank).await;
    }
    if bank.faults_hit() < wanted {
        client.wrong.push("the fault was not met".to_owned());
    }
    bank.clear_faults();
    shop.sweep(AFTER_THE_SWEEP, &mut client.wrong).await;
    let word = match (first, tried) {
        (Heard::Pending, Some(id)) => shop.word(id).await,
        (Heard::Served, _) if bank.charges().len() > before => Word::Credited,
        (Heard::Served, _) => Word::FromCredit,
        (Heard::Declined, _) => Word::Declined,
        (Heard::HolderWanted, _) => Word::HolderWanted,
        _ => Word::NothingTaken,
    };
    if last.is_no_end() {
        last = client.insist(4, &shop, &bank).await;
    }
    if !call.holder().may_end(last) {
        client.wrong.push(format!("at the end the client hears {last:?}"));
    }
    client.judge(&shop, &bank).await;
    if let Err(error) = shop.payments.close().await {
        client.wrong.push(error.to_string());
    }
    let expected = cell.expected();
    if expected != (first, word) {
        client.wrong.push(format!("{first:?} and {word}, not {:?} and {}", expected.0, expected.1));
    }
    Report { first, word, wrong: client.wrong }
}
