//! Webhooks: events sent to an endpoint, signed, and as badly as one asks for.
//!
//! Source: Stripe's page "Receive Stripe events in your webhook endpoint": signatures, retries,
//! duplicates, and that nothing promises an order.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::ids::Ids;
use crate::post::{self, Target};
use crate::server::App;

/// An event that meets no 2xx is sent this often in all, each time after twice the wait.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// As many messages as [`Delivery::reorder`] shuffles, and how long it waits for them.
const WINDOW: usize = 4;
const WINDOW_OPEN: Duration = Duration::from_millis(100);
/// Records kept for [`Sandbox::deliveries`](crate::Sandbox::deliveries).
const MAX_RECORDS: usize = 100_000;
const SECRET_PREFIX: &str = "whsec_";

/// How events reach the webhook endpoint. By default each is sent once, at once and in order.
/// Whatever is drawn is drawn from the sandbox's seed.
///
/// ```
/// use farebox_sandbox::Delivery;
///
/// let rough = Delivery { duplicate: true, drop: 10, ..Delivery::default() };
/// assert!(rough.duplicate && !rough.reorder && !rough.manual);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Every event is sent twice.
    pub duplicate: bool,
    /// Up to four messages, of those that come within 100 milliseconds, are shuffled.
    pub reorder: bool,
    /// Milliseconds (of real time) between what happened and the first attempt.
    pub delay_millis: u64,
    /// Of 100 events, as many are never sent.
    pub drop: u32,
    /// Nothing is sent until [`Sandbox::deliver`](crate::Sandbox::deliver) asks for it.
    pub manual: bool,
}

/// One attempt to send an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeliveryRecord {
    /// Id of the event.
    pub event: String,
    /// HTTP status of the endpoint's answer; 0 if there was none within ten seconds.
    pub status: u16,
    /// Counted from 1 for every message. Of a duplicated event, each of the two is counted.
    pub attempt: u32,
}

/// Why there can be no such webhook. Whoever set it has to set it differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidWebhook(pub(crate) String);

impl fmt::Display for InvalidWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidWebhook {}

/// A webhook endpoint that can be one.
pub(crate) struct Webhook {
    target: Target,
    /// None: the sandbox's own.
    secrets: Vec<String>,
    delivery: Delivery,
}

impl Webhook {
    pub(crate) fn new(
        url: &str,
        secrets: impl IntoIterator<Item = String>,
        delivery: Delivery,
    ) -> Result<Self, InvalidWebhook> {
        let secrets: Vec<String> = secrets.into_iter().collect();
        if !secrets.iter().all(|secret| is_secret(secret)) {
            return Err(InvalidWebhook(format!(
                "a webhook secret is `{SECRET_PREFIX}` and letters and digits"
            )));
        }
        if delivery.drop > 100 {
            let drop = delivery.drop;
            return Err(InvalidWebhook(format!("of 100 events at most 100 get lost, not {drop}")));
        }
        Ok(Self { target: Target::parse(url)?, secrets, delivery })
    }
}

fn is_secret(text: &str) -> bool {
    let tail = text.strip_prefix(SECRET_PREFIX).unwrap_or_default();
    !tail.is_empty() && tail.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// One event on its way to the endpoint.
struct Message {
    event: String,
    /// Counted from 1.
    attempt: u32,
}

/// What is to be sent, and what was.
pub(crate) struct Outbox {
    seed: u64,
    own_secret: String,
    webhook: Option<Webhook>,
    /// Messages that are still to be shuffled, and since when the first of them waits.
    window: Vec<Message>,
    window_since: Option<Instant>,
    /// By the time at which they are due, and of equal ones by the order in which they came.
    messages: BTreeMap<(Instant, u64), Message>,
    queued: u64,
    records: VecDeque<DeliveryRecord>,
    bell: Arc<Notify>,
}

impl Outbox {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            own_secret: Ids::new(seed).next("whsec"),
            webhook: None,
            window: Vec::new(),
            window_since: None,
            messages: BTreeMap::new(),
            queued: 0,
            records: VecDeque::new(),
            bell: Arc::default(),
        }
    }

    /// What is still to be sent goes to the new endpoint, or nowhere.
    pub(crate) fn set(&mut self, webhook: Option<Webhook>) {
        if webhook.is_none() {
            self.window.clear();
            self.messages.clear();
        }
        self.webhook = webhook;
        self.bell.notify_one();
    }

    pub(crate) fn url(&self) -> Option<&str> {
        self.webhook.as_ref().map(|webhook| webhook.target.url())
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.webhook.as_ref().map(|webhook| webhook.delivery.clone()).unwrap_or_default()
    }

    /// At least one.
    pub(crate) fn secrets(&self) -> &[String] {
        let given = self.webhook.as_ref().map(|webhook| webhook.secrets.as_slice());
        given.filter(|given| !given.is_empty()).unwrap_or(std::slice::from_ref(&self.own_secret))
    }

    pub(crate) fn records(&self) -> Vec<DeliveryRecord> {
        self.records.iter().cloned().collect()
    }

    /// An event has happened.
    pub(crate) fn happened(&mut self, event: &str) {
        self.happened_at(event, Instant::now());
    }

    fn happened_at(&mut self, event: &str, now: Instant) {
        let Some(Webhook { delivery, .. }) = &self.webhook else { return };
        if delivery.manual || self.draw("drop", event) % 100 < u64::from(delivery.drop) {
            return;
        }
        let delay = Duration::from_millis(delivery.delay_millis);
        let (copies, reorder) = (if delivery.duplicate { 2 } else { 1 }, delivery.reorder);
        for _ in 0..copies {
            let message = Message { event: event.to_owned(), attempt: 1 };
            if reorder {
                self.window_since.get_or_insert(now);
                self.window.push(message);
                if self.window.len() == WINDOW {
                    self.shuffle(now);
                }
            } else {
                self.queue(message, now + delay);
            }
        }
        self.bell.notify_one();
    }

    /// Sends an event once more, whatever the switches say. `false`: there is no endpoint.
    pub(crate) fn send(&mut self, event: &str) -> bool {
        if self.webhook.is_none() {
            return false;
        }
        self.queue(Message { event: event.to_owned(), attempt: 1 }, Instant::now());
        self.bell.notify_one();
        true
    }

    fn queue(&mut self, message: Message, due: Instant) {
        self.queued += 1;
        self.messages.insert((due, self.queued), message);
    }

    fn shuffle(&mut self, now: Instant) {
        let due = now + Duration::from_millis(self.delivery().delay_millis);
        self.window_since = None;
        let mut window: Vec<_> = std::mem::take(&mut self.window).into_iter().enumerate().collect();
        // Both copies of a duplicated event have a place of their own.
        window.sort_by_key(|(at, message)| self.draw(&format!("order {at}"), &message.event));
        for (_, message) in window {
            self.queue(message, due);
        }
    }

    /// The next message that is due, or else when to ask again (`None`: when the bell rings).
    fn next(&mut self, now: Instant) -> Result<Message, Option<Instant>> {
        let closes = self.window_since.map(|since| since + WINDOW_OPEN);
        if closes.is_some_and(|closes| closes <= now) {
            self.shuffle(now);
            return self.next(now);
        }
        match self.messages.first_entry() {
            Some(first) if first.key().0 <= now => Ok(first.remove()),
            Some(first) => Err(Some(closes.map_or(first.key().0, |at| at.min(first.key().0)))),
            None => Err(closes),
        }
    }

    fn sent(&mut self, message: Message, status: u16, now: Instant) {
        if self.records.len() == MAX_RECORDS {
            self.records.pop_front();
        }
        let Message { event, attempt, .. } = message;
        self.records.push_back(DeliveryRecord { event: event.clone(), status, attempt });
        let delivered = (200..300).contains(&status);
        if !delivered && attempt < ATTEMPTS && self.webhook.is_some() {
            let due = now + FIRST_WAIT * 2_u32.pow(attempt - 1);
            self.queue(Message { event, attempt: attempt + 1 }, due);
        }
    }

    /// A number that depends on the seed, on what it is for, and on the event.
    fn draw(&self, purpose: &str, event: &str) -> u64 {
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(purpose)
            .chain_update(event)
            .finalize();
        hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// `Stripe-Signature`, with one signature for each secret.
pub(crate) fn signature(secrets: &[String], timestamp: i64, body: &str) -> String {
    let mut header = format!("t={timestamp}");
    for secret in secrets {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .expect("HMAC takes keys of any length");
        mac.update(format!("{timestamp}.{body}").as_bytes());
        header.push_str(",v1=");
        for byte in mac.finalize().into_bytes() {
            header.push_str(&format!("{byte:02x}"));
        }
    }
    header
}

/// Sends what is due, one message at a time, until the sandbox stops.
pub(crate) async fn work(app: Arc<App>) {
    let forever = async {
        let bell = Arc::clone(&app.lock().outbox.bell);
        loop {
            let next = app.lock().outbox.next(Instant::now());
            match next {
                Ok(message) => attempt(&app, message).await,
                Err(None) => bell.notified().await,
                Err(Some(at)) => {
                    // Whichever comes first: time, or something new to look at.
                    let _elapsed = tokio::time::timeout_at(at.into(), bell.notified()).await;
                }
            }
        }
    };
    tokio::select! {
        () = app.stopped() => {}
        () = forever => {}
    }
}

async fn attempt(app: &App, message: Message) {
    let (target, letter) = {
        let state = app.lock();
        let target = state.outbox.webhook.as_ref().map(|webhook| webhook.target.clone());
        (target, state.signed(&message.event, app.config.clock.now()))
    };
    let (Some(target), Some((signature, body))) = (target, letter) else { return };
    let status = post::post(&target, &signature, body).await;
    app.lock().outbox.sent(message, status, Instant::now());
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Delivery, Outbox, Webhook, signature};

    fn outbox(delivery: Delivery) -> Outbox {
        let mut outbox = Outbox::new(7);
        outbox.set(Some(Webhook::new("http://127.0.0.1:9/", [], delivery).unwrap()));
        outbox
    }

    #[test]
    fn an_event_that_nobody_takes_is_given_up_after_six_attempts() {
        let mut outbox = outbox(Delivery::default());
        outbox.happened("evt_1");
        let start = Instant::now();
        let mut now = start;
        let mut waits = Vec::new();
        loop {
            match outbox.next(now) {
                Ok(message) => {
                    waits.push((now - start).as_millis() / 100);
                    outbox.sent(message, 500, now);
                }
                Err(Some(at)) => now = at,
                Err(None) => break,
            }
        }
        assert_eq!(waits, [0, 1, 3, 7, 15, 31]);
        assert_eq!(outbox.records().len(), 6);
    }

    #[test]
    fn a_window_closes_when_it_is_full_or_old() {
        let mut outbox = outbox(Delivery { reorder: true, ..Delivery::default() });
        let take = |outbox: &mut Outbox, now| {
            let mut events = Vec::new();
            while let Ok(message) = outbox.next(now) {
                events.push(message.event);
            }
            events.sort_unstable();
            events
        };
        let now = Instant::now();
        for event in ["evt_1", "evt_2", "evt_3"] {
            outbox.happened_at(event, now);
        }
        assert_eq!(take(&mut outbox, now), Vec::<String>::new());
        outbox.happened_at("evt_4", now);
        outbox.happened_at("evt_5", now);
        assert_eq!(take(&mut outbox, now), ["evt_1", "evt_2", "evt_3", "evt_4"]);
        assert_eq!(take(&mut outbox, now + Duration::from_millis(100)), ["evt_5"]);
    }

    #[test]
    fn a_signature_is_what_openssl_computes() {
        // printf '1790000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test
        let secrets = ["whsec_test".to_owned(), "whsec_other".to_owned()];
        let header = signature(&secrets, 1_790_000_000, r#"{"id":"evt_1"}"#);
        assert_eq!(
            header,
            "t=1790000000,\
             v1=e32657f3e678d33b41ec084c16ac0e125d25480a06cb3902286dc5942c6fd259,\
             v1=486a1acb5adf9d6b7f2c9e94391054285bf75feb656067550f69ac0b73d73f7b"
        );
    }
}
