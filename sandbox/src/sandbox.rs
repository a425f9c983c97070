//! The handle of a running sandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::api;
use crate::builder::Builder;
use crate::events;
use crate::faults::Fault;
use crate::server::App;
use crate::state::Stored;
use crate::webhooks::{Delivery, DeliveryRecord, InvalidWebhook, Webhook};

/// A running sandbox. Dropping it stops the server.
pub struct Sandbox {
    pub(crate) app: Arc<App>,
    pub(crate) url: String,
    pub(crate) stop: DropGuard,
    pub(crate) task: JoinHandle<()>,
}

/// One request that a sandbox received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Call {
    /// `POST` or `GET`.
    pub method: String,
    /// Without the query, e.g. `/v1/payment_intents`.
    pub path: String,
    /// HTTP status of the answer; 0 if there was none, because the connection was reset.
    pub status: u16,
}

/// One PaymentIntent that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChargeRecord {
    /// Id of the PaymentIntent.
    pub id: String,
    /// In the currency's minor unit (cents).
    pub amount: i64,
    /// Three letters, lower case.
    pub currency: String,
    /// Id of the Customer, if there was one.
    pub customer: Option<String>,
    /// Id of the PaymentMethod that was charged.
    pub payment_method: String,
    /// Metadata of the PaymentIntent.
    pub metadata: BTreeMap<String, String>,
    /// When the PaymentIntent was created, in seconds since 1970.
    pub created: i64,
}

/// One thing that happened, as webhooks tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventRecord {
    /// Id of the event.
    pub id: String,
    /// Such as `payment_intent.succeeded`.
    pub kind: String,
    /// The event in JSON, byte for byte what a webhook carries.
    pub body: String,
}

impl Sandbox {
    /// A sandbox with a random seed, the real clock, and the settings that a new Stripe account
    /// has, except that card numbers may be tokenized with the publishable key.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Base URL without a slash at the end, e.g. `http://127.0.0.1:4242`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key for every endpoint. Under the prefix `rk_test_` it is a restricted key with every
    /// permission.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.app.config.keys.secret
    }

    /// The key that may make PaymentMethods and nothing else.
    #[must_use]
    pub fn publishable_key(&self) -> &str {
        &self.app.config.keys.publishable
    }

    /// Every request received so far, oldest first; of very many, the last 100,000. A request is
    /// listed as soon as its effect is committed, which is before a
    /// [`latency`](Builder::latency) passes.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.app.lock().calls()
    }

    /// Every PaymentIntent that succeeded so far, in the order of success.
    #[must_use]
    pub fn charges(&self) -> Vec<ChargeRecord> {
        self.app.lock().paid.clone()
    }

    /// One `POST` with the secret key that no fault meets: the id of what it made, if it did.
    pub(crate) fn create(&self, path: &str, fields: &[(&str, &str)]) -> Option<String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let request = axum::http::Request::post(path)
            .header("authorization", format!("Bearer {}", self.secret_key()))
            .header("content-type", "application/x-www-form-urlencoded");
        let (parts, ()) = request.body(()).ok()?.into_parts();
        let body = form.finish().into();
        let answer = api::answer(&mut self.app.lock(), &self.app.config, &parts, Ok(&body), None);
        let made: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let id = made.get("id")?.as_str()?.to_owned();
        answer.status.is_success().then_some(id)
    }

    /// Lets something go wrong with requests to come.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use farebox_sandbox::{Fault, FaultKind, Sandbox};
    ///
    /// let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
    /// sandbox.inject(Fault::at("POST", "/v1/payment_intents", FaultKind::ResetAfter));
    /// let pay = || {
    ///     reqwest::Client::new()
    ///         .post(format!("{}/v1/payment_intents", sandbox.url()))
    ///         .bearer_auth(sandbox.secret_key())
    ///         .header("content-type", "application/x-www-form-urlencoded")
    ///         .header("idempotency-key", "order-1")
    ///         .body(
    ///             "amount=500&currency=usd&confirm=true&payment_method=pm_card_visa\
    ///              &allowed_payment_method_types[]=card",
    ///         )
    ///         .send()
    /// };
    /// assert!(pay().await.is_err(), "the answer is lost, and");
    /// assert_eq!(sandbox.charges().len(), 1, "the card is charged");
    /// assert_eq!(pay().await?.headers()["idempotent-replayed"], "true");
    /// assert_eq!(sandbox.charges().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn inject(&self, fault: Fault) {
        self.app.lock().faults.inject(fault);
    }

    /// Forgets the faults that are still to come.
    pub fn clear_faults(&self) {
        self.app.lock().faults.clear();
    }

    /// How many requests have met a fault so far.
    #[must_use]
    pub fn faults_hit(&self) -> usize {
        self.app.lock().faults.hit()
    }

    /// What happened so far, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<EventRecord> {
        let state = self.app.lock();
        let record = |event: &events::Event| EventRecord {
            id: event.id().to_owned(),
            kind: event.kind.to_owned(),
            body: events::show(event).to_string(),
        };
        state.events.newest_first().rev().map(record).collect()
    }

    /// An event's webhook as it would be sent at this time (in seconds since 1970): the header
    /// `Stripe-Signature` and the body. `None`: there is no such event.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use farebox_sandbox::Sandbox;
    ///
    /// let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
    /// reqwest::Client::new()
    ///     .post(format!("{}/v1/payment_intents", sandbox.url()))
    ///     .bearer_auth(sandbox.secret_key())
    ///     .header("content-type", "application/x-www-form-urlencoded")
    ///     .body(
    ///         "amount=500&currency=usd&confirm=true&payment_method=pm_card_visa\
    ///          &allowed_payment_method_types[]=card",
    ///     )
    ///     .send()
    ///     .await?;
    /// let paid = sandbox.events().into_iter().find(|event| event.kind == "payment_intent.succeeded");
    /// let paid = paid.expect("the payment succeeded");
    /// let (header, body) = sandbox.signed(&paid.id, 1_790_000_000).expect("the event is there");
    /// assert!(header.starts_with("t=1790000000,v1="));
    /// assert_eq!(body, paid.body.as_bytes());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn signed(&self, event_id: &str, timestamp: i64) -> Option<(String, Vec<u8>)> {
        let signed = self.app.lock().signed(event_id, timestamp);
        signed.map(|(header, body)| (header, body.into_bytes()))
    }

    /// The secret that webhooks are signed with, of several the first.
    #[must_use]
    pub fn webhook_secret(&self) -> String {
        self.app.lock().outbox.secrets()[0].clone()
    }

    /// Sends what happens from here on to this endpoint, and no longer to another. See
    /// [`Builder::webhook`].
    ///
    /// # Errors
    ///
    /// A URL that is not on this machine, a secret that is none, or an impossible percentage.
    pub fn deliver_to(
        &self,
        url: &str,
        secrets: impl IntoIterator<Item = String>,
        delivery: Delivery,
    ) -> Result<(), InvalidWebhook> {
        let webhook = Webhook::new(url, secrets, delivery)?;
        self.app.lock().outbox.set(Some(webhook));
        Ok(())
    }

    /// Sends one event to the webhook endpoint, once more if it was sent before, whatever the
    /// switches say. `false`: there is no such event or no endpoint.
    pub fn deliver(&self, event_id: &str) -> bool {
        let mut state = self.app.lock();
        state.events.contains(event_id) && state.outbox.send(event_id)
    }

    /// Every attempt to deliver an event so far, oldest first; of very many, the last 100,000.
    #[must_use]
    pub fn deliveries(&self) -> Vec<DeliveryRecord> {
        self.app.lock().outbox.records()
    }

    /// Seconds since 1970 (UTC), by the sandbox's clock.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.app.config.clock.now()
    }

    /// Moves the sandbox's clock forward by the whole seconds of `by`, the real one too.
    pub fn advance(&self, by: Duration) {
        self.app.config.clock.advance(by);
    }

    /// Stops accepting connections, answers the open requests, and returns when the port is free.
    pub async fn stop(self) {
        drop(self.stop);
        // The task ends without a value; a panic in it has been reported by its own thread.
        let _ended = self.task.await;
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("url", &self.url).finish_non_exhaustive()
    }
}
