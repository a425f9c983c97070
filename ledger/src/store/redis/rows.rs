//! How a head and its entries are spelled in Redis.
//!
//! What requests that spend change, they change as fields of their own: `q` (seq), `l` (last),
//! `<currency>.a`, `.r`, `.s` (available, reserved, spent) and, of an issued credential, `c<n>.r`,
//! `c<n>.s`, `c<n>.d` (reserved, spent, last used). The rest of the head is one JSON text, `m`,
//! counted by the version `v`; of it, the scripts read `g` (generation), `z` (frozen) and `c<n>.l`
//! (a credential's limit).

use std::collections::BTreeMap;

use farebox_protocol::Micros;

use super::Fault;
use crate::book::{Account, Entry, Head, IssuedCredential, Limit, Reservation, Route, UsageKey};
use crate::clock::Timestamp;

/// A head as it was read, and the version of its rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) head: Head,
    pub(super) version: String,
}

fn micros(text: &str) -> Result<Micros, Fault> {
    Ok(Micros::new(text.parse()?).ok_or("an amount is out of range")?)
}

/// Reads a head from the fields of its hash.
pub(super) fn read_head(fields: Vec<(String, String)>) -> Result<Stored, Fault> {
    let mut stored = Stored { version: "0".to_owned(), ..Stored::default() };
    let rest = fields.iter().find(|(field, _)| field == "m");
    if let Some((_, rest)) = rest {
        stored.head = serde_json::from_str(rest)?;
    }
    for (field, value) in fields {
        let head = &mut stored.head;
        match (field.as_str(), field.split_once('.')) {
            ("q", _) => head.seq = value.parse()?,
            ("l", _) => head.last = Timestamp::from_millis(value.parse()?),
            ("v", _) => stored.version = value,
            (_, Some((name, sum))) => read_sum(head, name, sum, &value)?,
            _ => {} // `m` is read; `g` and `z` repeat it for the scripts
        }
    }
    Ok(stored)
}

fn read_sum(head: &mut Head, name: &str, sum: &str, value: &str) -> Result<(), Fault> {
    let credential = name.strip_prefix('c').and_then(|number| number.parse::<u16>().ok());
    if let Some(number) = credential {
        let Some(issued) = head.credentials.get_mut(&number) else { return Ok(()) };
        match sum {
            "r" => issued.reserved = micros(value)?,
            "s" => issued.spent = micros(value)?,
            "d" => issued.last_used = Some(value.parse()?),
            _ => {}
        }
        return Ok(());
    }
    let account = head.accounts.entry(name.parse()?).or_default();
    match sum {
        "a" => account.available = micros(value)?,
        "r" => account.reserved = micros(value)?,
        "s" => account.spent = micros(value)?,
        _ => return Err("a head has a sum that this version does not know".into()),
    }
    Ok(())
}

/// The rest of a head: without what has a field of its own.
fn rest(head: &Head) -> Head {
    let mut rest = Head { seq: 0, last: Timestamp::default(), ..head.clone() };
    for account in rest.accounts.values_mut() {
        let (available, reserved, spent) = Default::default();
        *account = Account { available, reserved, spent, ..*account };
    }
    rest.accounts.retain(|_, account| *account != Account::default());
    for issued in rest.credentials.values_mut() {
        (issued.reserved, issued.spent, issued.last_used) = (Micros::ZERO, Micros::ZERO, None);
    }
    rest
}

/// What is written of a head that changed.
#[derive(Debug, Default)]
pub(super) struct HeadChange {
    /// Fields of money, and the difference of each.
    pub(super) money: Vec<(String, String)>,
    pub(super) set: Vec<(String, String)>,
    pub(super) unset: Vec<String>,
    /// Whether the rest changed: then the version rises.
    pub(super) bump: bool,
}

pub(super) fn change(before: &Head, after: &Head) -> Result<HeadChange, Fault> {
    let mut change = HeadChange::default();
    for (currency, account) in &after.accounts {
        let is_new = !before.accounts.contains_key(currency);
        let old = before.account(*currency);
        change.money(&format!("{currency}.a"), old.available, account.available, is_new);
        change.money(&format!("{currency}.r"), old.reserved, account.reserved, is_new);
        change.money(&format!("{currency}.s"), old.spent, account.spent, is_new);
    }
    for (number, issued) in &after.credentials {
        let old = before.credentials.get(number);
        let sums = |c: &IssuedCredential| (c.reserved, c.spent);
        let (reserved, spent) = old.map(sums).unwrap_or_default();
        change.money(&format!("c{number}.r"), reserved, issued.reserved, old.is_none());
        change.money(&format!("c{number}.s"), spent, issued.spent, old.is_none());
        if let (true, Some(day)) =
            (old.is_none_or(|old| old.last_used != issued.last_used), issued.last_used)
        {
            change.set.push((format!("c{number}.d"), day.to_string()));
        }
    }
    let (was, is) = (rest(before), rest(after));
    if was != is || before.seq == 0 {
        change.bump = true;
        change.rest(before, &is)?;
    }
    Ok(change)
}

impl HeadChange {
    fn money(&mut self, field: &str, old: Micros, new: Micros, is_new: bool) {
        if is_new || old != new {
            // Within 2^54: the difference of two amounts.
            self.money.push((field.to_owned(), (new.get() - old.get()).to_string()));
        }
    }

    fn rest(&mut self, before: &Head, rest: &Head) -> Result<(), Fault> {
        self.set.push(("m".to_owned(), serde_json::to_string(rest)?));
        self.set.push(("g".to_owned(), rest.generation.to_string()));
        match rest.frozen.is_empty() {
            true => self.unset.push("z".to_owned()),
            false => self.set.push(("z".to_owned(), "1".to_owned())),
        }
        for (number, issued) in &rest.credentials {
            self.set.push((format!("c{number}.l"), limit(issued.limit)));
        }
        for number in before.credentials.keys().filter(|n| !rest.credentials.contains_key(n)) {
            self.unset.extend(["l", "r", "s", "d"].map(|field| format!("c{number}.{field}")));
        }
        Ok(())
    }
}

fn limit(limit: Option<Limit>) -> String {
    limit.map_or("*".to_owned(), |limit| format!("{}:{}", limit.currency, limit.amount.get()))
}

/// A reservation of a request without a key, as the scripts read it. One that was partly spent is
/// JSON, which they leave to the machine.
pub(super) fn write_entry(entry: &Entry) -> Result<String, Fault> {
    match entry {
        Entry::Reservation(Reservation { currency, amount, until, ttl, number, spent })
            if spent.is_empty() =>
        {
            let number = number.map_or("-".to_owned(), |number| number.to_string());
            Ok(format!("{currency} {} {} {ttl} {number}", amount.get(), until.millis()))
        }
        other => Ok(serde_json::to_string(other)?),
    }
}

pub(super) fn read_entry(text: &str) -> Result<Entry, Fault> {
    if text.starts_with('{') {
        return Ok(serde_json::from_str(text)?);
    }
    let parts: Vec<&str> = text.split(' ').collect();
    let [currency, amount, until, ttl, number] = parts[..] else {
        return Err("a reservation cannot be read".into());
    };
    Ok(Entry::Reservation(Reservation {
        currency: currency.parse()?,
        amount: micros(amount)?,
        until: Timestamp::from_millis(until.parse()?),
        ttl: ttl.parse()?,
        number: if number == "-" { None } else { Some(number.parse()?) },
        spent: Vec::new(),
    }))
}

pub(super) fn usage_field(key: &UsageKey) -> String {
    format!("{}|{}|{}", key.hour, key.currency, key.route)
}

pub(super) fn read_usage(
    fields: Vec<(String, String)>,
) -> Result<BTreeMap<UsageKey, Micros>, Fault> {
    let mut usage = BTreeMap::new();
    for (field, value) in fields {
        let mut parts = field.splitn(3, '|');
        let mut part = || parts.next().ok_or("a usage row cannot be read");
        let (hour, currency, route) = (part()?.parse()?, part()?.parse()?, Route::new(part()?));
        let row: &mut Micros = usage.entry(UsageKey { hour, currency, route }).or_default();
        *row = row.checked_add(micros(&value)?).ok_or("a usage row is out of range")?;
    }
    Ok(usage)
}
