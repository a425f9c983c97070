//! What the bank took and what the books say, compared at the end.

use std::collections::BTreeMap;

use farebox_ledger::{Book, Entry, EntryId, TopUpState};
use farebox_protocol::TopUpId;

use super::client::Client;
use super::shop::Shop;
use crate::support::Bank;

/// What a request costs, in micros.
const PRICES: [(&str, i64); 2] = [("/joke", 10_000), ("/big", 5_000_000)];

impl Client {
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
