//! Stripe's events: heard by a webhook, or read from Stripe's list where none was heard.
//!
//! An event says that something happened, and to which object. What happened is read from Stripe.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farebox_ledger::{Store as _, TopUp, TopUpState};
use farebox_processor::{Event, EventKind, LookUpError, Mode, Unverified, WebhookSecrets};
use farebox_protocol::{TopUpId, header};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::{Semaphore, oneshot};

use crate::endpoint::{self, Answer, Refused};
use crate::observe::{self, ObserveError};
use crate::payments::Shared;

/// Hears what Stripe tells about charges: refunds, disputes, warnings of fraud. Made by
/// [`Payments::webhook`](crate::Payments::webhook); mount it at the path that Stripe was told.
///
/// | answer | when |
/// |---|---|
/// | 200 | the event is booked, or says nothing to us, or is being booked |
/// | 400 | the signature is missing or wrong, or the event is older or newer than 5 minutes |
/// | 405, 413 | it is no POST, or longer than a mebibyte |
/// | 503 | it could not be booked; Stripe sends it again |
///
/// It answers within a second. What takes longer goes on, and what a crash cuts is found again: the
/// server also reads the list of events, so a webhook only makes it faster.
#[derive(Clone)]
pub struct WebhookService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) secrets: Arc<WebhookSecrets>,
}

/// No secret is known that a webhook could be checked with; the operator acts.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no webhook secret is set: copy it from Stripe's dashboard, where the endpoint is, into \
     STRIPE_WEBHOOK_SECRET"
)]
pub struct NoWebhookSecret;

/// As its Display, so that a `main` that returns it prints a sentence.
impl fmt::Debug for NoWebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The longest body that is read. A dispute's evidence alone may have 150,000 characters.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Stripe is answered in less than a second, whatever its own answers take.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// The most events that are booked at one time.
const EVENTS_MAX: usize = 32;
/// How many events are remembered, so that a repeat costs nothing. A forgotten one is booked again,
/// which changes nothing.
const REMEMBERED: usize = 4_096;
/// How long a driver has a top-up to itself.
const DRIVEN_MILLIS: i64 = 10_000;
/// How often a booking that failed is tried again, and how long the first wait is.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How far back the list is read at start, which is as long as Stripe repeats a webhook, and how
/// much of it is read twice: an event is listed a little after its time.
const LOOK_BACK_SECONDS: i64 = 3 * 24 * 3_600;
const OVERLAP_SECONDS: i64 = 3_600;

/// Events of this process.
pub(crate) struct Events {
    turns: Semaphore,
    seen: Mutex<Seen>,
    /// Since when the list is read again, in seconds by Stripe's clock; our own may be wrong for a
    /// while. `None` until all that it had were booked once.
    since: Mutex<Option<i64>>,
}

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    oldest: VecDeque<String>,
}

impl Default for Events {
    fn default() -> Self {
        Events {
            turns: Semaphore::new(EVENTS_MAX),
            seen: Mutex::default(),
            since: Mutex::default(),
        }
    }
}

impl Events {
    fn contains(&self, id: &str) -> bool {
        self.seen().ids.contains(id)
    }

    fn remember(&self, id: &str) {
        let mut seen = self.seen();
        if seen.ids.insert(id.to_owned()) {
            seen.oldest.push_back(id.to_owned());
        }
        if seen.oldest.len() > REMEMBERED
            && let Some(oldest) = seen.oldest.pop_front()
        {
            seen.ids.remove(&oldest);
        }
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<i64>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Whoever panicked left at worst one id too many or too few.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WebhookService {
    async fn answer<B>(&self, request: Request<B>) -> Result<Answer, Refused>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return Err(Refused::method("POST"));
        }
        let signature = match header::single(&parts.headers, &SIGNATURE) {
            Ok(Some(value)) => value.to_str().ok().map(str::to_owned),
            _ => None,
        };
        let signature = signature.ok_or_else(|| refused(Unverified::Header))?;
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| {
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut, or above a mebibyte")
        })?;
        let now = self.shared.clock.now().seconds();
        let event = self.secrets.verify(&signature, &body.to_bytes(), now).map_err(refused)?;
        if event.livemode != (self.shared.stripe.mode() == Mode::Live) {
            tracing::warn!(event = event.id, "an event of the other mode is not for this server");
            return Ok(heard());
        }
        self.hear(event).await
    }

    /// Books an event in a task of its own, and waits for it as long as Stripe may be kept waiting.
    async fn hear(&self, event: Event) -> Result<Answer, Refused> {
        if event.kind == EventKind::Other || self.shared.events.contains(&event.id) {
            return Ok(heard());
        }
        let shared = self.shared.clone();
        let (told, tried) = oneshot::channel();
        let task = async move {
            let first = shared.happened(&event).await;
            // Whoever still waits tells Stripe, which sends it again. Else it is for us.
            if let Err(Err(error)) = told.send(first) {
                shared.patiently(&event, error).await;
            }
        };
        self.shared.tasks.spawn_on(task, &self.shared.runtime);
        match tokio::time::timeout(ANSWER_WITHIN, tried).await {
            // Booked, or still being booked.
            Ok(Ok(Ok(()))) | Err(_) => Ok(heard()),
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "Stripe is asked to send an event again");
                Err(not_booked())
            }
            Ok(Err(_)) => Err(not_booked()), // its task died
        }
    }
}

const SIGNATURE: http::HeaderName = http::HeaderName::from_static("stripe-signature");

fn heard() -> Answer {
    endpoint::answer(StatusCode::OK, &serde_json::json!({ "received": true }))
}

fn not_booked() -> Refused {
    let error = "the event could not be booked; send it again";
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, error)
}

fn refused(why: Unverified) -> Refused {
    tracing::warn!(%why, "a webhook was refused");
    Refused::new(StatusCode::BAD_REQUEST, "this is no event that Stripe has signed just now")
}

impl Shared {
    /// Tries again to book an event, of which nobody else would tell.
    async fn patiently(&self, event: &Event, mut error: ObserveError) {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            tracing::warn!(event = event.id, %error, "an event is not booked yet");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause *= 2,
                () = self.closing.cancelled() => return,
            }
            match self.happened(event).await {
                Ok(()) => return,
                Err(again) => error = again,
            }
        }
        tracing::error!(event = event.id, %error, "an event waits for the next list of events");
    }

    /// Books what an event tells of. Repeats and old news change nothing.
    pub(crate) async fn happened(&self, event: &Event) -> Result<(), ObserveError> {
        if event.kind == EventKind::Other || self.events.contains(&event.id) {
            return Ok(());
        }
        // A semaphore that is never closed gives every turn.
        let _turn = self.events.turns.acquire().await.map_err(|_| ObserveError::Busy)?;
        match (event.kind, event.intent.as_deref()) {
            (EventKind::FraudWarning, _) => self.warned(&event.object).await?,
            (_, None) => {} // a payment that is none of ours
            // No money came. Whoever drives the top-up ends it, and a card that is tested must
            // not cost more calls than the one that declined it.
            (EventKind::IntentFailed | EventKind::IntentCanceled, _) => {}
            (EventKind::IntentSucceeded, Some(intent)) => {
                self.succeeded(intent, event.top_up).await?;
            }
            (_, Some(intent)) => drop(self.observe(intent, event.top_up).await?),
        }
        self.events.remember(&event.id);
        Ok(())
    }

    /// A card was charged. The top-up's driver knows, or is about to be answered: only if it was
    /// not, Stripe is asked, or every charge would cost three more calls.
    async fn succeeded(&self, intent: &str, id: Option<TopUpId>) -> Result<(), ObserveError> {
        let Some(id) = id else { return Ok(()) };
        match self.ledger.top_up(&id).await? {
            Some(TopUp { state: TopUpState::Succeeded { intent: known }, .. })
                if known == intent =>
            {
                Ok(())
            }
            Some(TopUp { state: TopUpState::Open { .. }, opened, .. })
                if self.clock.now() < opened.after(DRIVEN_MILLIS) =>
            {
                Ok(())
            }
            _ => self.observe(intent, Some(id)).await.map(drop),
        }
    }

    /// A bank warns that a charge is a fraud, before anyone disputes it: the payer is frozen until
    /// the provider has given the money back, or decided otherwise.
    async fn warned(&self, warning: &str) -> Result<(), ObserveError> {
        let warning = match self.stripe.warning(warning).await {
            Ok(warning) => warning,
            Err(LookUpError::NotFound) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(intent) = warning.intent.filter(|_| warning.actionable) else { return Ok(()) };
        let Some(id) = self.named(&intent).await? else { return Ok(()) };
        if self.ledger.top_up(&id).await?.is_none() {
            return Ok(());
        }
        match observe::reason(&warning.id) {
            Some(reason) => self.freeze(id.payer, reason).await.map(drop),
            None => Ok(()),
        }
    }

    /// Reads the events since the last time that say more than a top-up's driver knows.
    ///
    /// # Errors
    ///
    /// If some event was not booked: the next time reads them all again.
    pub(crate) async fn catch_up(&self) -> Result<(), ObserveError> {
        let since = *self.events.since();
        let since = since.unwrap_or_else(|| self.clock.now().seconds() - LOOK_BACK_SECONDS);
        let Some(events) = self.stripe.events_since(since).await? else { return Ok(()) };
        let mut all = Ok(());
        for event in &events {
            if let Err(error) = self.happened(event).await {
                // The next round reads it again; the others need not wait for it.
                tracing::error!(event = event.id, %error, "an event could not be booked");
                all = Err(error);
            }
        }
        if all.is_ok()
            && let Some(newest) = events.iter().map(|event| event.created).max()
        {
            *self.events.since() = Some(newest - OVERLAP_SECONDS);
        }
        all
    }
}

endpoint::service!(WebhookService);

impl fmt::Debug for WebhookService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookService").finish_non_exhaustive()
    }
}
