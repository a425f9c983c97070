//! What is known of a payer, on one sheet: what the admin routes answer, and how it is shown.

use farebox_ledger::book::Limit;
use farebox_ledger::{Account, Book, Timestamp};
use farebox_protocol::{Currency, Micros, PayerId};
use serde::{Deserialize, Serialize};

use crate::freezes;
use crate::terminal::{self, BAD, CAREFUL, Cell, DIM, HEADING};

/// `GET accounts/{payer}` of the admin routes. Amounts are micros.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sheet {
    pub(crate) payer: PayerId,
    pub(crate) generation: u32,
    /// Whose card this book is named after, if it is not this payer's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<PayerId>,
    pub(crate) frozen: Vec<String>,
    pub(crate) credentials: Vec<CredentialRow>,
    pub(crate) known_cards: usize,
    pub(crate) accounts: Vec<AccountRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CredentialRow {
    pub(crate) number: u16,
    label: String,
    issued: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    spent: Micros,
    reserved: Micros,
    /// In days since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountRow {
    pub(crate) currency: Currency,
    pub(crate) available: Micros,
    reserved: Micros,
    pub(crate) refunding: Micros,
    spent: Micros,
    received: Micros,
    refunded: Micros,
    withdrawn: Micros,
    /// The number of the top-up of which it is not known what became.
    open_top_up: Option<u64>,
    /// How many have ended.
    top_ups: u64,
}

impl Sheet {
    pub(crate) fn of(payer: PayerId, book: &Book) -> Sheet {
        let head = &book.head;
        let credentials = head.credentials.iter().map(|(&number, credential)| CredentialRow {
            number,
            label: credential.label.to_string(),
            issued: credential.issued,
            limit: credential.limit,
            spent: credential.spent,
            reserved: credential.reserved,
            last_used: credential.last_used,
        });
        let accounts = head.accounts.iter();
        Sheet {
            payer,
            generation: head.generation,
            owner: head.owner,
            frozen: head.frozen.iter().map(ToString::to_string).collect(),
            credentials: credentials.collect(),
            known_cards: head.known.len(),
            accounts: accounts
                .map(|(&currency, account)| AccountRow::of(currency, account))
                .collect(),
        }
    }

    /// The sheet in words, for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{HEADING}Payer {}{HEADING:#}\n", self.payer);
        let cards = match self.known_cards {
            0 => "no card that it is known by".to_owned(),
            1 => "1 card that it is known by".to_owned(),
            cards => format!("{cards} cards that it is known by"),
        };
        text.push_str(&format!("Credentials of generation {}, {cards}\n", self.generation));
        if let Some(owner) = self.owner.filter(|owner| *owner != self.payer) {
            text.push_str(&format!("The card that this book is named after pays for {owner}\n"));
        }
        if !self.frozen.is_empty() {
            text.push_str(&freezes::text(self.payer, &self.frozen));
        }
        text.push('\n');
        if self.accounts.is_empty() {
            text.push_str("No money was ever paid in.\n");
        } else {
            text.push_str(&self.balances());
        }
        for account in &self.accounts {
            if account.refunding > Micros::ZERO {
                let amount = terminal::money(account.refunding, account.currency);
                text.push_str(&format!(
                    "{CAREFUL}{amount} is on its way back to a card{CAREFUL:#}: Stripe has yet to \
                     say how the refund ended. A server goes on with it.\n"
                ));
            }
            if account.available < Micros::ZERO {
                text.push_str(&format!(
                    "{BAD}More {} was taken back than was unspent{BAD:#}: the next top-up pays \
                     this first.\n",
                    account.currency
                ));
            }
            if let Some(number) = account.open_top_up {
                let currency = account.currency;
                text.push_str(&format!(
                    "{CAREFUL}Top-up {number} in {currency} is open{CAREFUL:#}: Stripe has yet to \
                     say what became of its charge.\n"
                ));
            }
        }
        if !self.credentials.is_empty() {
            text.push_str(&format!("\n{}", self.issued()));
        }
        text
    }

    fn balances(&self) -> String {
        type Of = fn(&AccountRow) -> Micros;
        let rows: [(&str, Of); 7] = [
            ("available", |account| account.available),
            ("reserved", |account| account.reserved),
            ("being refunded", |account| account.refunding),
            ("spent", |account| account.spent),
            ("received", |account| account.received),
            ("refunded", |account| account.refunded),
            ("withdrawn", |account| account.withdrawn),
        ];
        let amounts =
            |of: Of| self.accounts.iter().map(move |account| i128::from(of(account).get()));
        let rows = rows.map(|(name, of)| (name, amounts(of).collect()));
        let currencies: Vec<_> = self.accounts.iter().map(|account| account.currency).collect();
        sums(&currencies, &rows)
    }

    fn issued(&self) -> String {
        let heads = ["credential", "label", "issued", "spent", "reserved", "limit", "last used"];
        let mut rows = vec![heads.map(|head| Cell::left(head).style(DIM)).to_vec()];
        for row in &self.credentials {
            // Only a credential with a limit counts what it spends.
            let counted = |micros: Micros| match row.limit {
                Some(limit) => terminal::decimal(micros.get().into(), limit.currency),
                None => String::new(),
            };
            let limit = row.limit.map_or("none".to_owned(), |limit| {
                format!("{} {}", counted(limit.amount), limit.currency)
            });
            let day = |day: u32| terminal::utc(i64::from(day) * 86_400_000, "%Y-%m-%d");
            rows.push(vec![
                Cell::right(row.number.to_string()),
                Cell::left(terminal::tame(&row.label)),
                Cell::left(day(row.issued.day())),
                Cell::right(counted(row.spent)),
                Cell::right(counted(row.reserved)),
                Cell::right(limit),
                Cell::left(row.last_used.map_or("never".to_owned(), day)),
            ]);
        }
        terminal::table(&rows)
    }
}

impl AccountRow {
    fn of(currency: Currency, account: &Account) -> AccountRow {
        AccountRow {
            currency,
            available: account.available,
            reserved: account.reserved,
            refunding: account.refunding,
            spent: account.spent,
            received: account.received,
            refunded: account.refunded,
            withdrawn: account.withdrawn,
            open_top_up: account.open,
            top_ups: account.ended,
        }
    }
}

/// A table of named amounts, with a column for each currency.
pub(crate) fn sums(currencies: &[Currency], rows: &[(&str, Vec<i128>)]) -> String {
    let mut head = vec![Cell::left("")];
    head.extend(currencies.iter().map(|currency| Cell::right(currency.code()).style(DIM)));
    let mut table = vec![head];
    table.extend(rows.iter().map(|(name, _)| vec![Cell::left(*name)]));
    for (column, &currency) in currencies.iter().enumerate() {
        let amount = |micros: Option<&i128>| {
            terminal::decimal(micros.copied().unwrap_or_default(), currency)
        };
        let mut texts: Vec<_> = rows.iter().map(|(_, row)| amount(row.get(column))).collect();
        terminal::align_points(&mut texts);
        for ((text, (_, row)), line) in texts.into_iter().zip(rows).zip(table.iter_mut().skip(1)) {
            let cell = Cell::right(text);
            line.push(match row.get(column) {
                Some(0) | None => cell.style(DIM),
                Some(negative) if *negative < 0 => cell.style(BAD),
                Some(_) => cell,
            });
        }
    }
    terminal::table(&table)
}
