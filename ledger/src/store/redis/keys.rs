//! What is kept under which key.
//!
//! A book's keys share one hash tag, `{<ledger>.<bucket>}`, so that one script can change all of
//! them, and a shard of a cluster has or loses all of them. The bucket is the first byte of the
//! payer id, which is a keyed hash.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `<ledger>:first` | string | the first record and the epoch |
//! | `{tag}:r` | hash | `epoch`, and the bucket's open reservations without a key |
//! | `{tag}:p` | set | the payers of the bucket |
//! | `{tag}:due` | sorted set | open top-ups, and claims by the time they are over |
//! | `{tag}:b:<payer>` | hash | the head |
//! | `{tag}:e:<payer>` | hash | top-ups and claims |
//! | `{tag}:u:<payer>:<week>` | hash | usage rows; expires by itself |
//! | `{tag}:o:<operation>` | string | what an operation came to, for its repeats; expires by itself |
//! | `{tag}:n:<name>:<payer>` | hash | a counter of no payer, or of one, by slots; expires by itself |

use farebox_protocol::{PayerId, TopUpId};

use crate::book::{EntryId, ReservationId};
use crate::clock::Timestamp;
use crate::counters::Counter;
use crate::store::Due;

/// The buckets of a ledger.
pub(super) const BUCKETS: std::ops::RangeInclusive<u8> = 0..=u8::MAX;
const WEEK_MILLIS: i64 = 7 * 24 * 3_600 * 1_000;
/// Usage is kept for 13 weeks, which begin and end within 14; one more for a clock that is behind.
const WEEKS_KEPT: i64 = 14;

/// After how long a week's usage is forgotten; the scripts say the same.
pub(super) const USAGE_SECONDS: i64 = WEEKS_KEPT * WEEK_MILLIS / 1_000;

/// Names the keys of one ledger.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    ledger: String,
}

/// Where an entry is kept: its home in a script's words, and its field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) home: &'static str,
    pub(super) field: String,
}

impl Keys {
    pub(super) fn new(ledger: String) -> Keys {
        Keys { ledger }
    }

    pub(super) fn first(&self) -> String {
        format!("{}:first", self.ledger)
    }

    fn tag(&self, bucket: u8) -> String {
        format!("{{{}.{bucket}}}", self.ledger)
    }

    pub(super) fn bucket(&self, bucket: u8) -> String {
        format!("{}:r", self.tag(bucket))
    }

    pub(super) fn payers(&self, bucket: u8) -> String {
        format!("{}:p", self.tag(bucket))
    }

    pub(super) fn due(&self, bucket: u8) -> String {
        format!("{}:due", self.tag(bucket))
    }

    pub(super) fn book(&self, payer: &PayerId) -> String {
        format!("{}:b:{payer}", self.tag(bucket_of(payer)))
    }

    pub(super) fn entries(&self, payer: &PayerId) -> String {
        format!("{}:e:{payer}", self.tag(bucket_of(payer)))
    }

    pub(super) fn usage(&self, payer: &PayerId, week: i64) -> String {
        format!("{}:u:{payer}:{week}", self.tag(bucket_of(payer)))
    }

    /// Every week's usage that can still be there at `now`.
    pub(super) fn all_usage(&self, payer: &PayerId, now: Timestamp) -> Vec<String> {
        let last = week_of(now) + 1;
        (last - WEEKS_KEPT..=last).map(|week| self.usage(payer, week)).collect()
    }

    pub(super) fn answer(&self, payer: &PayerId, operation: &str) -> String {
        format!("{}:o:{operation}", self.tag(bucket_of(payer)))
    }

    /// What is about no payer is in a bucket by its name, so that not all of it is in one.
    pub(super) fn counter(&self, counter: &Counter<'_>) -> String {
        let Counter { name, of, .. } = counter;
        match of {
            Some(payer) => format!("{}:n:{name}:{payer}", self.tag(bucket_of(payer))),
            None => {
                let bucket = name.bytes().fold(0, |sum: u8, byte| sum.wrapping_add(byte));
                format!("{}:n:{name}", self.tag(bucket))
            }
        }
    }
}

pub(super) fn bucket_of(payer: &PayerId) -> u8 {
    payer.as_bytes()[0]
}

pub(super) fn week_of(at: Timestamp) -> i64 {
    at.millis().div_euclid(WEEK_MILLIS)
}

pub(super) fn place(payer: &PayerId, id: EntryId) -> Place {
    match id {
        EntryId::Reservation(id) => Place { home: "r", field: reservation(payer, &id) },
        EntryId::Claim(key) => Place { home: "e", field: format!("k:{key}") },
        EntryId::TopUp(currency, number) => {
            Place { home: "e", field: format!("t:{currency}:{number}") }
        }
    }
}

/// The field of a reservation in its bucket.
pub(super) fn reservation(payer: &PayerId, id: &ReservationId) -> String {
    format!("{payer}:{id}")
}

pub(super) fn read_reservation(field: &str) -> Option<(PayerId, EntryId)> {
    let (payer, id) = field.split_once(':')?;
    Some((payer.parse().ok()?, EntryId::Reservation(id.parse().ok()?)))
}

/// The entry of a field of `e`.
pub(super) fn read_entry(field: &str) -> Option<EntryId> {
    match field.split_once(':')? {
        ("k", key) => Some(EntryId::Claim(key.parse().ok()?)),
        ("t", rest) => {
            let (currency, number) = rest.split_once(':')?;
            Some(EntryId::TopUp(currency.parse().ok()?, number.parse().ok()?))
        }
        _ => None,
    }
}

/// The member of `due` that stands for an entry; unkeyed reservations have none.
pub(super) fn due_member(payer: &PayerId, id: EntryId) -> Option<String> {
    match id {
        EntryId::Reservation(_) => None,
        EntryId::Claim(key) => Some(format!("k:{payer}:{key}")),
        EntryId::TopUp(currency, number) => {
            Some(format!("t:{}", TopUpId { payer: *payer, currency, number }))
        }
    }
}

pub(super) fn read_due(member: &str) -> Option<Due> {
    match member.split_once(':')? {
        ("t", id) => Some(Due::TopUp(id.parse().ok()?)),
        ("k", rest) => {
            let (payer, key) = rest.split_once(':')?;
            Some(Due::Entry(payer.parse().ok()?, EntryId::Claim(key.parse().ok()?)))
        }
        _ => None,
    }
}
