//! How often each client tries, and how often it is declined, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;

/// How often at most everybody is looked at for those who are idle.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// How often a client may try, and how often it may be declined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paces {
    pub(crate) attempts: Pace,
    pub(crate) declines: Pace,
}

/// Which clients may be declined once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trusted {
    /// Whose declines are within their pace.
    Most,
    /// Only who has no decline that is not forgotten.
    Unsuspected,
}

/// What is remembered of each client. Newcomers for whom there is no room share one record with
/// all the others that are not known.
#[derive(Debug)]
pub(crate) struct Clients<K> {
    each: Paces,
    others: Paces,
    most: usize,
    records: Mutex<Records<K>>,
}

#[derive(Debug)]
struct Records<K> {
    each: HashMap<K, Record>,
    others: Record,
    /// When room may be made again.
    tidy: Instant,
}

/// When the next one is due, of either pace.
#[derive(Clone, Copy, Debug)]
struct Record {
    attempt: Instant,
    decline: Instant,
}

impl<K: Eq + Hash> Clients<K> {
    pub(crate) fn new(each: Paces, others: Paces, most: usize, now: Instant) -> Clients<K> {
        let others_now = Record { attempt: now, decline: now };
        let records = Records { each: HashMap::new(), others: others_now, tidy: now };
        Clients { each, others, most, records: Mutex::new(records) }
    }

    /// Counts an attempt of a client, `None` if nobody knows which, or says how long it must wait.
    pub(crate) fn attempt(&self, client: Option<K>, now: Instant) -> Result<(), Duration> {
        self.with(client, now, |paces, record| {
            paces.attempts.take(&mut record.attempt, now, Duration::ZERO).map(drop)
        })
    }

    /// Counts what a client is about to try as declined, until it is [`cleared`](Self::cleared).
    /// So whoever tries many at once is known by the first of them, and whoever goes away before
    /// the answer gains nothing. False: it is declined too often to be trusted.
    pub(crate) fn suspect(&self, client: Option<K>, trusted: Trusted, now: Instant) -> bool {
        self.with(client, now, |paces, record| {
            if trusted == Trusted::Unsuspected && record.decline > now {
                return false;
            }
            paces.declines.take(&mut record.decline, now, Duration::ZERO).is_ok()
        })
    }

    /// What a client tried was not declined.
    pub(crate) fn cleared(&self, client: Option<K>, now: Instant) {
        self.with(client, now, |paces, record| paces.declines.give_back(&mut record.decline));
    }

    fn with<T>(
        &self,
        client: Option<K>,
        now: Instant,
        act: impl FnOnce(&Paces, &mut Record) -> T,
    ) -> T {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        match client {
            Some(client) if self.has_room(&mut records, &client, now) => {
                let fresh = Record { attempt: now, decline: now };
                act(&self.each, records.each.entry(client).or_insert(fresh))
            }
            _ => act(&self.others, &mut records.others),
        }
    }

    fn has_room(&self, records: &mut Records<K>, client: &K, now: Instant) -> bool {
        if records.each.contains_key(client) {
            return true;
        }
        if records.each.len() >= self.most && now >= records.tidy {
            records.tidy = now + TIDY_EVERY;
            records.each.retain(|_, record| record.attempt.max(record.decline) > now);
        }
        records.each.len() < self.most
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn clients(most: usize, now: Instant) -> Clients<IpAddr> {
        let each = Paces { attempts: Pace::new(6, MINUTE, 3), declines: Pace::new(2, HOUR, 2) };
        let others = Paces { attempts: Pace::new(60, MINUTE, 10), declines: Pace::new(6, HOUR, 6) };
        Clients::new(each, others, most, now)
    }

    fn address(n: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn each_client_has_a_pace_of_its_own_and_the_unknown_share_one() {
        let now = Instant::now();
        let clients = clients(100, now);
        let tries = |client, now| (0..20).filter(|_| clients.attempt(client, now).is_ok()).count();
        assert_eq!((tries(address(1), now), tries(address(2), now), tries(None, now)), (3, 3, 10));
        assert_eq!(clients.attempt(address(1), now), Err(Duration::from_secs(10)));
        assert_eq!(tries(address(1), now + Duration::from_secs(10)), 1);
    }

    #[test]
    fn a_million_clients_are_a_bounded_number_and_make_room_when_idle() {
        let now = Instant::now();
        let clients = clients(1_000, now);
        let admitted = (0..1_000_000).filter(|n| clients.attempt(address(*n), now).is_ok()).count();
        let resident = || clients.records.lock().unwrap().each.len();
        println!("1,000,000 clients: {} resident, {admitted} admitted", resident());
        assert_eq!((resident(), admitted), (1_000, 1_010));
        // Whoever is known keeps its pace.
        assert!(clients.attempt(address(999), now).is_ok());
        // One attempt is forgotten after ten seconds: there is room for a newcomer, and for more.
        let later = now + Duration::from_secs(10);
        assert!((0..3).all(|_| clients.attempt(address(2_000_000), later).is_ok()));
        assert_eq!(resident(), 2);
    }

    #[test]
    fn whoever_was_declined_is_a_suspect_until_it_is_forgotten_and_nobody_else_is() {
        let start = Instant::now();
        let clients = clients(100, start);
        let minutes = |n: u32| start + n * MINUTE;
        let is_trusted = |client, trusted, now| {
            let is_trusted = clients.suspect(client, trusted, now);
            if is_trusted {
                clients.cleared(client, now);
            }
            is_trusted
        };
        assert!(clients.suspect(address(1), Trusted::Unsuspected, start));
        for (client, minute, unsuspected, most) in [
            (address(1), 0, false, true),
            (address(1), 29, false, true),
            (address(1), 30, true, true),
            (address(2), 0, true, true),
            (None, 0, true, true),
        ] {
            let now = minutes(minute);
            assert_eq!(is_trusted(client, Trusted::Unsuspected, now), unsuspected, "{client:?}");
            assert_eq!(is_trusted(client, Trusted::Most, now), most, "{client:?}");
        }
        // Two in an hour are enough, and one is forgotten after half of it.
        assert!(clients.suspect(address(3), Trusted::Most, start));
        assert!(clients.suspect(address(3), Trusted::Most, start));
        assert!(!is_trusted(address(3), Trusted::Most, minutes(29)));
        assert!(is_trusted(address(3), Trusted::Most, minutes(30)));
        assert!(!is_trusted(address(3), Trusted::Unsuspected, minutes(59)));
        assert!(is_trusted(address(3), Trusted::Unsuspected, minutes(60)));
    }

    #[test]
    fn a_million_declined_clients_are_a_bounded_number_and_share_the_record_of_the_unknown() {
        let now = Instant::now();
        let clients = clients(1_000, now);
        let tried = |n: u32| clients.suspect(address(n), Trusted::Unsuspected, now);
        let tried = (0..1_000_000).filter(|n| tried(*n)).count();
        assert_eq!((clients.records.lock().unwrap().each.len(), tried), (1_000, 1_001));
        assert!(!clients.suspect(None, Trusted::Unsuspected, now));
        // Each is forgotten after half an hour, and the shared one after ten minutes.
        let later = now + 10 * MINUTE;
        assert!(!clients.suspect(address(999), Trusted::Unsuspected, later));
        assert!(clients.suspect(address(5_000), Trusted::Unsuspected, later));
        assert!(clients.suspect(address(5_000), Trusted::Unsuspected, now + 30 * MINUTE));
        assert_eq!(clients.records.lock().unwrap().each.len(), 1);
    }
}
