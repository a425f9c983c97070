//! Admission: who may ask Stripe about a card, and who is told to wait.
//!
//! A server that charges any card answers whoever steals cards which of them are alive, and
//! whoever asks it too often keeps honest payers from Stripe. So what leads to Stripe is counted
//! before Stripe hears of it: by client, by card, for all strangers together, and by endpoint. A
//! request that is paid from credit comes by none of this.

mod breaker;
mod cards;
mod client_ip;
mod clients;
mod lanes;
mod pace;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use farebox_ledger::clock::Clock;
use farebox_ledger::counters::Counters;
use farebox_ledger::{Head, Ledger};
use farebox_protocol::{Micros, PayerId};
use http::request::Parts;
use tokio::time::Instant;

use crate::refusal::Refusal;
use breaker::Newcomers;
use clients::{Clients, Paces};
use lanes::Lanes;
use pace::Pace;

pub use client_ip::ClientIp;
pub(crate) use lanes::Endpoint;

/// How often cards may be tried, and by whom. Set with
/// [`Builder::admission`](crate::Builder::admission); whoever is above a limit is answered 429
/// `rate_limited`, and Stripe is not asked.
///
/// An attempt is a call to Stripe about a card: a look-up, a verification or a charge. The first
/// payment of a newcomer makes two. A known payer is one with a valid credential, or with a card
/// that has paid before; everybody else is a stranger.
///
/// ```
/// use farebox_middleware::Admission;
///
/// let admission = Admission { client_per_minute: 3, ..Admission::default() };
/// assert_eq!(admission.card_declines_per_day, 5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// How many attempts one client makes in a minute in the long run: a stranger by its address,
    /// a known payer by its account. Counted in each process. Default: 10.
    pub client_per_minute: u32,
    /// How many it makes at once, after a rest. Default: 30.
    pub client_burst: u32,
    /// The same for all strangers without an address together, and for newcomers while
    /// [`clients_max`](Admission::clients_max) others are active. Default: 100.
    pub shared_per_minute: u32,
    /// How many they make at once. Default: 300.
    pub shared_burst: u32,
    /// How often a stranger is declined in an hour before it must wait, in the long run and at
    /// once; each decline is forgotten after this part of an hour. A PaymentMethod that Stripe does
    /// not know counts like one. While the breaker is open, one is enough. Counted in each
    /// process. Default: 5.
    pub client_declines_per_hour: u32,
    /// The same for all of those who share [`shared_per_minute`](Admission::shared_per_minute).
    /// Default: 50.
    pub shared_declines_per_hour: u32,
    /// How many clients are told apart at one time; each takes about 100 bytes. Default: 100,000.
    pub clients_max: usize,
    /// How many verifications and charges of one card an hour has. Counted in the ledger's Redis
    /// if it has one, as are the next four. Default: 30.
    pub card_per_hour: u32,
    /// After how many declines in 24 hours a card is not tried, nor any card beside the
    /// credential of one payer. Default: 5.
    pub card_declines_per_day: u32,
    /// Over how many seconds the charges of strangers are judged. Default: 600.
    pub breaker_window_seconds: u32,
    /// How many of them there must be to be judged. Default: 20.
    pub breaker_charges_min: u32,
    /// Above how many declines among a hundred of them the breaker is open: whoever was declined
    /// waits, and newcomers are tried once each. What comes of them, and time, ends it.
    /// Default: 50.
    pub breaker_declines_percent: u32,
    /// How many newcomers are tried in a minute meanwhile, in the long run. Counted in each
    /// process. Default: 60.
    pub breaker_newcomers_per_minute: u32,
    /// How many are tried at once, which is as fast as their half of
    /// [`stripe_per_second`](Admission::stripe_per_second) allows. Default: 300.
    pub breaker_newcomers_burst: u32,
    /// How many charges may be under way in this process before strangers must wait: while Stripe
    /// does not answer, they only become more. Default: 200.
    pub charges_open_max: usize,
    /// How often in a second this process asks each endpoint of Stripe for requests; strangers
    /// get half of it at most. Stripe refuses above 25 for all processes of an account together.
    /// Default: 20.
    pub stripe_per_second: u32,
}

impl Default for Admission {
    fn default() -> Self {
        Admission {
            client_per_minute: 10,
            client_burst: 30,
            shared_per_minute: 100,
            shared_burst: 300,
            client_declines_per_hour: 5,
            shared_declines_per_hour: 50,
            clients_max: 100_000,
            card_per_hour: 30,
            card_declines_per_day: 5,
            breaker_window_seconds: 600,
            breaker_charges_min: 20,
            breaker_declines_percent: 50,
            breaker_newcomers_per_minute: 60,
            breaker_newcomers_burst: 300,
            charges_open_max: 200,
            stripe_per_second: 20,
        }
    }
}

impl Admission {
    /// No limits, for load tests against a stand-in for Stripe. With a real one, whoever finds
    /// the server tests stolen cards at it.
    #[must_use]
    pub fn unlimited() -> Admission {
        Admission {
            client_per_minute: u32::MAX,
            client_burst: u32::MAX,
            shared_per_minute: u32::MAX,
            shared_burst: u32::MAX,
            client_declines_per_hour: u32::MAX,
            shared_declines_per_hour: u32::MAX,
            card_per_hour: u32::MAX,
            card_declines_per_day: u32::MAX,
            breaker_declines_percent: 100,
            charges_open_max: usize::MAX,
            stripe_per_second: u32::MAX,
            ..Admission::default()
        }
    }
}

/// For whom something is asked of Stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody who has paid before.
    Payer(PayerId),
    /// Anybody else, by address.
    Stranger(Option<IpAddr>),
    /// A stranger at its one try while the breaker is open.
    Newcomer(Option<IpAddr>),
}

impl Asker {
    fn is_known(self) -> bool {
        matches!(self, Asker::Payer(_))
    }
}

/// Whether a card has paid for a payer: `head` is of the book that is named after the card.
pub(crate) fn has_paid(head: &Head, card: PayerId) -> bool {
    // A card becomes another payer's only by a charge that succeeded.
    head.owner.is_some_and(|owner| owner != card)
        || head.accounts.values().any(|account| account.received > Micros::ZERO)
}

/// What is counted of those who ask, and what they are told.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Admission,
    client_ip: ClientIp,
    strangers: Clients<IpAddr>,
    payers: Clients<PayerId>,
    newcomers: Newcomers,
    lanes: Lanes,
    counters: Counters,
}

impl Gate {
    pub(crate) fn new(
        limits: Admission,
        client_ip: ClientIp,
        ledger: &Ledger,
        clock: Arc<dyn Clock>,
    ) -> Gate {
        let now = Instant::now();
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
        let paces = |per_minute, burst, per_hour| Paces {
            attempts: Pace::new(per_minute, minute, burst),
            declines: Pace::new(per_hour, hour, per_hour),
        };
        let each =
            paces(limits.client_per_minute, limits.client_burst, limits.client_declines_per_hour);
        let others =
            paces(limits.shared_per_minute, limits.shared_burst, limits.shared_declines_per_hour);
        let (in_a_minute, at_once) =
            (limits.breaker_newcomers_per_minute, limits.breaker_newcomers_burst);
        Gate {
            client_ip,
            strangers: Clients::new(each, others, limits.clients_max, now),
            payers: Clients::new(each, others, limits.clients_max, now),
            newcomers: Newcomers::new(Pace::new(in_a_minute, minute, at_once), now),
            lanes: Lanes::new(limits.stripe_per_second, now),
            counters: ledger.counters(clock),
            limits,
        }
    }

    /// Whoever sent a request without a valid credential.
    pub(crate) fn stranger(&self, parts: &Parts) -> Asker {
        Asker::Stranger(self.client_ip.of(parts))
    }

    /// Waits for a turn at Stripe.
    pub(crate) async fn turn(&self, endpoint: Endpoint, asker: Asker) -> Result<(), Refusal> {
        self.lanes.turn(endpoint, asker.is_known()).await.map_err(Refusal::later)
    }

    fn attempt(&self, asker: Asker) -> Result<(), Refusal> {
        let now = Instant::now();
        let counted = match asker {
            Asker::Payer(payer) => self.payers.attempt(Some(payer), now),
            Asker::Stranger(address) | Asker::Newcomer(address) => {
                self.strangers.attempt(address, now)
            }
        };
        counted.map_err(Refusal::later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_defaults() {
        let text = include_str!("../../../docs/abuse.md");
        let debug = format!("{:?}", Admission::default());
        let fields = debug.trim_start_matches("Admission { ").trim_end_matches(" }").split(", ");
        for field in fields {
            let (name, value) = field.split_once(": ").unwrap();
            assert!(text.contains(&format!("| `{name}` | {value} |")), "{name} is {value}");
        }
    }
}
