//! `farebox account refund`: unspent credit goes back to the cards that paid it.

use std::io::{self, IsTerminal as _};
use std::num::NonZeroU64;
use std::process::ExitCode;

use farebox_protocol::{AmountError, Currency, Micros, Money, PayerId, TopUpId};
use serde::{Deserialize, Serialize};

use crate::sheet::{AccountRow, Sheet};
use crate::source::Place;
use crate::terminal::{self, BAD, CAREFUL, Cell, DIM, GOOD, Progress};
use crate::till::{Till, unless_interrupted};
use crate::{Fault, TO_LOOK_AT};

#[derive(clap::Args)]
#[command(
    after_help = "Each charge is refunded in a refund of its own, the newest first, never more \
    than is unspent. On the ledger itself (--ledger), this asks Stripe with STRIPE_SECRET_KEY and \
    STRIPE_PUBLISHABLE_KEY, and needs FAREBOX_SECRET or the secret beside the file.\n\nExit \
    status: 0 if all that was asked is given back, 4 if Stripe refused part of it, does not say \
    yet, or less was unspent by then, 1 if nothing was given back."
)]
pub(crate) struct Options {
    /// The payer's id: 64 hex digits.
    #[arg(value_parser = crate::account::payer)]
    payer: PayerId,
    /// How much, such as 3.20; without it, all that is unspent.
    #[arg(long)]
    amount: Option<String>,
    /// The account's currency; needed if the payer has several.
    #[arg(long, value_parser = currency)]
    currency: Option<Currency>,
    /// Only what this top-up paid; `farebox account statement` numbers them.
    #[arg(long, value_name = "N")]
    top_up: Option<NonZeroU64>,
    /// Do not ask first. Needed where there is no terminal to ask on.
    #[arg(long)]
    yes: bool,
    /// Print one line of JSON, amounts in micros.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What a server is asked: `POST accounts/{payer}/refund` of the admin routes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ask {
    pub(crate) currency: Currency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) amount: Option<Micros>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_up: Option<u64>,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
pub(crate) struct Given {
    currency: Currency,
    parts: Vec<Part>,
}

/// One refund of one charge.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    top_up: TopUpId,
    amount: Micros,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Done,
    Refused,
    Pending,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    payer: PayerId,
    #[serde(flatten)]
    given: &'a Given,
    /// What the payer has left; `null`: it could not be asked.
    available: Option<Micros>,
}

fn currency(text: &str) -> Result<Currency, AmountError> {
    text.to_ascii_lowercase().parse()
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    if !options.yes && !io::stdin().is_terminal() {
        return Err("there is no terminal to ask on: say --yes to give the credit back".into());
    }
    let Options { payer, amount, currency, top_up, yes, json, place } = options;
    let till = Till::open(place).await?;
    let work = async {
        let sheet = till.sheet(payer).await?;
        let account = account(&sheet, currency)?;
        let amount = amount.map(|amount| exact(&amount, account.currency)).transpose()?;
        let ask = Ask { currency: account.currency, amount, top_up: top_up.map(NonZeroU64::get) };
        let most = most(account, amount)?;
        if !yes {
            confirm(&sheet, &ask, most).await?;
        }
        let progress = Progress::waiting("giving back");
        let given = till.refund(payer, &ask).await?;
        drop(progress);
        // What is done is told, also if this cannot be read.
        Ok((given, ask, till.sheet(payer).await.ok()))
    };
    let done =
        unless_interrupted(work, "a refund that had begun goes on; see `account show`").await;
    till.close().await;
    let (given, ask, sheet) = done?;
    let left = sheet.as_ref().and_then(|sheet| account(sheet, Some(ask.currency)).ok());
    let left = left.map(|account| account.available);
    match json {
        true => terminal::print_json(&Report { payer, given: &given, available: left })?,
        false => terminal::print(&text(&given, left))?,
    }
    let is_all = ask.amount.is_none_or(|asked| given.sum(State::Done) == asked);
    let is_done = is_all && given.parts.iter().all(|part| part.state == State::Done);
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(TO_LOOK_AT) })
}

/// The account that is meant.
fn account(sheet: &Sheet, currency: Option<Currency>) -> Result<&AccountRow, Fault> {
    let accounts = &sheet.accounts;
    let names = || {
        let names: Vec<_> = accounts.iter().map(|account| account.currency.code()).collect();
        names.join(", ")
    };
    match (currency, accounts.as_slice()) {
        (_, []) => Err("no money was ever paid in: there is nothing to give back".into()),
        (Some(currency), _) => {
            let found = accounts.iter().find(|account| account.currency == currency);
            found.ok_or_else(|| {
                format!("the payer has no account in {currency}, only in {}", names()).into()
            })
        }
        (None, [account]) => Ok(account),
        (None, _) => {
            Err(format!("the payer has several accounts: say --currency, one of {}", names())
                .into())
        }
    }
}

/// Reads an amount that a card can be given back: never rounded.
fn exact(text: &str, currency: Currency) -> Result<Micros, Fault> {
    let amount = Money::parse(text, currency);
    let tame = terminal::tame(text);
    let least = currency.chargeable(Micros::new(1).unwrap_or_default()).unwrap_or_default();
    let least = terminal::money(least, currency);
    match amount.map(Money::micros) {
        Ok(Micros::ZERO) => Err("the amount must be above zero".into()),
        Ok(micros) if currency.refundable(micros) == micros => Ok(micros),
        Ok(_) | Err(AmountError::TooPrecise) => Err(format!(
            "{tame} has too many decimals for {currency}: Stripe gives back multiples of {least}"
        )
        .into()),
        Err(error) => Err(format!("{tame} is no amount: {error}").into()),
    }
}

/// The most that may go back, which a server may find to be less.
fn most(account: &AccountRow, amount: Option<Micros>) -> Result<Micros, Fault> {
    let AccountRow { currency, available, .. } = *account;
    let most = currency.refundable(available);
    match amount {
        _ if most <= Micros::ZERO => Err(format!(
            "there is nothing to give back: {} is unspent",
            terminal::money(available, currency)
        )
        .into()),
        Some(amount) if amount > most => {
            Err(format!("only {} can be given back", terminal::money(most, currency)).into())
        }
        amount => Ok(amount.unwrap_or(most)),
    }
}

/// Says what is about to happen, and asks.
async fn confirm(sheet: &Sheet, ask: &Ask, most: Micros) -> Result<(), Fault> {
    let amount = terminal::money(most, ask.currency);
    let (how, from) = match (ask.amount, ask.top_up) {
        (Some(_), None) => ("", "to the cards that paid it, newest charge first".to_owned()),
        (None, None) => ("All that is unspent: ", "to the cards that paid it".to_owned()),
        (Some(_), Some(n)) => ("", format!("to the card that paid top-up {n}")),
        (None, Some(n)) => ("Up to ", format!("to the card that paid top-up {n}")),
    };
    anstream::eprintln!("Payer {}", sheet.payer);
    if !sheet.frozen.is_empty() {
        anstream::eprint!("{}", crate::freezes::text(sheet.payer, &sheet.frozen));
    }
    anstream::eprintln!("{how}{amount} goes back {from}.");
    match terminal::yes("Give it back?").await? {
        true => Ok(()),
        false => Err("nothing was given back".into()),
    }
}

impl Given {
    fn sum(&self, state: State) -> Micros {
        let parts = self.parts.iter().filter(|part| part.state == state);
        parts.fold(Micros::ZERO, |sum, part| sum.checked_add(part.amount).unwrap_or(sum))
    }
}

/// What became of it, in words.
fn text(given: &Given, left: Option<Micros>) -> String {
    let currency = given.currency;
    let amounts =
        given.parts.iter().map(|part| terminal::decimal(part.amount.get().into(), currency));
    let mut amounts: Vec<_> = amounts.collect();
    terminal::align_points(&mut amounts);
    let heads = [Cell::left("top-up"), Cell::right("amount"), Cell::left(""), Cell::left("")];
    let mut rows = vec![heads.map(|cell| cell.style(DIM)).to_vec()];
    for (part, amount) in given.parts.iter().zip(amounts) {
        let (state, style) = match part.state {
            State::Done => ("given back", GOOD),
            State::Refused => ("refused by Stripe; it is credit again", BAD),
            State::Pending => ("not known yet; the server goes on with it", CAREFUL),
        };
        rows.push(vec![
            Cell::right(part.top_up.number.to_string()),
            Cell::right(amount),
            Cell::left(currency.code()),
            Cell::left(state).style(style),
        ]);
    }
    let mut text = terminal::table(&rows);
    text.push_str(&format!(
        "\n{} is given back.",
        terminal::money(given.sum(State::Done), currency)
    ));
    if let Some(left) = left {
        text.push_str(&format!(" The payer has {} left.", terminal::money(left, currency)));
    }
    text.push('\n');
    if given.parts.iter().any(|part| part.state == State::Refused) {
        text.push_str(
            "Stripe refuses refunds of charges that are disputed or too old: look at the charge \
             in its dashboard.\n",
        );
    }
    text
}
