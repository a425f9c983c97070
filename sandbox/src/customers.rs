//! Customers.
//!
//! Source: Stripe's API reference "Customers".

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Context, Job};
use crate::error::{ApiError, ApiResult};
use crate::form::{self, Params};
use crate::lists::Page;
use crate::payment_methods;
use crate::search::{Field, Query};
use crate::state::Stored;

const NOUN: &str = "customer";

#[derive(Clone)]
pub(crate) struct Customer {
    id: String,
    created: i64,
    name: Option<String>,
    email: Option<String>,
    description: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl Stored for Customer {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

/// `POST /v1/customers`
pub(crate) fn create(_: &str, params: &mut Params) -> ApiResult<Job> {
    let payment_method = params.text("payment_method")?;
    let (name, email) = (params.text("name")?, params.text("email")?);
    let (description, metadata) = (params.text("description")?, params.metadata()?);
    Ok(Box::new(move |context| {
        // The card comes first: a Customer whose card is refused is not made.
        let method = payment_method
            .map(|id| payment_methods::resolve(context, &id, "payment_method"))
            .transpose()?;
        let id = context.state.ids.next("cus");
        if let Some(method) = method {
            payment_methods::attach_to(context, method, &id)?;
        }
        let customer = Customer { id, created: context.now, name, email, description, metadata };
        let shown = show(&customer);
        context.state.customers.put(customer);
        Ok(shown)
    }))
}

/// `GET /v1/customers/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| Ok(show(&from_path(context, &id)?))))
}

/// `GET /v1/customers`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let email = params.text("email")?;
    let page = Page::read(params)?.read_created(params)?;
    Ok(Box::new(move |context| {
        let wanted = |customer: &Customer| email.is_none() || customer.email == email;
        page.list(&context.state.customers, (NOUN, "/v1/customers"), wanted, show)
    }))
}

/// `GET /v1/customers/search`
pub(crate) fn search(_: &str, params: &mut Params) -> ApiResult<Job> {
    let query = params.text("query")?.ok_or_else(|| form::missing("query"))?;
    let query = Query::parse(&query)?;
    let page = Page::read_first(params)?;
    Ok(Box::new(move |context| {
        let mut found = Vec::new();
        for customer in context.state.customers.newest_first() {
            if query.matches(|field| customer.field(field))? {
                found.push(show(customer));
            }
        }
        Ok(page.search_result("/v1/customers/search", found))
    }))
}

impl Customer {
    /// A field that Customers can be searched by.
    fn field(&self, field: &Field) -> Option<Option<String>> {
        match field {
            Field::Metadata(key) => Some(self.metadata.get(key).cloned()),
            Field::Named(name) => match name.as_str() {
                "email" => Some(self.email.clone()),
                "name" => Some(self.name.clone()),
                _ => None,
            },
        }
    }
}

pub(crate) fn from_path(context: &Context<'_>, id: &str) -> ApiResult<Customer> {
    let missing = || ApiError::missing(NOUN, id, "id").status(StatusCode::NOT_FOUND);
    context.state.customers.get(id).ok_or_else(missing)
}

/// For a Customer named by the parameter `customer`.
pub(crate) fn check_exists(context: &Context<'_>, id: &str) -> ApiResult<()> {
    if context.state.customers.contains(id) {
        Ok(())
    } else {
        Err(ApiError::missing(NOUN, id, "customer"))
    }
}

pub(crate) fn show(customer: &Customer) -> Value {
    // Stripe's is eight characters of the account's choosing; nothing here makes invoices.
    let invoice_prefix: String = customer.id.chars().rev().take(8).collect();
    json!({
        "id": customer.id,
        "object": "customer",
        "address": null,
        "balance": 0,
        "created": customer.created,
        "currency": null,
        "default_source": null,
        "delinquent": false,
        "description": customer.description,
        "discount": null,
        "email": customer.email,
        "invoice_prefix": invoice_prefix.to_ascii_uppercase(),
        "invoice_settings": {
            "custom_fields": null,
            "default_payment_method": null,
            "footer": null,
            "rendering_options": null,
        },
        "livemode": false,
        "metadata": customer.metadata,
        "name": customer.name,
        "next_invoice_sequence": 1,
        "phone": null,
        "preferred_locales": [],
        "shipping": null,
        "tax_exempt": "none",
        "test_clock": null,
    })
}
