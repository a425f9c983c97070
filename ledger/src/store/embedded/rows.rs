//! How a book is laid out in the file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `heads` | payer | head, as JSON |
//! | `entries` | payer, `t`, currency, number | top-up, as JSON |
//! | | payer, `k`, key | claim that was charged, as JSON |
//! | | payer, `u`, hour, currency, route | micros, as JSON |
//! | `due` | until, payer, key | nothing: a claim to forget |
//! | | 0, payer, currency, number | nothing: a top-up about which Stripe is to be asked |
//! | `meta` | `first` | first record, as JSON |
//!
//! Numbers are big-endian, so that rows stand in their order.

use farebox_protocol::{Currency, Micros, PayerId, TopUpId};
use redb::TableDefinition;

use super::Fault;
use crate::book::{
    Book, Claim, ClaimKey, ClaimState, Entry, EntryId, Route, USAGE_HOURS, UsageKey,
};
use crate::clock::Timestamp;
use crate::store::Due;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) const HEADS: Table = TableDefinition::new("heads");
pub(super) const ENTRIES: Table = TableDefinition::new("entries");
pub(super) const DUE: Table = TableDefinition::new("due");
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const FIRST: &str = "first";

const PAYER_BYTES: usize = 32;
const TOP_UP: u8 = b't';
const CLAIM: u8 = b'k';
const USAGE: u8 = b'u';

fn key(payer: &PayerId, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = payer.as_bytes().to_vec();
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// The key of an entry; reservations have none.
pub(super) fn entry_key(payer: &PayerId, id: EntryId) -> Option<Vec<u8>> {
    match id {
        EntryId::Reservation(_) => None,
        EntryId::Claim(claim) => Some(key(payer, CLAIM, &[claim.as_bytes()])),
        EntryId::TopUp(currency, number) => {
            Some(key(payer, TOP_UP, &[currency.code().as_bytes(), &number.to_be_bytes()]))
        }
    }
}

pub(super) fn usage_key(payer: &PayerId, row: &UsageKey) -> Vec<u8> {
    let UsageKey { hour, currency, route } = row;
    let parts = [&hour.to_be_bytes(), currency.code().as_bytes(), route.as_str().as_bytes()];
    key(payer, USAGE, &parts)
}

/// The usage rows of a payer that are forgotten at `now`.
pub(super) fn forgotten_usage(payer: &PayerId, now: Timestamp) -> std::ops::Range<Vec<u8>> {
    let first_kept = now.hour().saturating_sub(USAGE_HOURS);
    key(payer, USAGE, &[])..key(payer, USAGE, &[&first_kept.to_be_bytes()])
}

/// All entries of a payer.
pub(super) fn of_payer(payer: &PayerId) -> std::ops::RangeInclusive<Vec<u8>> {
    key(payer, 0, &[])..=key(payer, u8::MAX, &[])
}

/// The key under which it is found that an entry waits for something.
pub(super) fn due_key(payer: &PayerId, id: EntryId, entry: &Entry) -> Option<Vec<u8>> {
    let (mut key, name) = match (id, entry) {
        (
            EntryId::Claim(claim),
            Entry::Claim(Claim { state: ClaimState::Done { until, .. }, .. }),
        ) => (due_before(*until), claim.as_bytes().to_vec()),
        (EntryId::TopUp(currency, number), Entry::TopUp(top_up)) if top_up.is_open() => {
            let name = [currency.code().as_bytes(), &number.to_be_bytes()].concat();
            (NO_TIME.to_vec(), name)
        }
        _ => return None,
    };
    key.extend_from_slice(payer.as_bytes());
    key.extend_from_slice(&name);
    Some(key)
}

/// Before all times.
const NO_TIME: [u8; 8] = [0; 8];

/// Sorts before every claim that is due then or later.
pub(super) fn due_before(until: Timestamp) -> Vec<u8> {
    // Times are after 1970.
    u64::try_from(until.millis()).unwrap_or(1).max(1).to_be_bytes().to_vec()
}

/// The due rows of open top-ups.
pub(super) fn open_top_ups() -> std::ops::Range<Vec<u8>> {
    NO_TIME.to_vec()..due_before(Timestamp::default())
}

/// The due rows of claims that are over at `now`.
pub(super) fn due_claims(now: Timestamp) -> std::ops::Range<Vec<u8>> {
    due_before(Timestamp::default())..due_before(now.after(1))
}

pub(super) fn read_due(key: &[u8]) -> Result<Due, Fault> {
    let (until, rest) = key.split_at_checked(NO_TIME.len()).ok_or("a due row is too short")?;
    let (payer, name) = rest.split_at_checked(PAYER_BYTES).ok_or("a due row is too short")?;
    let payer = PayerId::from_bytes(payer.try_into()?);
    if until != NO_TIME {
        let claim = ClaimKey::from_bytes(name.try_into()?);
        return Ok(Due::Entry(payer, EntryId::Claim(claim)));
    }
    let (currency, number) = read_currency(name)?;
    let number = u64::from_be_bytes(number.try_into()?);
    Ok(Due::TopUp(TopUpId { payer, currency, number }))
}

/// Adds a row to a book, unless memory has a newer one.
pub(super) fn add_row(book: &mut Book, key: &[u8], value: &[u8]) -> Result<(), Fault> {
    let (_, rest) = key.split_at_checked(PAYER_BYTES).ok_or("a row is too short")?;
    let (&kind, rest) = rest.split_first().ok_or("a row has no kind")?;
    match kind {
        TOP_UP => {
            let (currency, number) = read_currency(rest)?;
            let id = EntryId::TopUp(currency, u64::from_be_bytes(number.try_into()?));
            let entry: Entry = serde_json::from_slice(value)?;
            book.entries.entry(id).or_insert(entry);
        }
        CLAIM => {
            let id = EntryId::Claim(ClaimKey::from_bytes(rest.try_into()?));
            let entry: Entry = serde_json::from_slice(value)?;
            book.entries.entry(id).or_insert(entry);
        }
        USAGE => {
            let (hour, rest) = rest.split_at_checked(4).ok_or("a usage row is too short")?;
            let (currency, route) = read_currency(rest)?;
            let hour = u32::from_be_bytes(hour.try_into()?);
            let key = UsageKey { hour, currency, route: Route::new(std::str::from_utf8(route)?) };
            let micros: Micros = serde_json::from_slice(value)?;
            let row = book.usage.entry(key).or_default();
            *row = row.checked_add(micros).ok_or("a usage row is out of range")?;
        }
        _ => return Err("a row of a kind that this version does not know".into()),
    }
    Ok(())
}

fn read_currency(bytes: &[u8]) -> Result<(Currency, &[u8]), Fault> {
    let (code, rest) = bytes.split_at_checked(3).ok_or("a row is too short")?;
    Ok((std::str::from_utf8(code)?.parse()?, rest))
}
