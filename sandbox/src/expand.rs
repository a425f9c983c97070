//! `expand[]`: ids in an answer replaced by the objects that they name.
//!
//! Source: Stripe's page "Expanding responses". Paths are checked before a request runs.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::form::Params;
use crate::state::State;
use crate::{balance, customers, disputes, payment_intents, payment_methods, refunds};

/// Stripe's limit: four levels of a property.
const MAX_LEVELS: usize = 4;

/// (object, property, what the property names).
const EXPANDABLE: [(&str, &str, &str); 18] = [
    ("payment_intent", "customer", "customer"),
    ("payment_intent", "payment_method", "payment_method"),
    ("payment_intent", "latest_charge", "charge"),
    ("setup_intent", "customer", "customer"),
    ("setup_intent", "payment_method", "payment_method"),
    ("payment_method", "customer", "customer"),
    ("charge", "customer", "customer"),
    ("charge", "payment_intent", "payment_intent"),
    ("charge", "balance_transaction", "balance_transaction"),
    ("refund", "charge", "charge"),
    ("refund", "payment_intent", "payment_intent"),
    ("refund", "balance_transaction", "balance_transaction"),
    ("dispute", "charge", "charge"),
    ("dispute", "payment_intent", "payment_intent"),
    ("radar.early_fraud_warning", "charge", "charge"),
    ("radar.early_fraud_warning", "payment_intent", "payment_intent"),
    ("balance_transaction", "source", "source"),
    ("list", "data", ""),
];

/// The paths that a request wants expanded.
pub(crate) struct Expand(Vec<Vec<String>>);

impl Expand {
    /// `object` is what the endpoint answers with, and `list_of` what a list holds.
    pub(crate) fn read(params: &mut Params, object: &str, list_of: &str) -> ApiResult<Self> {
        let mut paths = Vec::new();
        for text in params.texts("expand")? {
            let path: Vec<String> = text.split('.').map(str::to_owned).collect();
            if path.len() > MAX_LEVELS {
                let message = format!(
                    "You cannot expand more than {MAX_LEVELS} levels of a property. (Property: \
                         {text})"
                );
                return Err(ApiError::invalid(message).param("expand"));
            }
            let mut object = object;
            for property in &path {
                let child = child_of(object, property).ok_or_else(|| {
                    let message = format!("This property cannot be expanded ({text}).");
                    ApiError::invalid(message).param("expand")
                })?;
                object = if object == "list" { list_of } else { child };
            }
            paths.push(path);
        }
        Ok(Self(paths))
    }

    pub(crate) fn apply(&self, state: &State, answer: &mut Value) {
        for path in &self.0 {
            expand(state, answer, path);
        }
    }
}

fn child_of(object: &str, property: &str) -> Option<&'static str> {
    let row = EXPANDABLE.iter().find(|(of, name, _)| *of == object && *name == property)?;
    Some(row.2)
}

fn expand(state: &State, object: &mut Value, path: &[String]) {
    let Some((property, rest)) = path.split_first() else { return };
    let kind = object["object"].as_str().unwrap_or_default();
    let Some(child) = child_of(kind, property) else { return };
    match object.get_mut(property) {
        Some(Value::Array(rows)) => rows.iter_mut().for_each(|row| expand(state, row, rest)),
        Some(value) => {
            if let Some(found) = value.as_str().and_then(|id| find(state, child, id)) {
                *value = found;
            }
            expand(state, value, rest);
        }
        None => {}
    }
}

fn find(state: &State, object: &str, id: &str) -> Option<Value> {
    match object {
        "customer" => state.customers.get(id).map(|it| customers::show(&it)),
        "payment_method" => state.payment_methods.get(id).map(|it| payment_methods::show(&it)),
        "payment_intent" => state.payment_intents.get(id).map(|it| payment_intents::show(&it)),
        "charge" => state.charges.get(id).map(|it| payment_intents::charges::show(&it)),
        "balance_transaction" => state.balance_transactions.get(id).map(|it| balance::show(&it)),
        "refund" => state.refunds.get(id).map(|it| refunds::show(&it)),
        "dispute" => state.disputes.get(id).map(|it| disputes::show(&it)),
        // What moved the money: one of three kinds, told apart by their ids.
        "source" => {
            ["charge", "refund", "dispute"].iter().find_map(|object| find(state, object, id))
        }
        _ => None,
    }
}
