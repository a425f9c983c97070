//! What was spent where, for people to look at.
//!
//! Beside its state an agent keeps a small table: per UTC day, server and currency, what the card
//! was charged, what was spent from credit, in how many requests, and what was left. It repeats
//! what servers said. No decision reads it: what may be paid is decided by the
//! [`Budget`](crate::Budget), which also counts payments whose outcome nobody told. A server of
//! version 1 does not say what a request cost; then the price that was allowed is counted, and the
//! row is marked as assumed.
//!
//! A top-up is written down at once, the rest every five seconds, by [`Agent::flush`], and when
//! the agent and its last client are dropped. A process that is killed loses at most the last
//! seconds of what was spent from credit. 10,000 rows are kept; the oldest become one row per
//! server and currency that has no day, and beyond 1,024 of these, one per currency that has no
//! server either. So sums stay what they were.
//!
//! ```
//! use farebox_client::{Agent, Policy, Window};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let agent = Agent::new(Policy::new());
//! let month = agent.spending().await?.within(Window::Month, 1_700_000_000);
//! for row in month.by_origin().rows() {
//!     println!("{}: {} spent", row.origin.as_deref().unwrap_or("others"), row.spent);
//! }
//! assert!(month.rows().is_empty()); // nothing was paid yet
//! # Ok(())
//! # }
//! ```
//!
//! [`Agent::flush`]: crate::Agent::flush

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farebox_policy::Window;
use farebox_protocol::{Currency, Micros, Money};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::error::StateError;
use crate::file::SharedFile;

const SCHEMA: u32 = 1;
const DAY: i64 = 86_400;
/// Rows that are kept, those without a day included.
const ROWS_MAX: usize = 10_000;
/// Rows that have a server and no day.
const EARLIER_MAX: usize = 1_024;
/// How long what was spent from credit is in memory only.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// What was spent where: rows in the order of their days, servers and currencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spending {
    rows: Vec<Spent>,
}

/// What was spent on one day, at one server, in one currency; or a sum of such rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spent {
    /// The first second (Unix time) of the UTC day, or of the window that is summed up; `None`
    /// for a sum of days that are not kept one by one.
    #[serde(default)]
    pub day: Option<i64>,
    /// Scheme, host and port: `https://api.example.com`; `None` for a sum of several.
    #[serde(default)]
    pub origin: Option<String>,
    /// What the card was charged.
    pub topped_up: Money,
    /// What requests cost.
    pub spent: Money,
    /// How many requests were paid for.
    pub requests: u64,
    /// For some of them the server did not say the cost: `spent` is what was allowed.
    #[serde(default)]
    pub assumed: bool,
    /// What could be spent at this server when it was last heard of.
    #[serde(default)]
    pub remaining: Option<Money>,
}

impl Spending {
    /// The rows.
    pub fn rows(&self) -> &[Spent] {
        &self.rows
    }

    /// The days that `window` contains at `now` (Unix seconds), a day that it contains in part as
    /// a whole. Sums without a day are in [`Window::Lifetime`] only.
    #[must_use]
    pub fn within(&self, window: Window, now: i64) -> Spending {
        self.since(window.first(now))
    }

    /// The days that end after `first` (Unix seconds); with `i64::MIN` all, and the sums without a
    /// day.
    #[must_use]
    pub fn since(&self, first: i64) -> Spending {
        let counts = |row: &&Spent| match row.day {
            Some(day) => day.saturating_add(DAY) > first,
            None => first == i64::MIN,
        };
        Spending { rows: self.rows.iter().filter(counts).cloned().collect() }
    }

    /// One row per server and currency, over all days.
    #[must_use]
    pub fn by_origin(&self) -> Spending {
        self.summed(|row| (None, row.origin.clone()))
    }

    /// One row per window and currency, over all servers. Windows are those of the calendar; a
    /// rolling one has no beginning that rows could be summed by, and a lifetime is one window.
    #[must_use]
    pub fn by_window(&self, window: Window) -> Spending {
        self.summed(|row| {
            let calendar = window.resets_at(0).is_some();
            (row.day.filter(|_| calendar).map(|day| window.first(day)), None)
        })
    }

    fn summed(&self, key: impl Fn(&Spent) -> (Option<i64>, Option<String>)) -> Spending {
        let mut sums = Sums::default();
        for row in &self.rows {
            let (day, origin) = key(row);
            sums.add(Spent { day, origin, ..row.clone() });
        }
        Spending { rows: sums.into() }
    }
}

impl Spent {
    fn key(&self) -> Key {
        (self.day, self.origin.clone(), self.spent.currency())
    }

    /// Adds a row of the same currency that is later than this one, if one is.
    fn plus(&mut self, later: &Spent) {
        self.topped_up = plus(self.topped_up, later.topped_up);
        self.spent = plus(self.spent, later.spent);
        self.requests = self.requests.saturating_add(later.requests);
        self.assumed |= later.assumed;
        // What is left at several servers is not theirs together.
        let one = self.origin.is_some();
        self.remaining = later.remaining.or(self.remaining).filter(|_| one);
    }
}

/// A sum that cannot be written any more is shown as the largest that can.
fn plus(a: Money, b: Money) -> Money {
    let sum = a.micros().checked_add(b.micros()).unwrap_or(Micros::MAX);
    Money::new(sum, a.currency())
}

/// Day, origin and currency.
type Key = (Option<i64>, Option<String>, Currency);

/// Rows by what they are about, as they stand in the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sums {
    #[serde(with = "as_list")]
    rows: BTreeMap<Key, Spent>,
}

mod as_list {
    use serde::{Deserializer, Serializer};

    use super::{BTreeMap, Deserialize as _, Key, Spent, Sums};

    pub(super) fn serialize<S: Serializer>(
        rows: &BTreeMap<Key, Spent>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(rows.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Key, Spent>, D::Error> {
        let mut sums = Sums::default();
        for row in Vec::<Spent>::deserialize(deserializer)? {
            sums.add(row);
        }
        Ok(sums.rows)
    }
}

impl Sums {
    fn add(&mut self, row: Spent) {
        match self.rows.get_mut(&row.key()) {
            Some(sum) => sum.plus(&row),
            None => {
                let remaining = row.remaining.filter(|_| row.origin.is_some());
                self.rows.insert(row.key(), Spent { remaining, ..row });
            }
        }
    }

    /// Merges the oldest rows until there are few enough.
    fn bound(&mut self) {
        if self.rows.len() <= EARLIER_MAX {
            return;
        }
        let own = |(day, origin, _): &Key| day.is_none() && origin.is_some();
        let mut earlier = self.rows.keys().filter(|key| own(key)).count();
        while earlier > EARLIER_MAX || self.rows.len() > ROWS_MAX {
            // Rows without a day come first, and among them those without a server.
            let dated = self.rows.range((Some(i64::MIN), None, Currency::USD)..).next();
            let oldest = match dated.filter(|_| earlier <= EARLIER_MAX) {
                Some((key, _)) => Some(key.clone()),
                None => self.rows.keys().find(|key| own(key)).cloned(),
            };
            let Some(mut row) = oldest.and_then(|key| self.rows.remove(&key)) else { return };
            match row.day.take() {
                Some(_) => earlier += usize::from(!self.rows.contains_key(&row.key())),
                None => {
                    row.origin = None;
                    earlier -= 1;
                }
            }
            self.add(row);
        }
    }
}

impl From<Sums> for Vec<Spent> {
    fn from(sums: Sums) -> Vec<Spent> {
        sums.rows.into_values().collect()
    }
}

/// What an agent and its clients write down of their spending.
pub(crate) struct Tally {
    file: Arc<SharedFile<Sums>>,
    /// Whether other processes can read it.
    shared: bool,
    unwritten: Mutex<Unwritten>,
}

#[derive(Default)]
struct Unwritten {
    sums: Sums,
    /// A task is about to write it.
    due: bool,
}

/// What one request cost.
pub(crate) struct Cost {
    /// What it cost, and whether the server said so.
    pub(crate) spent: Money,
    pub(crate) assumed: bool,
    pub(crate) topped_up: Option<Money>,
    pub(crate) remaining: Money,
}

impl Tally {
    pub(crate) fn in_memory() -> Tally {
        let file = Arc::new(SharedFile::in_memory());
        Tally { file, shared: false, unwritten: Mutex::default() }
    }

    pub(crate) fn open(path: &Path) -> Result<Tally, StateError> {
        let file = Arc::new(SharedFile::open(path, SCHEMA)?);
        Ok(Tally { file, shared: true, unwritten: Mutex::default() })
    }

    /// Counts a request that was served at `now`. No I/O.
    pub(crate) fn count(self: &Arc<Self>, origin: &str, cost: &Cost, now: i64) {
        let (day, origin) = (Some(Window::Day.first(now)), Some(origin.to_owned()));
        let none = |currency| Money::new(Micros::ZERO, currency);
        let currency = cost.spent.currency();
        let of = |money: Money| Some(money).filter(|money| money.currency() == currency);
        let row = Spent {
            day,
            origin,
            topped_up: cost.topped_up.and_then(of).unwrap_or(none(currency)),
            spent: cost.spent,
            requests: 1,
            assumed: cost.assumed,
            remaining: of(cost.remaining),
        };
        // A server may say that it took another currency than the card was charged in.
        let elsewhere = cost.topped_up.filter(|amount| amount.currency() != currency);
        let elsewhere = elsewhere.map(|amount| Spent {
            topped_up: amount,
            spent: none(amount.currency()),
            requests: 0,
            assumed: false,
            remaining: None,
            ..row.clone()
        });
        let mut unwritten = self.unwritten();
        unwritten.sums.add(row);
        elsewhere.into_iter().for_each(|row| unwritten.sums.add(row));
        unwritten.sums.bound();
        if self.shared && !unwritten.due {
            unwritten.due = self.write_later();
        }
    }

    /// Writes what was counted. What cannot be written is kept.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), StateError> {
        if !self.shared {
            return self.write();
        }
        let tally = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || tally.write()).await;
        written.unwrap_or(Err(StateError::Interrupted))
    }

    /// All that was ever counted, by every process.
    pub(crate) async fn read(self: &Arc<Self>) -> Result<Spending, StateError> {
        self.flush().await?;
        Ok(Spending { rows: self.file.read_async().await?.into() })
    }

    /// Has it written soon. Not without a runtime: then it is written when this is dropped.
    fn write_later(self: &Arc<Self>) -> bool {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return false };
        // The task must not keep it: the last client that goes writes at once.
        let tally = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(WRITE_EVERY).await;
            let Some(tally) = tally.upgrade() else { return };
            tally.unwritten().due = false;
            if let Err(error) = tally.flush().await {
                warn!(%error, "what was spent was not written down yet");
            }
        });
        true
    }

    fn write(&self) -> Result<(), StateError> {
        let counted = std::mem::take(&mut self.unwritten().sums);
        if counted.rows.is_empty() {
            return Ok(());
        }
        let merge = |sums: &mut Sums| {
            counted.rows.values().cloned().for_each(|row| sums.add(row));
            sums.bound();
        };
        let written = self.file.update(merge);
        if written.is_err() {
            let mut unwritten = self.unwritten();
            let since = std::mem::replace(&mut unwritten.sums, counted);
            since.rows.into_values().for_each(|row| unwritten.sums.add(row));
            unwritten.sums.bound();
        }
        written
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.shared
            && let Err(error) = self.write()
        {
            warn!(%error, "what was spent was not written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use farebox_protocol::usd;
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn money(micros: i64, currency: &str) -> Money {
        Money::new(Micros::new(micros).unwrap(), currency.parse().unwrap())
    }

    fn cost(spent: Money, topped_up: Option<Money>, remaining: Money) -> Cost {
        Cost { spent, assumed: false, topped_up, remaining }
    }

    fn row(day: i64, origin: usize, micros: i64, currency: &str) -> Spent {
        Spent {
            day: Some(day * DAY),
            origin: Some(format!("https://host{origin}.example")),
            topped_up: money(3 * micros, currency),
            spent: money(micros, currency),
            requests: 1,
            assumed: false,
            remaining: Some(money(micros, currency)),
        }
    }

    /// Top-ups, spending and requests, per currency.
    fn totals<'a>(
        rows: impl IntoIterator<Item = &'a Spent>,
    ) -> BTreeMap<Currency, (i64, i64, u64)> {
        let mut totals = BTreeMap::new();
        for row in rows {
            assert_eq!(row.topped_up.currency(), row.spent.currency());
            let (topped_up, spent, requests) =
                totals.entry(row.spent.currency()).or_insert((0, 0, 0));
            *topped_up += row.topped_up.micros().get();
            *spent += row.spent.micros().get();
            *requests += row.requests;
        }
        totals
    }

    proptest! {
        #[test]
        fn every_sum_of_rows_is_the_sum_of_what_was_counted(
            rows in prop::collection::vec(
                (0_i64..400, 0_usize..6, 0_i64..1_000_000, prop::sample::select(vec!["usd", "jpy"])),
                0..200,
            ),
        ) {
            let rows: Vec<_> = rows.into_iter().map(|(d, o, m, c)| row(d, o, m, c)).collect();
            let mut sums = Sums::default();
            rows.iter().cloned().for_each(|row| sums.add(row));
            let json = serde_json::to_string(&sums).unwrap();
            let read: Sums = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read.rows, &sums.rows);
            let spending = Spending { rows: sums.into() };
            let all = totals(&rows);
            prop_assert_eq!(&totals(spending.rows()), &all);
            prop_assert_eq!(&totals(spending.within(Window::Lifetime, NOW).rows()), &all);
            prop_assert_eq!(&totals(spending.by_origin().rows()), &all);
            for window in [Window::Day, Window::Week, Window::Month, Window::Lifetime] {
                let windows = spending.by_window(window);
                prop_assert_eq!(&totals(windows.rows()), &all);
                for sum in windows.rows() {
                    let start = sum.day.unwrap_or(i64::MIN);
                    prop_assert_eq!(start, window.first(start.max(0)));
                }
                let now = 200 * DAY + 7;
                let first = window.first(now);
                let since = rows.iter().filter(|row| row.day >= Some(first));
                prop_assert_eq!(totals(spending.within(window, now).rows()), totals(since));
            }
        }
    }

    #[test]
    fn rows_are_bounded_and_nothing_is_lost_of_their_sums() {
        let mut sums = Sums::default();
        let mut counted = Vec::new();
        for n in 0..ROWS_MAX + 3_000 {
            // Ten rows a day, each of another server.
            let day = i64::try_from(n / 10).unwrap();
            let one = row(day, n, 7, if n % 3 == 0 { "jpy" } else { "usd" });
            counted.push(one.clone());
            sums.add(one);
            if n % 100 == 0 {
                sums.bound();
                assert!(sums.rows.len() <= ROWS_MAX);
            }
        }
        sums.bound();
        assert_eq!(totals(sums.rows.values()), totals(&counted));
        let count = |of: &dyn Fn(&Key) -> bool| sums.rows.keys().filter(|key| of(key)).count();
        assert_eq!(count(&|key| key.0.is_none() && key.1.is_some()), EARLIER_MAX);
        assert_eq!(count(&|key| key.0.is_none() && key.1.is_none()), 2, "one per currency");
        let first = sums.rows.keys().find_map(|key| key.0).unwrap();
        let last = i64::try_from((ROWS_MAX + 2_999) / 10).unwrap() * DAY;
        assert!(last - first >= 850 * DAY, "the newest days stay: {first} {last}");
        assert!(sums.rows.values().all(|row| row.origin.is_some() || row.remaining.is_none()));
        let spending = Spending { rows: sums.into() };
        assert!(spending.within(Window::Day, last).rows().iter().all(|row| row.day == Some(last)));
    }

    #[test]
    fn what_is_left_is_what_was_heard_last_at_one_server() {
        let mut sums = Sums::default();
        for (day, left) in [(2, 50), (1, 90), (3, 20)] {
            sums.add(Spent { remaining: Some(money(left, "usd")), ..row(day, 0, 1, "usd") });
        }
        sums.add(Spent { remaining: None, ..row(4, 0, 1, "usd") });
        let spending = Spending { rows: sums.into() };
        assert_eq!(spending.by_origin().rows()[0].remaining, Some(money(20, "usd")));
        assert_eq!(spending.by_window(Window::Month).rows()[0].remaining, None);
    }

    #[test]
    fn a_rolling_window_counts_the_day_in_which_it_begins() {
        let mut sums = Sums::default();
        (1..=5).for_each(|day| sums.add(row(day, 0, 1, "usd")));
        let spending = Spending { rows: sums.into() };
        let rolling = Window::Rolling("24h".parse().unwrap());
        let within = spending.within(rolling, 4 * DAY + 10);
        let days: Vec<_> = within.rows().iter().filter_map(|row| row.day).collect();
        assert_eq!(days, [3 * DAY, 4 * DAY, 5 * DAY]);
    }

    #[test]
    fn a_sum_that_cannot_be_written_is_the_largest_that_can() {
        let mut sums = Sums::default();
        let most = Money::new(Micros::MAX, Currency::USD);
        for _ in 0..2 {
            sums.add(Spent { spent: most, topped_up: most, ..row(1, 0, 0, "usd") });
        }
        let rows: Vec<Spent> = sums.into();
        assert_eq!((rows[0].spent, rows[0].topped_up), (most, most));
    }

    #[test]
    fn without_a_runtime_it_is_written_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json.spending");
        let tally = Arc::new(Tally::open(&path).unwrap());
        tally.count("https://a.example", &cost(usd!("0.01"), None, usd!("4.99")), NOW);
        assert!(!path.exists());
        drop(tally);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            r#"{"schema":1,"rows":[{"day":1699920000,"origin":"https://a.example","topped_up":"0.00 usd","spent":"0.01 usd","requests":1,"assumed":false,"remaining":"4.99 usd"}]}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_spent_from_credit_is_written_after_five_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spending");
        let tally = Arc::new(Tally::open(&path).unwrap());
        for _ in 0..3 {
            tally.count("https://a.example", &cost(usd!("0.01"), None, usd!("4.99")), NOW);
        }
        tokio::time::sleep(Duration::from_millis(4_900)).await;
        assert!(!path.exists());
        tokio::time::sleep(Duration::from_millis(200)).await;
        let other = Arc::new(Tally::open(&path).unwrap());
        let written = async {
            loop {
                let spending = other.read().await.unwrap();
                if !spending.rows().is_empty() {
                    return spending;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert_eq!(written.await.rows()[0].spent, usd!("0.03"));
    }

    #[tokio::test]
    async fn two_processes_add_up_and_another_currency_has_its_own_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spending");
        let [one, other] = [(), ()].map(|()| Arc::new(Tally::open(&path).unwrap()));
        one.count("https://a.example", &cost(usd!("0.01"), Some(usd!("5")), usd!("4.99")), NOW);
        let yen = money(7_000_000, "jpy");
        other.count("https://a.example", &cost(yen, Some(usd!("6")), yen), NOW);
        other.flush().await.unwrap();
        let spending = one.read().await.unwrap();
        let rows: Vec<_> =
            spending.rows().iter().map(|row| (row.topped_up, row.spent, row.requests)).collect();
        let no_yen = money(0, "jpy");
        assert_eq!(rows.len(), 2);
        assert!(rows.contains(&(usd!("11"), usd!("0.01"), 1)), "{rows:?}");
        assert!(rows.contains(&(no_yen, yen, 1)), "{rows:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spending");
        let tally = Arc::new(Tally::open(&path).unwrap());
        let count = || {
            let cost = cost(usd!("0.01"), None, usd!("4.99"));
            tally.count("https://a.example", &cost, NOW);
        };
        count();
        std::fs::write(&path, "not a table").unwrap();
        assert!(matches!(tally.flush().await, Err(StateError::Malformed(_))));
        count();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tally.read().await.unwrap().rows()[0].spent, usd!("0.02"));
    }
}
