//! Early fraud warnings: an issuer reports a charge as fraud, often before it is disputed.
//!
//! Source: Stripe's API reference "Early Fraud Warning".

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Context, Job};
use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::lists::Page;
use crate::payment_intents::charges::Charge;
use crate::state::{State, Stored};

const OBJECT: &str = "radar.early_fraud_warning";

#[derive(Clone)]
pub(crate) struct FraudWarning {
    pub(crate) id: String,
    created: i64,
    charge: String,
    intent: String,
}

impl Stored for FraudWarning {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

/// The issuer of the card reports this charge.
pub(crate) fn warn(context: &mut Context<'_>, charge: &Charge) -> FraudWarning {
    let warning = FraudWarning {
        id: context.state.ids.next("issfr"),
        created: context.now,
        charge: charge.id.clone(),
        intent: charge.intent().to_owned(),
    };
    context.state.fraud_warnings.put(warning.clone());
    let shown = show(context.state, &warning);
    context.happened("radar.early_fraud_warning.created", shown);
    warning
}

/// `GET /v1/radar/early_fraud_warnings/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| {
        let missing = || ApiError::missing(OBJECT, &id, "id").status(StatusCode::NOT_FOUND);
        let warning = context.state.fraud_warnings.get(&id).ok_or_else(missing)?;
        Ok(show(context.state, &warning))
    }))
}

/// `GET /v1/radar/early_fraud_warnings`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let (charge, intent) = (params.text("charge")?, params.text("payment_intent")?);
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted = |warning: &FraudWarning| {
            charge.as_ref().is_none_or(|charge| warning.charge == *charge)
                && intent.as_ref().is_none_or(|intent| warning.intent == *intent)
        };
        let state = &*context.state;
        let names = (OBJECT, "/v1/radar/early_fraud_warnings");
        page.list(&state.fraud_warnings, names, wanted, |warning| show(state, warning))
    }))
}

/// A warning asks for action until the charge is disputed or fully refunded.
pub(crate) fn show(state: &State, warning: &FraudWarning) -> Value {
    let charge = state.charges.get(&warning.charge);
    let actionable = charge.is_some_and(|charge| !charge.disputed && charge.unrefunded() > 0);
    json!({
        "id": warning.id,
        "object": OBJECT,
        "actionable": actionable,
        "charge": warning.charge,
        "created": warning.created,
        "fraud_type": "misc",
        "livemode": false,
        "payment_intent": warning.intent,
    })
}
