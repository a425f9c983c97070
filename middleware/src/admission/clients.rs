//! How often each client tries, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;

/// How often at most everybody is looked at for those who are idle.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// A pace for each client. Newcomers for whom there is no room share one with all the others that
/// are not known.
#[derive(Debug)]
pub(crate) struct Clients<K> {
    each: Pace,
    others: Pace,
    most: usize,
    dues: Mutex<Dues<K>>,
}

#[derive(Debug)]
struct Dues<K> {
    each: HashMap<K, Instant>,
    others: Instant,
    /// When room may be made again.
    tidy: Instant,
}

impl<K: Eq + Hash> Clients<K> {
    pub(crate) fn new(each: Pace, others: Pace, most: usize, now: Instant) -> Clients<K> {
        let dues = Dues { each: HashMap::new(), others: now, tidy: now };
        Clients { each, others, most, dues: Mutex::new(dues) }
    }

    /// Counts an attempt of a client, `None` if nobody knows which, or says how long it must wait.
    pub(crate) fn attempt(&self, client: Option<K>, now: Instant) -> Result<(), Duration> {
        let mut dues = self.dues.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match client {
            Some(client) if self.has_room(&mut dues, &client, now) => {
                let due = dues.each.entry(client).or_insert(now);
                self.each.take(due, now, Duration::ZERO)
            }
            _ => self.others.take(&mut dues.others, now, Duration::ZERO),
        };
        taken.map(drop)
    }

    fn has_room(&self, dues: &mut Dues<K>, client: &K, now: Instant) -> bool {
        if dues.each.contains_key(client) {
            return true;
        }
        if dues.each.len() >= self.most && now >= dues.tidy {
            dues.tidy = now + TIDY_EVERY;
            dues.each.retain(|_, due| *due > now);
        }
        dues.each.len() < self.most
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn clients(most: usize, now: Instant) -> Clients<IpAddr> {
        Clients::new(Pace::new(6, MINUTE, 3), Pace::new(60, MINUTE, 10), most, now)
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
        let resident = || clients.dues.lock().unwrap().each.len();
        println!("1,000,000 clients: {} resident, {admitted} admitted", resident());
        assert_eq!((resident(), admitted), (1_000, 1_010));
        // Whoever is known keeps its pace.
        assert!(clients.attempt(address(999), now).is_ok());
        // One attempt is forgotten after ten seconds: there is room for a newcomer, and for more.
        let later = now + Duration::from_secs(10);
        assert!((0..3).all(|_| clients.attempt(address(2_000_000), later).is_ok()));
        assert_eq!(resident(), 2);
    }
}
