//! What Stripe answers: only the fields that decide something, and lenient about the rest.
//!
//! A field that is missing, null or of another type is absent; an enum value that this version
//! does not know is `Other`. Only an id and a status are demanded of an object that moves money.

use std::collections::BTreeMap;

use farebox_protocol::{Currency, Micros, TopUpId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::list::Listed;

/// How far a PaymentIntent is (docs.stripe.com/payments/paymentintents/lifecycle).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntentStatus {
    /// The card was charged.
    Succeeded,
    /// The outcome is not known yet.
    Processing,
    /// The money is held and not taken.
    RequiresCapture,
    /// A human must act.
    RequiresAction,
    /// It was created and not confirmed.
    RequiresConfirmation,
    /// The attempt failed; nothing was taken.
    RequiresPaymentMethod,
    /// It can no longer take anything.
    Canceled,
    /// A status that this version does not know.
    Other,
}

impl IntentStatus {
    fn parse(text: &str) -> IntentStatus {
        match text {
            "succeeded" => IntentStatus::Succeeded,
            "processing" => IntentStatus::Processing,
            "requires_capture" => IntentStatus::RequiresCapture,
            "requires_action" => IntentStatus::RequiresAction,
            "requires_confirmation" => IntentStatus::RequiresConfirmation,
            "requires_payment_method" => IntentStatus::RequiresPaymentMethod,
            "canceled" => IntentStatus::Canceled,
            _ => IntentStatus::Other,
        }
    }
}

/// A PaymentIntent as Stripe has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// `pi_...`
    pub id: String,
    /// How far it is.
    pub status: IntentStatus,
    /// What was taken from the card so far.
    pub received: Micros,
    /// The currency of `received`.
    pub currency: Currency,
    /// The top-up that it was made for; `None` if it was not made by Farebox.
    pub top_up: Option<TopUpId>,
    /// Whether real money moved. A stand-in that does not say is believed to be in our mode.
    pub livemode: bool,
}

/// What the bank said about the card's verification code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CvcCheck {
    /// The code was right.
    Pass,
    /// The code was wrong.
    Fail,
    /// The bank did not say.
    Unavailable,
    /// Nobody asked yet, no code was given, or Stripe says something that is not known here.
    Unchecked,
}

impl CvcCheck {
    pub(crate) fn parse(text: Option<&str>) -> CvcCheck {
        match text {
            Some("pass") => CvcCheck::Pass,
            Some("fail") => CvcCheck::Fail,
            Some("unavailable") => CvcCheck::Unavailable,
            _ => CvcCheck::Unchecked,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct IntentObject {
    pub(crate) id: String,
    status: String,
    #[serde(default, deserialize_with = "lenient")]
    amount: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    amount_received: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    currency: Option<Currency>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) livemode: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    metadata: Option<Metadata>,
}

impl Listed for IntentObject {
    fn id(&self) -> &str {
        &self.id
    }
}

impl IntentObject {
    pub(crate) fn status(&self) -> IntentStatus {
        IntentStatus::parse(&self.status)
    }

    /// What was taken, if it can be told: a stand-in may leave out `amount_received`, and what a
    /// succeeded intent received without a capture of its own is its amount.
    pub(crate) fn received(&self) -> Option<(Micros, Currency)> {
        let minor = match (self.amount_received, self.status()) {
            (Some(received), _) => received,
            (None, IntentStatus::Succeeded) => self.amount?,
            (None, _) => 0,
        };
        let currency = self.currency?;
        let received = currency.from_minor(minor).filter(|received| *received >= Micros::ZERO)?;
        Some((received, currency))
    }

    /// The text of metadata `top_up`, whether or not it is one of ours.
    pub(crate) fn names_top_up(&self) -> Option<&str> {
        named_top_up(self.metadata.as_ref())
    }

    pub(crate) fn read(self, live: bool) -> Option<Intent> {
        let (received, currency) = self.received()?;
        Some(Intent {
            status: self.status(),
            received,
            currency,
            top_up: self.names_top_up().and_then(|id| id.parse().ok()),
            livemode: self.livemode.unwrap_or(live),
            id: self.id,
        })
    }
}

pub(crate) type Metadata = BTreeMap<String, Value>;

/// The text of `top_up`, whether or not it is one of ours.
pub(crate) fn named_top_up(metadata: Option<&Metadata>) -> Option<&str> {
    metadata?.get("top_up")?.as_str()
}

#[derive(Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorObject,
}

/// An error (docs.stripe.com/api/errors).
#[derive(Default, Deserialize)]
pub(crate) struct ErrorObject {
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    pub(crate) kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) code: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) decline_code: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) param: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) message: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) payment_intent: Option<IntentObject>,
}

impl ErrorObject {
    pub(crate) fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    pub(crate) fn is_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    pub(crate) fn is_param(&self, param: &str) -> bool {
        self.param.as_deref() == Some(param)
    }

    fn says(&self, words: &str) -> bool {
        self.message.as_deref().is_some_and(|said| said.to_ascii_lowercase().contains(words))
    }

    /// A decline. Some stand-ins give it the type of a malformed request.
    pub(crate) fn is_card(&self) -> bool {
        self.is_kind("card_error") || self.is_code("card_declined") || self.wants_authentication()
    }

    /// The bank wants the card's holder.
    pub(crate) fn wants_authentication(&self) -> bool {
        self.is_code("authentication_required")
            || self.decline_code.as_deref() == Some("authentication_required")
    }

    /// The customer is not known, or was deleted.
    pub(crate) fn is_about_customer(&self) -> bool {
        let named = match &self.param {
            Some(param) => param == "customer",
            None => self.says("no such customer"),
        };
        named && self.is_code("resource_missing")
    }

    /// The card is unknown, used up, detached or another customer's. Stripe has no code for most
    /// of these, only sentences.
    pub(crate) fn is_about_card(&self) -> bool {
        const SENTENCES: &[&str] = &[
            "no such payment_method",
            "no such paymentmethod",
            "may not be used again",
            "does not belong",
            "belongs to a customer",
            "belongs to the customer",
            "attached to a customer",
            "attached to another customer",
            "attached to a different customer",
            "does not have a payment method",
        ];
        self.is_param("payment_method") || SENTENCES.iter().any(|words| self.says(words))
    }
}

#[derive(Deserialize)]
pub(crate) struct PaymentMethodObject {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) card: Option<Card>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) customer: Option<Reference>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) livemode: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct Card {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) fingerprint: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) checks: Option<Checks>,
}

#[derive(Deserialize)]
pub(crate) struct Checks {
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) cvc_check: Option<String>,
}

/// An object by its id, or the object itself.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Reference {
    Id(String),
    Object { id: String },
}

impl Reference {
    pub(crate) fn into_id(self) -> String {
        match self {
            Reference::Id(id) | Reference::Object { id } => id,
        }
    }
}

/// Any object of which only the id matters.
#[derive(Deserialize)]
pub(crate) struct Identified {
    pub(crate) id: String,
}

#[derive(Deserialize)]
pub(crate) struct SetupIntentObject {
    pub(crate) status: String,
}

#[derive(Deserialize)]
pub(crate) struct AccountObject {
    pub(crate) id: String,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) charges_enabled: Option<bool>,
}

/// A field that is absent unless it has the expected type: an unexpected detail must never hide
/// what the rest of an answer says.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    d: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(d)?;
    Ok(T::deserialize(value).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn intent(value: Value) -> Option<Intent> {
        from_value::<IntentObject>(value).unwrap().read(false)
    }

    #[test]
    fn a_succeeded_intent_without_amount_received_received_its_amount() {
        let told = json!({"id": "pi_1", "status": "succeeded", "amount": 500,
                          "amount_received": 300, "currency": "usd"});
        assert_eq!(intent(told).unwrap().received.get(), 3_000_000);
        let untold = json!({"id": "pi_1", "status": "succeeded", "amount": 500, "currency": "usd"});
        assert_eq!(intent(untold).unwrap().received.get(), 5_000_000);
    }

    #[test]
    fn an_unfinished_intent_without_amount_received_received_nothing() {
        let value = json!({"id": "pi_1", "status": "processing", "amount": 500, "currency": "usd"});
        assert_eq!(intent(value).unwrap().received, Micros::ZERO);
    }

    #[test]
    fn amounts_that_cannot_be_money_are_not_read() {
        let base = json!({"id": "pi_1", "status": "succeeded", "currency": "usd"});
        for (amount, currency) in
            [(json!(-1), "usd"), (json!(i64::MAX), "usd"), (json!(1.5), "usd"), (json!(500), "xxx")]
        {
            let mut value = base.clone();
            value["amount"] = amount;
            value["currency"] = json!(currency);
            assert_eq!(intent(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn unknown_statuses_and_odd_details_do_not_hide_the_rest() {
        let value = json!({"id": "pi_1", "status": "dreaming", "amount": "many", "currency": "usd",
                           "livemode": null, "metadata": [], "new_field": {"x": [1]}});
        let intent = intent(value).unwrap();
        assert_eq!(
            (intent.status, intent.top_up, intent.livemode),
            (IntentStatus::Other, None, false)
        );
    }

    #[test]
    fn an_error_is_read_though_its_intent_is_incomplete() {
        let value = json!({"error": {"type": "card_error", "code": "card_declined",
                                     "payment_intent": {"object": "payment_intent"}}});
        let body: ErrorBody = from_value(value).unwrap();
        assert!(body.error.is_card() && body.error.payment_intent.is_none());
    }

    #[test]
    fn a_customer_is_read_as_id_and_as_object() {
        for customer in [json!("cus_1"), json!({"id": "cus_1", "object": "customer"})] {
            let value = json!({"customer": customer});
            let object: PaymentMethodObject = from_value(value).unwrap();
            assert_eq!(object.customer.unwrap().into_id(), "cus_1");
        }
    }
}
