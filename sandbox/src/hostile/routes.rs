//! The list and the verdicts, for a client in another language.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::middleware;
use axum::routing::get;
use serde_json::{Value, json};

use super::{Battery, Stage};
use crate::control::{Json, only_local_programs};

pub(super) fn routes(battery: Arc<Battery>) -> Router {
    Router::new()
        .route("/", get(help))
        .route("/scenarios", get(list))
        .route("/verdicts", get(verdicts))
        .layer(middleware::from_fn(only_local_programs))
        .with_state(battery)
}

async fn help() -> Json<Value> {
    Json(json!({ "requests": [
        { "request": "GET /scenarios", "does": "what to ask, and where Stripe is" },
        { "request": "GET /verdicts", "does": "what came of it so far" },
    ] }))
}

async fn list(Shared(battery): Shared<Arc<Battery>>) -> Json<Value> {
    let show = |stage: &Stage| {
        let scenario = stage.scenario;
        json!({
            "name": scenario.name,
            "kind": scenario.kind,
            "what": scenario.what,
            "allowed": scenario.allowed,
            "method": scenario.method,
            "url": stage.url,
        })
    };
    let scenarios: Vec<Value> = battery.stages.iter().map(show).collect();
    Json(json!({ "stripe": battery.sandbox.url(), "scenarios": scenarios }))
}

async fn verdicts(Shared(battery): Shared<Arc<Battery>>) -> Json<Value> {
    let verdicts = battery.verdicts();
    let within = verdicts.iter().all(|verdict| verdict.within);
    Json(json!({ "within": within, "verdicts": verdicts }))
}
