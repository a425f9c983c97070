//! PaymentMethods: cards, and who may use them.
//!
//! Source: Stripe's API reference "PaymentMethods", and its page "Save and reuse payment methods".

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Context, Job};
use crate::auth::KeyKind;
use crate::cards::{self, Card, CardInput, CardNumber, Cvc, Use, Verdict};
use crate::customers;
use crate::error::{ApiError, ApiResult};
use crate::form::{self, Params};
use crate::lists::Page;
use crate::state::Stored;

const NOUN: &str = "PaymentMethod";

#[derive(Clone)]
pub(crate) struct PaymentMethod {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) card: Card,
    pub(crate) cvc_check: Option<&'static str>,
    pub(crate) billing_details: Value,
    pub(crate) metadata: BTreeMap<String, String>,
    /// The Customer it is attached to.
    pub(crate) customer: Option<String>,
    pub(crate) left: Left,
}

/// What may still be done with a PaymentMethod that is attached to nobody.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Everything,
    /// It was used once with `setup_future_usage`: it may be attached, not used again.
    Attaching,
    /// It was used without a Customer, or detached from one.
    Nothing,
}

impl Stored for PaymentMethod {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }
}

impl PaymentMethod {
    /// Whether an intent of this customer may use it.
    pub(crate) fn check_usable(&self, customer: Option<&str>, intent: &str) -> ApiResult<()> {
        let id = &self.id;
        let message = match (self.customer.as_deref(), customer) {
            (Some(owner), Some(customer)) if owner == customer => return Ok(()),
            (None, _) if self.left == Left::Everything => return Ok(()),
            (Some(owner), None) => format!(
                "The PaymentMethod supplied ({id}) belongs to the Customer {owner}. Please \
                     include the Customer in the `customer` parameter on the {intent}."
            ),
            (Some(_), Some(customer)) => format!(
                "The payment method supplied ({id}) does not belong to the Customer ({customer}) \
                     you supplied on this {intent}. You must use a payment method that belongs to \
                     the Customer."
            ),
            (None, _) => {
                let message = "The provided PaymentMethod was previously used with a \
                     PaymentIntent without Customer attachment, shared with a connected account \
                     without Customer attachment, or was detached from a Customer. It may not be \
                     used again. To use a PaymentMethod multiple times, you must attach it to a \
                     Customer first.";
                return Err(ApiError::invalid(message)
                    .code("payment_method_unexpected_state")
                    .param("payment_method"));
            }
        };
        Err(ApiError::invalid(message).param("payment_method"))
    }
}

struct Create {
    source: Source,
    billing_details: Value,
    metadata: BTreeMap<String, String>,
}

enum Source {
    Typed(CardInput),
    /// `tok_visa`, without its prefix.
    Token(String),
}

/// `POST /v1/payment_methods`
pub(crate) fn create(_: &str, params: &mut Params) -> ApiResult<Job> {
    let kind = params.choice("type", &["card"])?;
    kind.ok_or_else(|| form::missing("type"))?;
    let source = params.object("card", read_source)?.ok_or_else(|| form::missing("card"))?;
    params.choice("allow_redisplay", &["always", "limited", "unspecified"])?;
    let billing_details = read_billing_details(params)?;
    let create = Create { source, billing_details, metadata: params.metadata()? };
    Ok(Box::new(move |context| create.run(context)))
}

fn read_source(card: &mut Params) -> ApiResult<Source> {
    if let Some(token) = card.text("token")? {
        let alias = token.strip_prefix("tok_").map(str::to_owned);
        let missing = ApiError::missing("token", &token, "card[token]");
        return alias.map(Source::Token).ok_or(missing);
    }
    Ok(Source::Typed(CardInput {
        number: CardNumber::new(&card.required_text("number")?),
        exp_month: card.required_integer("exp_month")?,
        exp_year: card.required_integer("exp_year")?,
        cvc: card.text("cvc")?.map(Cvc::new),
    }))
}

/// As it is shown: `null` where nothing was given.
fn read_billing_details(params: &mut Params) -> ApiResult<Value> {
    let details = params.object("billing_details", |details| {
        let address = details.object("address", |address| {
            read_texts(address, &["city", "country", "line1", "line2", "postal_code", "state"])
        })?;
        let mut shown = read_texts(details, &["email", "name", "phone"])?;
        shown["address"] = address.unwrap_or_else(no_address);
        Ok(shown)
    })?;
    Ok(details.unwrap_or_else(no_billing_details))
}

fn read_texts(params: &mut Params, names: &[&str]) -> ApiResult<Value> {
    let mut shown = json!({});
    for name in names {
        shown[name] = json!(params.text(name)?);
    }
    Ok(shown)
}

fn no_address() -> Value {
    json!({
        "city": null, "country": null, "line1": null,
        "line2": null, "postal_code": null, "state": null,
    })
}

fn no_billing_details() -> Value {
    json!({ "address": no_address(), "email": null, "name": null, "phone": null })
}

impl Create {
    fn run(self, context: &mut Context<'_>) -> ApiResult<Value> {
        let card = match (self.source, context.key) {
            (Source::Token(alias), KeyKind::Secret) => {
                let token = format!("tok_{alias}");
                let missing = || ApiError::missing("token", &token, "card[token]");
                cards::by_alias(&alias, context.now).ok_or_else(missing)??
            }
            (Source::Typed(input), KeyKind::Secret) if context.config.raw_cards_with_secret_key => {
                input.into_card(context.now)?
            }
            (Source::Typed(_), KeyKind::Secret) => return Err(raw_card_refused()),
            (_, KeyKind::Publishable) if !context.config.tokenization => {
                return Err(tokenization_disabled());
            }
            (Source::Typed(input), KeyKind::Publishable) => input.into_card(context.now)?,
            (Source::Token(_), KeyKind::Publishable) => {
                return Err(crate::auth::secret_key_required());
            }
        };
        let method = store_new(context, card, self.billing_details, self.metadata);
        Ok(show_to(context.key, &method))
    }
}

/// With Stripe, too, this is an HTTP 402 of type `invalid_request_error`.
fn raw_card_refused() -> ApiError {
    ApiError::invalid(
        "Sending credit card numbers directly to the Stripe API is generally \
         unsafe. We suggest you use test tokens that map to the test card you are using, see \
         https://stripe.com/docs/testing. To enable raw card data APIs in test mode, see \
         https://support.stripe.com/questions/enabling-access-to-raw-card-data-apis.",
    )
    .status(StatusCode::PAYMENT_REQUIRED)
}

/// Stripe documents the words, not the status; it is taken to be that of the refusal above.
fn tokenization_disabled() -> ApiError {
    ApiError::invalid(
        "This integration surface is unsupported for publishable key tokenization. To enable this \
         surface, see https://support.stripe.com/questions/\
         card-tokenization-restrictions-using-publishable-keys.",
    )
    .status(StatusCode::PAYMENT_REQUIRED)
}

fn store_new(
    context: &mut Context<'_>,
    card: Card,
    billing_details: Value,
    metadata: BTreeMap<String, String>,
) -> PaymentMethod {
    let method = PaymentMethod {
        id: context.state.ids.next("pm"),
        created: context.now,
        // Nobody has asked the issuer yet.
        cvc_check: card.cvc_given.then_some("unchecked"),
        card,
        billing_details,
        metadata,
        customer: None,
        left: Left::Everything,
    };
    context.state.payment_methods.put(method.clone());
    method
}

/// The PaymentMethod of an id; a test alias such as `pm_card_visa` makes a new one of that card.
pub(crate) fn resolve(
    context: &mut Context<'_>,
    id: &str,
    param: &str,
) -> ApiResult<PaymentMethod> {
    if let Some(method) = context.state.payment_methods.get(id) {
        return Ok(method);
    }
    let card = id.strip_prefix("pm_card_").and_then(|alias| cards::by_alias(alias, context.now));
    let card = card.ok_or_else(|| ApiError::missing(NOUN, id, param))??;
    Ok(store_new(context, card, no_billing_details(), BTreeMap::new()))
}

/// `GET /v1/payment_methods/{id}`
pub(crate) fn retrieve(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| Ok(show(&from_path(context, &id)?))))
}

fn from_path(context: &mut Context<'_>, id: &str) -> ApiResult<PaymentMethod> {
    resolve(context, id, "payment_method").map_err(|error| error.status(StatusCode::NOT_FOUND))
}

/// `GET /v1/payment_methods`
pub(crate) fn list(_: &str, params: &mut Params) -> ApiResult<Job> {
    let customer = params.text("customer")?;
    params.choice("type", &["card"])?;
    let page = Page::read(params)?;
    Ok(Box::new(move |context| {
        if let Some(customer) = &customer {
            customers::check_exists(context, customer)?;
        }
        let wanted = |method: &PaymentMethod| customer.is_none() || method.customer == customer;
        page.list(&context.state.payment_methods, (NOUN, "/v1/payment_methods"), wanted, show)
    }))
}

/// `GET /v1/customers/{id}/payment_methods`
pub(crate) fn list_of_customer(id: &str, params: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    params.choice("type", &["card"])?;
    let page = Page::read(params)?;
    Ok(Box::new(move |context| {
        customers::from_path(context, &id)?;
        let url = format!("/v1/customers/{id}/payment_methods");
        let wanted = |method: &PaymentMethod| method.customer.as_deref() == Some(&id);
        page.list(&context.state.payment_methods, (NOUN, &url), wanted, show)
    }))
}

/// `POST /v1/payment_methods/{id}/attach`
pub(crate) fn attach(id: &str, params: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    let customer = params.required_text("customer")?;
    Ok(Box::new(move |context| {
        let method = from_path(context, &id)?;
        customers::check_exists(context, &customer)?;
        Ok(show(&attach_to(context, method, &customer)?))
    }))
}

/// Asks the issuer, then ties the PaymentMethod to a Customer that exists.
pub(crate) fn attach_to(
    context: &mut Context<'_>,
    mut method: PaymentMethod,
    customer: &str,
) -> ApiResult<PaymentMethod> {
    match method.customer.as_deref() {
        Some(owner) if owner == customer => return Ok(method),
        Some(_) => {
            let message =
                "The payment method you provided has already been attached to a customer.";
            return Err(ApiError::invalid(message));
        }
        None => {}
    }
    if method.left == Left::Nothing {
        let message = "This PaymentMethod was previously used without being attached to a \
             Customer or was detached from a Customer, and may not be used again.";
        return Err(ApiError::invalid(message)
            .code("payment_method_unexpected_state")
            .param("payment_method"));
    }
    if let Verdict::Declined(decline) = method.card.behaviour.verdict(Use::Attach) {
        return Err(decline.error());
    }
    method.cvc_check = method.card.cvc_check();
    method.customer = Some(customer.to_owned());
    context.state.payment_methods.put(method.clone());
    Ok(method)
}

/// `POST /v1/payment_methods/{id}/detach`
pub(crate) fn detach(id: &str, _: &mut Params) -> ApiResult<Job> {
    let id = id.to_owned();
    Ok(Box::new(move |context| {
        let mut method = from_path(context, &id)?;
        if method.customer.take().is_none() {
            return Err(ApiError::invalid(
                "The payment method you provided is not attached to a customer so detachment is \
                     impossible.",
            ));
        }
        method.left = Left::Nothing;
        context.state.payment_methods.put(method.clone());
        Ok(show(&method))
    }))
}

/// A fingerprint tells whether two payments used one card: it is for the secret key only.
fn show_to(key: KeyKind, method: &PaymentMethod) -> Value {
    let mut shown = show(method);
    if key == KeyKind::Publishable
        && let Some(card) = shown["card"].as_object_mut()
    {
        card.remove("fingerprint");
    }
    shown
}

pub(crate) fn show(method: &PaymentMethod) -> Value {
    let card = &method.card;
    json!({
        "id": method.id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": method.billing_details,
        "card": {
            "brand": card.brand,
            "checks": show_checks(method),
            "country": "US",
            "display_brand": card.brand,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
            "fingerprint": card.fingerprint,
            "funding": card.funding,
            "generated_from": null,
            "last4": card.last4,
            "networks": { "available": [card.brand], "preferred": null },
            "regulated_status": "unregulated",
            "three_d_secure_usage": { "supported": true },
            "wallet": null,
        },
        "created": method.created,
        "customer": method.customer,
        "customer_account": null,
        "livemode": false,
        "metadata": method.metadata,
        "type": "card",
    })
}

/// Addresses are not checked here.
pub(crate) fn show_checks(method: &PaymentMethod) -> Value {
    json!({
        "address_line1_check": null,
        "address_postal_code_check": null,
        "cvc_check": method.cvc_check,
    })
}
