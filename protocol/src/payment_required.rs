//! `payment-required`: what a request costs and how it can be paid.
//!
//! ```
//! use farebox_protocol::{ErrorCode, PaymentRequired, usd};
//!
//! let mut required = PaymentRequired::stripe("/joke", usd!("0.01"), usd!("5"), "pk_test_1");
//! required.error = Some(ErrorCode::InsufficientCredits);
//! assert_eq!(PaymentRequired::decode(required.encode().as_bytes())?, required);
//! # Ok::<(), farebox_protocol::MessageError>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;
use crate::header::{self, MessageError, Version1};
use crate::money::{Currency, Money, Units};

/// The message of a 402, in its header and in its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRequired {
    /// Always 1.
    #[serde(rename = "stripe402Version")]
    pub version: Version1,
    /// What was asked for.
    #[serde(deserialize_with = "header::object")]
    pub resource: Resource,
    /// The ways to pay for it; a client takes one. Ways it does not know are left out.
    #[serde(with = "stripe_offers")]
    pub accepts: Vec<Offer>,
    /// Why a payment was refused; absent when none was brought.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorCode>,
}

/// What a 402 is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The path of the request, without host and query.
    pub url: String,
    /// For people; never a price and never an instruction.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// The media type of the resource.
    #[serde(rename = "mimeType", skip_serializing_if = "Option::is_none", default)]
    pub mime_type: Option<String>,
}

/// One way to pay: scheme `stripe`, in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// The currency of the amounts beside it.
    pub currency: Currency,
    /// What this request costs.
    pub amount: Units,
    /// The smallest top-up.
    pub min_top_up: Units,
    /// The largest top-up. A v1 server does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_top_up: Option<Units>,
    /// The provider's key for turning a card into a PaymentMethod at Stripe.
    pub publishable_key: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
}

impl PaymentRequired {
    /// One offer for the request at `path`. Amounts are rounded up to whole units.
    pub fn stripe(path: &str, price: Money, min_top_up: Money, publishable_key: &str) -> Self {
        PaymentRequired {
            version: Version1,
            resource: Resource { url: path.to_owned(), description: None, mime_type: None },
            accepts: vec![Offer {
                currency: price.currency(),
                amount: price.micros().units_ceil(),
                min_top_up: min_top_up.micros().units_ceil(),
                max_top_up: None,
                publishable_key: publishable_key.to_owned(),
                description: None,
            }],
            error: None,
        }
    }

    /// Reads a header value.
    ///
    /// # Errors
    ///
    /// [`MessageError`] for anything that is not this message.
    pub fn decode(value: &[u8]) -> Result<Self, MessageError> {
        header::decode(value)
    }

    /// Reads the body of a 402, which carries the same JSON.
    ///
    /// # Errors
    ///
    /// [`MessageError::NotTheMessage`] for anything that is not this message.
    pub fn from_json(body: &[u8]) -> Result<Self, MessageError> {
        header::decode_json(body)
    }

    /// The header value.
    pub fn encode(&self) -> String {
        header::encode(self)
    }

    /// The body.
    pub fn to_json(&self) -> Vec<u8> {
        header::to_json(self)
    }
}

/// `accepts`: offers of scheme `stripe` in their order. An entry of another scheme is skipped,
/// whatever it holds; a malformed `stripe` entry makes the message malformed.
mod stripe_offers {
    use serde::ser::SerializeSeq as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Offer;
    use crate::header::Object;

    #[derive(Serialize)]
    #[serde(tag = "scheme", rename_all = "camelCase")]
    enum Written<'a> {
        Stripe(&'a Offer),
    }

    #[derive(Deserialize)]
    #[serde(tag = "scheme", rename_all = "camelCase")]
    enum Read {
        Stripe(Offer),
        #[serde(other)]
        Other,
    }

    pub(super) fn serialize<S: Serializer>(offers: &[Offer], s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(offers.len()))?;
        for offer in offers {
            seq.serialize_element(&Written::Stripe(offer))?;
        }
        seq.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Offer>, D::Error> {
        let entries = Vec::<Object<Read>>::deserialize(d)?;
        let stripe = |entry| match entry {
            Object(Read::Stripe(offer)) => Some(offer),
            Object(Read::Other) => None,
        };
        Ok(entries.into_iter().filter_map(stripe).collect())
    }
}
