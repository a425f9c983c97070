//! `payment`: how a request is paid.
//!
//! ```
//! use farebox_protocol::{MessageError, Payment};
//!
//! let json = br#"{"stripe402Version":1,"paymentMethodId":"pm_1","topUpAmount":50000}"#;
//! let payment = Payment::from_json(json)?;
//! assert_eq!(payment.top_up_amount.map(|units| units.get()), Some(50_000));
//!
//! let fraction = br#"{"stripe402Version":1,"paymentMethodId":"pm_1","topUpAmount":50000.5}"#;
//! assert_eq!(Payment::from_json(fraction), Err(MessageError::NotTheMessage));
//! # Ok::<(), MessageError>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::header::{self, MessageError, Version1};
use crate::id::{ClientId, PaymentMethodId, TopUpId};
use crate::money::{Currency, Units};

/// The message of a paid request. Unknown fields are ignored; `null` means absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// Always 1.
    #[serde(rename = "stripe402Version")]
    pub version: Version1,
    /// A card to take a top-up from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payment_method_id: Option<PaymentMethodId>,
    /// The credential to spend with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_id: Option<ClientId>,
    /// How much to take, if a top-up is needed. Absent: the server's minimum, or more if this
    /// request needs more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top_up_amount: Option<Units>,
    /// The highest price to pay for this request; above it nothing is taken.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_amount: Option<Units>,
    /// The currency to pay in. Absent: the first offer's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub currency: Option<Currency>,
    /// A top-up that was answered with `payment_pending`, to go on with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top_up_id: Option<TopUpId>,
    /// Top up if this request would leave less than this.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_credit: Option<Units>,
}

impl Payment {
    /// Reads a header value.
    ///
    /// # Errors
    ///
    /// [`MessageError`] for anything that is not this message.
    pub fn decode(value: &[u8]) -> Result<Self, MessageError> {
        header::decode(value).and_then(Payment::checked)
    }

    /// Reads the JSON inside a header value.
    ///
    /// # Errors
    ///
    /// [`MessageError::NotTheMessage`] for anything that is not this message.
    pub fn from_json(json: &[u8]) -> Result<Self, MessageError> {
        header::decode_json(json).and_then(Payment::checked)
    }

    /// The header value.
    pub fn encode(&self) -> String {
        header::encode(self)
    }

    fn checked(self) -> Result<Self, MessageError> {
        if self.top_up_amount == Units::new(0) {
            Err(MessageError::NotTheMessage)
        } else {
            Ok(self)
        }
    }
}
