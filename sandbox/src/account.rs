//! The one account of a sandbox. Its id is the same in every sandbox, as keys are.

use serde_json::{Value, json};

use crate::api::Job;
use crate::error::ApiResult;
use crate::form::Params;

const ID: &str = "acct_sandboxFarebox00";

/// `GET /v1/account`
pub(crate) fn retrieve(_: &str, _: &mut Params) -> ApiResult<Job> {
    Ok(Box::new(|_| Ok(show())))
}

fn show() -> Value {
    json!({
        "id": ID,
        "object": "account",
        "business_profile": null,
        "business_type": null,
        "capabilities": { "card_payments": "active" },
        "charges_enabled": true,
        "controller": { "type": "account" },
        "country": "US",
        "created": 1_700_000_000,
        "default_currency": "usd",
        "details_submitted": true,
        "email": null,
        "metadata": {},
        "payouts_enabled": false,
        "settings": null,
        "type": "standard",
    })
}
