//! Events: what happened to an object, as webhooks tell it and `GET /v1/events` lists it.
//!
//! Source: Stripe's API reference "Events".

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Context, Job};
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::lists::Page;
use crate::state::Stored;

/// One thing that happened.
#[derive(Clone)]
pub(crate) struct Event {
    id: String,
    created: i64,
    /// Such as `payment_intent.succeeded`.
    pub(crate) kind: &'static str,
    /// The object as it was just after.
    object: Value,
}

impl Stored for Event {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

impl Context<'_> {
    /// Notes what happened to `object`, as it is now.
    pub(crate) fn happened(&mut self, kind: &'static str, object: Value) {
        let id = self.state.ids.next("evt");
        self.state.outbox.happened(&id);
        self.state.events.put(Event { id, created: self.now, kind, object });
    }
}

/// An event as Stripe shows it. Its body is what a webhook carries.
pub(crate) fn show(event: &Event) -> Value {
    json!({
        "id": event.id,
        "object": "event",
        "api_version": crate::server::DEFAULT_VERSION,
        "created": event.created,
        "data": { "object": event.object },
        "livemode": false,
        "pending_webhooks": 0,
        "request": { "id": null, "idempotency_key": null },
        "type": event.kind,
    })
}

/// `GET /v1/events/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| {
        let missing = || ApiError::missing("event", &id, "id").status(StatusCode::NOT_FOUND);
        context.state.events.get(&id).map(|event| show(&event)).ok_or_else(missing)
    }))
}

/// `GET /v1/events`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let kind = params.text("type")?;
    let mut kinds = params.texts("types")?;
    if kind.is_some() && !kinds.is_empty() {
        let message = "You may only specify one of these parameters: type, types.";
        return Err(ApiError::invalid(message).code("parameters_exclusive"));
    }
    kinds.extend(kind);
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted =
            |event: &Event| kinds.is_empty() || kinds.iter().any(|kind| event.kind == kind);
        page.list(&context.state.events, ("event", "/v1/events"), wanted, show)
    }))
}
