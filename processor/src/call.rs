//! Requests as they are sent: encoded once, stored, and repeated byte for byte.

use std::fmt;
use std::str::FromStr as _;

use farebox_protocol::{Micros, PaymentMethodId, TopUpId};
use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeRequest as _};
use stripe_core::payment_intent::{
    CreatePaymentIntent, CreatePaymentIntentAutomaticPaymentMethods,
    CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects as AllowRedirects,
};
use stripe_shared::PaymentIntentSetupFutureUsage;

use crate::error::KeyError;

/// The version of Stripe's API that new requests are made for.
pub(crate) const VERSION: stripe_client_core::ApiVersion = stripe_client_core::VERSION;

/// One POST to Stripe in its encoded form.
///
/// A ledger stores it before it is sent. Whoever sends it again sends these bytes under the same
/// key and for the same API version, whatever version of Farebox it runs: Stripe refuses a known
/// key with other parameters (docs.stripe.com/api/idempotent_requests).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub(crate) path: String,
    pub(crate) body: String,
    pub(crate) version: String,
}

impl Call {
    pub(crate) fn encode(request: RequestBuilder) -> Call {
        Call {
            path: request.path,
            body: canonical(&request.body.unwrap_or_default()),
            version: VERSION.as_str().to_owned(),
        }
    }

    /// The customer that the call is about.
    pub fn customer(&self) -> Option<String> {
        let mut fields = form_urlencoded::parse(self.body.as_bytes());
        fields.find(|(name, _)| name == "customer").map(|(_, customer)| customer.into_owned())
    }
}

impl fmt::Debug for Call {
    /// The path only: the body names a card and a customer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The fields in alphabetical order. The generated requests keep metadata in a hash map, so its
/// fields come in another order each time; one call must always be the same bytes.
fn canonical(body: &str) -> String {
    let mut fields: Vec<&str> = body.split('&').filter(|field| !field.is_empty()).collect();
    fields.sort_unstable();
    fields.join("&")
}

/// What a top-up takes from a card.
#[derive(Clone, Copy, Debug)]
pub struct TopUp<'a> {
    /// Which top-up it is; also says whose it is and in which currency.
    pub id: TopUpId,
    /// How much is charged, rounded up to what a card can be charged in the currency.
    pub amount: Micros,
    /// The payer's customer at Stripe.
    pub customer: &'a str,
    /// The card.
    pub payment_method: &'a PaymentMethodId,
    /// Whether the card is attached to the customer for later: one that is not can be charged
    /// only this once.
    pub save_card: bool,
}

impl TopUp<'_> {
    /// A PaymentIntent that is confirmed as it is created (docs.stripe.com/api/payment_intents).
    pub(crate) fn encode(&self) -> Call {
        let TopUp { id, amount, .. } = *self;
        // A negative amount cannot be charged; Stripe refuses 0 without asking a bank.
        let minor = id.currency.minor_ceil(amount).unwrap_or_default();
        let currency = match stripe_types::Currency::from_str(id.currency.code()) {
            Ok(currency) => currency,
            Err(never) => match never {},
        };
        let methods = CreatePaymentIntentAutomaticPaymentMethods {
            allow_redirects: Some(AllowRedirects::Never),
            enabled: true,
        };
        let mut request = CreatePaymentIntent::new(minor, currency)
            .customer(self.customer)
            .payment_method(self.payment_method.as_str())
            .confirm(true)
            .automatic_payment_methods(methods)
            .error_on_requires_action(true)
            .metadata(metadata([("top_up", id.to_string()), ("payer", id.payer.to_string())]));
        if self.save_card {
            request = request.setup_future_usage(PaymentIntentSetupFutureUsage::OffSession);
        }
        Call::encode(request.build())
    }
}

/// Metadata of everything that Farebox makes at Stripe: its mark and `fields`.
pub(crate) fn metadata<const N: usize>(
    fields: [(&str, String); N],
) -> std::collections::HashMap<String, String> {
    let mark = [("farebox", "1".to_owned())];
    mark.into_iter().chain(fields).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The key under which Stripe performs a call once, however often it is sent
/// (docs.stripe.com/api/idempotent_requests).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A key of 1 to 255 printable ASCII characters.
    ///
    /// # Errors
    ///
    /// [`KeyError`] for anything else.
    pub fn new(key: &str) -> Result<IdempotencyKey, KeyError> {
        let allowed = (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if allowed { Ok(IdempotencyKey(key.to_owned())) } else { Err(KeyError) }
    }

    /// The key as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<TopUpId> for IdempotencyKey {
    /// A top-up's id is the key of its charge. It is well below 255 characters.
    fn from(id: TopUpId) -> IdempotencyKey {
        IdempotencyKey(id.to_string())
    }
}

impl IdempotencyKey {
    /// The key of a top-up's refund. It is well below 255 characters.
    pub(crate) fn of_refund(top_up: TopUpId, number: u64) -> IdempotencyKey {
        IdempotencyKey(format!("re_{top_up}_{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top_up(currency: &str, micros: i64) -> Call {
        let id = format!("tu_{}_{currency}_3", "ab".repeat(32)).parse().unwrap();
        let pm: PaymentMethodId = "pm_1".parse().unwrap();
        let amount = Micros::new(micros).unwrap();
        TopUp { id, amount, customer: "cus_1", payment_method: &pm, save_card: true }.encode()
    }

    fn field(call: &Call, name: &str) -> Option<String> {
        let mut fields = form_urlencoded::parse(call.body.as_bytes());
        fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    #[test]
    fn a_top_up_has_exactly_the_fields_that_are_meant() {
        let payer = "ab".repeat(32);
        let call = top_up("usd", 5_000_000);
        let fields: Vec<_> = form_urlencoded::parse(call.body.as_bytes()).into_owned().collect();
        let top_up = format!("tu_{payer}_usd_3");
        let expected = [
            ("amount", "500"),
            ("automatic_payment_methods[allow_redirects]", "never"),
            ("automatic_payment_methods[enabled]", "true"),
            ("confirm", "true"),
            ("currency", "usd"),
            ("customer", "cus_1"),
            ("error_on_requires_action", "true"),
            ("metadata[farebox]", "1"),
            ("metadata[payer]", &payer),
            ("metadata[top_up]", &top_up),
            ("payment_method", "pm_1"),
            ("setup_future_usage", "off_session"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields, expected);
        assert_eq!(call.path, "/payment_intents");
        assert_eq!(call.version, "2026-09-30.endive");
    }

    #[test]
    fn the_same_top_up_is_always_the_same_bytes() {
        let first = top_up("usd", 5_000_000);
        // A hash map of three fields would betray itself within a few tries.
        assert!((0..64).all(|_| top_up("usd", 5_000_000) == first));
    }

    #[test]
    fn amounts_are_sent_in_minor_units_of_the_currency() {
        for (currency, micros, minor) in [
            ("usd", 5_000_000, "500"),
            ("usd", 5_000_001, "501"),
            ("jpy", 500_000_000, "500"),
            ("kwd", 5_000_000, "5000"),
            ("kwd", 5_001_000, "5010"),
            ("isk", 500_000_000, "50000"),
            ("usd", -1, "0"),
        ] {
            let call = top_up(currency, micros);
            assert_eq!(field(&call, "amount").as_deref(), Some(minor), "{micros} {currency}");
            assert_eq!(field(&call, "currency").as_deref(), Some(currency));
        }
    }

    #[test]
    fn a_call_survives_the_ledger_unchanged() {
        let call = top_up("usd", 5_000_000);
        let stored = serde_json::to_string(&call).unwrap();
        assert_eq!(serde_json::from_str::<Call>(&stored).unwrap(), call);
    }

    #[test]
    fn a_call_shows_neither_card_nor_customer() {
        let shown = format!("{:?}", top_up("usd", 5_000_000));
        assert!(shown.contains("/payment_intents"), "{shown}");
        assert!(!shown.contains("pm_1") && !shown.contains("cus_1"), "{shown}");
    }

    #[test]
    fn keys_are_printable_and_of_bounded_length() {
        assert!(IdempotencyKey::new("cust_1").is_ok());
        assert!(IdempotencyKey::new(&"k".repeat(255)).is_ok());
        for key in ["", "a b", "a\n", "é", &"k".repeat(256)] {
            assert_eq!(IdempotencyKey::new(key), Err(KeyError), "{key:?}");
        }
    }

    #[test]
    fn the_key_of_a_top_up_is_its_id() {
        let id = format!("tu_{}_usd_18446744073709551615", "ab".repeat(32));
        let key = IdempotencyKey::from(id.parse::<TopUpId>().unwrap());
        assert_eq!(key.as_str(), id);
        assert_eq!(IdempotencyKey::new(&id), Ok(key));
    }
}
