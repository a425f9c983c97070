//! The attack: 200 addresses with stolen cards, honest payers among them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farebox_middleware::Admission;
use farebox_protocol::Payment;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{newcomers_within, number_of, of_one_client, provider, seen};
use crate::support::{Bank, Provider, by_card, card, dead_card, number, whole_machine};

const ADDRESSES: usize = 200;
const KNOWN: usize = 20;
const NEWCOMERS: usize = 40;
/// How often a newcomer comes back before it gives up.
const REPEATS_MAX: usize = 10;
/// Of so many stolen cards, one is alive.
const ALIVE: usize = 10;

/// What somebody with stolen cards was told.
#[derive(Debug, Default)]
struct Told {
    attempts: usize,
    served: usize,
    /// Every refusal, as it was seen, and how often of a dead card and of one that is alive.
    refused: BTreeMap<String, [usize; 2]>,
    /// The same by status.
    by_status: BTreeMap<u16, usize>,
}

impl Told {
    fn and(mut self, other: Told) -> Told {
        self.attempts += other.attempts;
        self.served += other.served;
        for (answer, [dead, alive]) in other.refused {
            let counts = self.refused.entry(answer).or_default();
            *counts = [counts[0] + dead, counts[1] + alive];
        }
        for (status, count) in other.by_status {
            *self.by_status.entry(status).or_default() += count;
        }
        self
    }
}

/// Tries every card until it is told something, again and again, until there is no more time. One
/// that is patient comes back when it is told to.
async fn attack(
    provider: Arc<Provider>,
    address: String,
    is_patient: bool,
    cards: Vec<(bool, String)>,
    stop: Arc<AtomicBool>,
) -> Told {
    let (mut told, mut cards) = (Told::default(), VecDeque::from(cards));
    while let Some((is_alive, method)) = cards.pop_front() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let answer = provider.joke_from(&address, &by_card(&method)).await;
        told.attempts += 1;
        *told.by_status.entry(answer.status).or_default() += 1;
        if answer.is_served() {
            told.served += 1;
            continue;
        }
        told.refused.entry(seen(&answer)).or_default()[usize::from(is_alive)] += 1;
        if answer.status == 429 {
            cards.push_back((is_alive, method));
            let seconds = answer.header("retry-after").unwrap().parse().unwrap();
            let told_to = Instant::now() + Duration::from_secs(seconds);
            sleep(Duration::from_millis(200)).await;
            while is_patient && Instant::now() < told_to && !stop.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
    told
}

/// Spends, and tops up every five seconds; how often it was served, of how many times.
async fn honest(
    provider: Arc<Provider>,
    payment: Payment,
    address: String,
    stop: Arc<AtomicBool>,
) -> [usize; 2] {
    let from_credit = Payment { payment_method_id: None, ..payment.clone() };
    let mut counts = [0, 0];
    for second in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let answer = match second % 5 {
            0 => provider.from(&address, "/api/big", &payment).await,
            _ => provider.joke_from(&address, &from_credit).await,
        };
        counts = [counts[0] + usize::from(answer.is_served()), counts[1] + 1];
        sleep(Duration::from_secs(1)).await;
    }
    counts
}

/// Arrives at its time and comes back when it is told to: how often, and how long it took until it
/// was served; `None`: it gave up.
async fn newcomer(
    provider: Arc<Provider>,
    bank: Arc<Bank>,
    n: usize,
    arrives: Duration,
) -> Option<(usize, Duration)> {
    let payment = by_card(&bank.method(&card(900_000 + number_of(n))).await);
    sleep(arrives).await;
    let arrived = Instant::now();
    for repeats in 0..=REPEATS_MAX {
        let answer = provider.joke_from(&format!("203.0.113.{n}"), &payment).await;
        if answer.is_served() {
            return Some((repeats, arrived.elapsed()));
        }
        assert_eq!(answer.status, 429, "{answer:?}");
        let seconds = answer.header("retry-after").unwrap().parse().unwrap();
        sleep(Duration::from_secs(seconds)).await;
    }
    None
}

/// The cards of each address.
async fn steal(bank: &Bank, count: usize) -> Vec<Vec<(bool, String)>> {
    let each = count.div_ceil(ADDRESSES);
    let mut stolen = Vec::new();
    for address in 0..ADDRESSES {
        let methods = (address * each..(address + 1) * each).map(|n| async move {
            let is_alive = n % ALIVE == ALIVE / 2;
            let number = u32::try_from(n).unwrap();
            let number = if is_alive { card(100_000 + number) } else { dead_card(number) };
            (is_alive, bank.method(&number).await)
        });
        stolen.push(join_all(methods).await);
    }
    stolen
}

/// What Stripe was asked by all, and what those with stolen cards learned, are within what the
/// settings allow.
fn within_budget(
    limits: &Admission,
    elapsed: Duration,
    [look_ups, charges, customers]: [usize; 3],
    learned: usize,
    declined: usize,
) {
    let seconds = usize::try_from(elapsed.as_secs()).unwrap() + 1;
    let rate = usize::try_from(limits.stripe_per_second).unwrap();
    // The breaker knows enough when more are declined than the known have paid before, and then
    // are some under way in every lane.
    let at_first = 2 * KNOWN + usize::try_from(limits.breaker_charges_min).unwrap() + 4 * rate;
    let at_once = usize::try_from(limits.breaker_newcomers_burst).unwrap();
    let strangers = at_first + at_once + newcomers_within(limits, elapsed);
    let tops_up = KNOWN * (1 + seconds / 5);
    for (endpoint, calls, budget) in [
        ("look-ups", look_ups, strangers + tops_up),
        ("charges", charges, strangers + tops_up),
        ("customers", customers, strangers),
    ] {
        // Both lanes, and their bursts, and those that wait when it ends.
        let budget = budget.min(rate * (seconds + 2) + 4);
        assert!(calls <= budget, "{calls} {endpoint}, and the budget is {budget}");
    }
    assert!(learned <= strangers, "{learned} cards told apart, and the budget is {strangers}");
    let each_once = at_first + ADDRESSES;
    assert!(declined <= each_once, "{declined} declines, and the budget is {each_once}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_addresses_that_test_cards_learn_little_and_stop_nobody_who_pays() {
    let _machine = whole_machine().await;
    let cards = usize::try_from(number("FAREBOX_CARDS", 2_000)).unwrap();
    let lasts = Duration::from_millis(u64::try_from(cards).unwrap() * 10);
    let bank = Arc::new(Bank::slow(Duration::from_millis(50)).await);
    let limits = Admission::default();
    let provider = Arc::new(provider(&bank, "memory:", limits.clone(), |set| set).await);
    let mut known = Vec::new();
    for n in 0..KNOWN {
        let method = bank.method(&card(u32::try_from(n).unwrap())).await;
        let address = format!("192.0.2.{n}");
        let first = provider.joke_from(&address, &by_card(&method)).await;
        let client_id = first.credential().parse().ok();
        known.push((address, Payment { client_id, ..by_card(&method) }));
    }
    let stolen = steal(&bank, cards).await;
    let before = (bank.look_ups(), bank.charge_calls(), bank.calls("POST", "/v1/customers"));

    let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let attackers = stolen.into_iter().enumerate().map(|(n, cards)| {
        tokio::spawn(attack(provider.clone(), of_one_client(n), n % 2 == 0, cards, stop.clone()))
    });
    let attackers: Vec<_> = attackers.collect();
    let payers = known.into_iter().map(|(address, payment)| {
        tokio::spawn(honest(provider.clone(), payment, address, stop.clone()))
    });
    let payers: Vec<_> = payers.collect();
    let newcomers = (0..NEWCOMERS).map(|n| {
        let arrives = lasts * number_of(n) / number_of(NEWCOMERS);
        tokio::spawn(newcomer(provider.clone(), bank.clone(), n, arrives))
    });
    let newcomers: Vec<_> = newcomers.collect();
    sleep(lasts).await;
    // The attack goes on as long as one of them waits.
    let newcomers = join_all(newcomers).await.into_iter().filter_map(Result::unwrap);
    let newcomers: Vec<(usize, Duration)> = newcomers.collect();
    stop.store(true, Ordering::Relaxed);
    let told = join_all(attackers).await.into_iter().map(Result::unwrap);
    let told = told.fold(Told::default(), Told::and);
    let payers: Vec<[usize; 2]> = join_all(payers).await.into_iter().map(Result::unwrap).collect();

    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let look_ups = bank.look_ups() - before.0;
    let charges = bank.charge_calls() - before.1;
    let customers = bank.calls("POST", "/v1/customers") - before.2;
    let [served, asked] = payers.iter().fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
    let declined = told.by_status.get(&402).copied().unwrap_or_default();
    let learned = told.served + declined;
    let at_once = newcomers.iter().filter(|(repeats, _)| *repeats == 0).count();
    let repeats = newcomers.iter().map(|(repeats, _)| repeats).max().unwrap();
    let slowest = newcomers.iter().map(|(_, took)| took).max().unwrap();
    println!(
        "{cards} cards, one in {ALIVE} alive, from {ADDRESSES} addresses for {seconds} s: {} \
         attempts, {:?}; {learned} cards told apart. Stripe: {look_ups} look-ups, {charges} charges, \
         {customers} customers. Known payers: {served} of {asked} served. Newcomers: {} of \
         {NEWCOMERS} served, {at_once} at once, with {repeats} repeats and after {slowest:?} at most",
        told.attempts,
        told.by_status,
        newcomers.len(),
    );
    let asked_of_stripe = [look_ups, charges, customers];
    within_budget(&limits, started.elapsed(), asked_of_stripe, learned, declined);
    assert!(told.attempts >= cards / 2 && declined > 0, "there was no attack: {told:?}");
    assert_eq!(told.refused.len(), 2, "one answer to declines, and one to attempts: {told:#?}");
    let waits = told.refused.iter().find(|(answer, _)| answer.starts_with("429"));
    assert!(waits.is_some_and(|(_, [dead, alive])| *dead > 0 && *alive > 0), "{told:#?}");
    assert!(served * 100 >= asked * 99 && asked > KNOWN, "{served} of {asked}");
    assert!(newcomers.len() * 100 >= NEWCOMERS * 99, "{} newcomers", newcomers.len());
}
