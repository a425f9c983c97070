//! `farebox reconcile`: Stripe's list of charges against the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::str::FromStr;

use farebox_ledger::Totals;
use farebox_ledger::clock::{Clock as _, SystemClock};
use farebox_middleware::{Difference, Micros, PayerId, Reconciliation, What};
use farebox_protocol::TopUpId;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::source::Place;
use crate::terminal::{self, BAD, CAREFUL, Cell, DIM, GOOD, HEADING, Progress};
use crate::till::{Till, unless_interrupted};
use crate::{Fault, TO_LOOK_AT};

const DAY_SECONDS: i64 = 24 * 3_600;
/// Longer ago than any charge at Stripe.
const DAYS_MAX: i64 = 36_500;

#[derive(clap::Args)]
#[command(
    after_help = "It asks Stripe once for every hundred charges, and two or three times more for \
    each one that was refunded or disputed, or is not agreed about. It may run beside servers, as \
    often as you like.\n\nOn the ledger itself (--ledger), this asks Stripe with STRIPE_SECRET_KEY \
    and STRIPE_PUBLISHABLE_KEY, and needs FAREBOX_SECRET or the secret beside the file. The ledger \
    is opened as a server opens it, so that open top-ups are finished, also with --dry-run.\n\n\
    Exit status: 0 if everything agrees or was booked, 4 if something is left for you to look at \
    (or, with --dry-run, does not agree), 1 if the comparison could not be made."
)]
pub(crate) struct Options {
    /// From when on: so many days or hours ago (7d, 24h), or a day in UTC (2026-11-01).
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: Since,
    /// Only tell the differences.
    #[arg(long)]
    dry_run: bool,
    /// Print one line of JSON, amounts in micros.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// A time in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So many seconds ago.
    Ago(i64),
    /// The beginning of a day, in seconds since 1970.
    Day(i64),
}

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Since, Self::Err> {
        const WRONG: &str = "say how long ago, such as 7d or 24h, or a day such as 2026-11-01";
        let unit = |suffix: char, seconds: i64| {
            let count = text.strip_suffix(suffix)?;
            let count = count.bytes().all(|b| b.is_ascii_digit()).then(|| count.parse().ok())??;
            let most = DAYS_MAX * DAY_SECONDS / seconds;
            Some(count).filter(|count| (1..=most).contains(count)).map(|count| count * seconds)
        };
        if let Some(seconds) = unit('d', DAY_SECONDS).or_else(|| unit('h', 3_600)) {
            return Ok(Since::Ago(seconds));
        }
        let day = Date::strptime("%Y-%m-%d", text).ok().filter(|day| day.to_string() == text);
        let day = day.and_then(|day| day.to_zoned(TimeZone::UTC).ok()).ok_or(WRONG)?;
        Ok(Since::Day(day.timestamp().as_second()))
    }
}

impl Since {
    /// In seconds since 1970.
    pub(crate) fn at(self, now: i64) -> Result<i64, Fault> {
        match self {
            Since::Ago(seconds) => Ok((now - seconds).max(0)),
            Since::Day(day) if day > now => {
                Err("--since is in the future: name a day that was".into())
            }
            Since::Day(day) => Ok(day.max(0)),
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// In seconds since 1970.
    since: i64,
    repair: bool,
    #[serde(flatten)]
    found: &'a Reconciliation,
}

pub(crate) async fn run(options: Options) -> Result<ExitCode, Fault> {
    let Options { since, dry_run, json, place } = options;
    let since = since.at(SystemClock.now().seconds())?;
    let till = Till::open(place).await?;
    let work = async {
        let progress = Progress::waiting("comparing with Stripe");
        let found = till.reconcile(since, !dry_run).await?;
        let strangers = strangers(&till, &found).await?;
        drop(progress);
        Ok((found, strangers))
    };
    let done = unless_interrupted(work, "what was booked stays booked; run it again").await;
    till.close().await;
    let (found, strangers) = done?;
    match json {
        true => terminal::print_json(&Report { since, repair: !dry_run, found: &found })?,
        false => terminal::print(&Told { found: &found, since, dry_run, strangers }.text())?,
    }
    let settled =
        |difference: &Difference| matches!(difference.what, What::Totals { .. }) && !dry_run;
    let is_settled = found.unread.is_empty() && found.differences.iter().all(settled);
    Ok(if is_settled { ExitCode::SUCCESS } else { ExitCode::from(TO_LOOK_AT) })
}

/// Payers of money that has no place in the ledger, whom the ledger does not know at all: they
/// cannot be frozen.
async fn strangers(till: &Till, found: &Reconciliation) -> Result<BTreeSet<PayerId>, Fault> {
    let mut strangers = BTreeSet::new();
    let lost = |difference: &&Difference| matches!(difference.what, What::NotInLedger { .. });
    let payers: BTreeSet<_> =
        found.differences.iter().filter(lost).map(|difference| difference.top_up.payer).collect();
    for payer in payers {
        if !till.knows(payer).await? {
            strangers.insert(payer);
        }
    }
    Ok(strangers)
}

/// What was found, and what its words depend on.
struct Told<'a> {
    found: &'a Reconciliation,
    since: i64,
    dry_run: bool,
    strangers: BTreeSet<PayerId>,
}

/// What became of a difference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Booked,
    Unchanged,
    Unread,
    Stranger,
    FrozenUnbooked,
    FrozenUnpaid,
}

impl Told<'_> {
    fn text(&self) -> String {
        let Reconciliation { charges, top_ups, differences, unread } = self.found;
        let since = terminal::utc(self.since.saturating_mul(1_000), "%Y-%m-%d %H:%M");
        let mut text = format!(
            "{HEADING}Since {since} UTC{HEADING:#}: {charges} charges at Stripe, {top_ups} \
             top-ups in the ledger, {} differences\n",
            differences.len()
        );
        let mut payers: BTreeMap<PayerId, Vec<&Difference>> = BTreeMap::new();
        for difference in differences {
            payers.entry(difference.top_up.payer).or_default().push(difference);
        }
        for (payer, differences) in &payers {
            text.push_str(&format!("\n{HEADING}Payer {payer}{HEADING:#}\n"));
            text.push_str(&self.table(differences));
        }
        let told: BTreeSet<&str> =
            differences.iter().map(|difference| difference.intent.as_str()).collect();
        for intent in unread.iter().filter(|intent| !told.contains(intent.as_str())) {
            let intent = terminal::tame(intent);
            text.push_str(&format!("\n{BAD}{intent}{BAD:#} could not be read\n"));
        }
        if differences.is_empty() && unread.is_empty() {
            text.push_str(&format!("{GOOD}Stripe and the ledger agree.{GOOD:#}\n"));
            return text;
        }
        let mut done: BTreeSet<Done> = differences.iter().map(|one| self.done(one)).collect();
        if !unread.is_empty() {
            done.insert(Done::Unread);
        }
        text.push('\n');
        done.iter().for_each(|done| text.push_str(done.next()));
        text
    }

    fn table(&self, differences: &[&Difference]) -> String {
        let column = |of: fn(&What) -> Micros| {
            let amount = |one: &&Difference| {
                terminal::decimal(of(&one.what).get().into(), one.top_up.currency)
            };
            let mut amounts: Vec<_> = differences.iter().map(amount).collect();
            terminal::align_points(&mut amounts);
            amounts
        };
        let (ledger, stripe) = (column(in_ledger), column(at_stripe));
        let heads = [
            Cell::left("top-up"),
            Cell::left("intent"),
            Cell::right("ledger"),
            Cell::right("Stripe"),
            Cell::left(""),
            Cell::left("what differs"),
            Cell::left("done"),
        ];
        let mut rows = vec![heads.map(|cell| cell.style(DIM)).to_vec()];
        for ((one, ledger), stripe) in differences.iter().zip(ledger).zip(stripe) {
            let TopUpId { currency, number, .. } = one.top_up;
            let done = self.done(one);
            rows.push(vec![
                Cell::right(number.to_string()),
                Cell::left(terminal::tame(&one.intent)),
                Cell::right(ledger),
                Cell::right(stripe),
                Cell::left(currency.code()),
                Cell::left(differs(&one.what)),
                Cell::left(done.word()).style(done.style()),
            ]);
        }
        terminal::table(&rows)
    }

    fn done(&self, one: &Difference) -> Done {
        match one.what {
            _ if self.dry_run => Done::Unchanged,
            _ if self.found.unread.contains(&one.intent) => Done::Unread,
            What::Totals { .. } => Done::Booked,
            What::NotInLedger { .. } if self.strangers.contains(&one.top_up.payer) => {
                Done::Stranger
            }
            What::NotInLedger { .. } => Done::FrozenUnbooked,
            What::NotAtStripe { .. } => Done::FrozenUnpaid,
        }
    }
}

/// What a charge is worth to its account, after refunds and disputes.
fn in_ledger(what: &What) -> Micros {
    match what {
        What::Totals { ledger, .. } => ledger.net().unwrap_or_default(),
        What::NotInLedger { .. } => Micros::ZERO,
        What::NotAtStripe { worth } => *worth,
    }
}

fn at_stripe(what: &What) -> Micros {
    match what {
        What::Totals { stripe, .. } => stripe.net().unwrap_or_default(),
        What::NotInLedger { worth } => *worth,
        What::NotAtStripe { .. } => Micros::ZERO,
    }
}

fn differs(what: &What) -> String {
    let (ledger, stripe) = match what {
        What::Totals { ledger, stripe } => (ledger, stripe),
        What::NotInLedger { .. } => return "not in the ledger".to_owned(),
        What::NotAtStripe { .. } => return "not at Stripe".to_owned(),
    };
    type Of = fn(&Totals) -> Micros;
    let parts: [(&str, Of); 3] = [
        ("received", |totals| totals.received),
        ("refunded", |totals| totals.refunded),
        ("withdrawn", |totals| totals.withdrawn),
    ];
    let parts = parts.iter().filter(|(_, of)| of(ledger) != of(stripe)).map(|(name, _)| *name);
    parts.collect::<Vec<_>>().join(", ")
}

impl Done {
    fn word(self) -> &'static str {
        match self {
            Done::Booked => "booked",
            Done::Unchanged => "not changed (--dry-run)",
            Done::Unread => "could not be booked",
            Done::Stranger => "nothing: no payer of this ledger",
            Done::FrozenUnbooked | Done::FrozenUnpaid => "payer frozen",
        }
    }

    fn style(self) -> anstyle::Style {
        match self {
            Done::Booked => GOOD,
            Done::Unchanged => CAREFUL,
            Done::Unread | Done::Stranger | Done::FrozenUnbooked | Done::FrozenUnpaid => BAD,
        }
    }

    /// What to do next.
    fn next(self) -> &'static str {
        match self {
            Done::Booked => "Booked: the ledger says what Stripe says; there is nothing to do.\n",
            Done::Unchanged => "Without --dry-run, this is booked, or its payer frozen.\n",
            Done::Unread => {
                "Could not be read or booked: run it again; if it stays, the server's log says why.\n"
            }
            Done::Stranger => {
                "No payer of this ledger: if no other ledger uses this Stripe account, give the \
                 money back at Stripe, or restore the ledger that the payer was in.\n"
            }
            Done::FrozenUnbooked => {
                "Not in the ledger: a card paid, and no top-up here waits for the money. Give it \
                 back at Stripe and run this again, which unfreezes the payer; or\n  farebox \
                 account unfreeze PAYER --reason unbooked_INTENT\n"
            }
            Done::FrozenUnpaid => {
                "Not at Stripe: there is credit that no charge paid. Find out why (keys of another \
                 account, a restored backup), and then\n  farebox account unfreeze PAYER --reason \
                 unpaid_INTENT\n"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_days_or_hours_ago_or_a_day_in_utc() {
        let since = |text: &str| text.parse::<Since>().ok();
        assert_eq!(since("7d"), Some(Since::Ago(7 * 86_400)));
        assert_eq!(since("24h"), Some(Since::Ago(86_400)));
        assert_eq!(since("2026-11-01"), Some(Since::Day(1_793_491_200)));
        for wrong in [
            "",
            "d",
            "0d",
            "-7d",
            "+7d",
            "7",
            "7m",
            "7 d",
            "1.5d",
            "36501d",
            "2026-11-1",
            "2026-02-30",
            "2026-11-01T00:00",
            "99999999999999999999h",
        ] {
            assert_eq!(since(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_before_there_were_charges_is_the_first_one_and_the_future_is_refused() {
        let at = |text: &str, now| text.parse::<Since>().unwrap().at(now).ok();
        assert_eq!(at("1d", 86_401), Some(1));
        assert_eq!(at("2d", 86_401), Some(0));
        assert_eq!(at("2026-11-01", 1_793_491_200), Some(1_793_491_200));
        assert_eq!(at("2026-11-01", 1_793_491_199), None);
    }
}
