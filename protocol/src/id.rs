//! Who pays and what is paid with: identifiers that are parsed once and then trusted.
//!
//! ```
//! use farebox_protocol::{IdentityKey, TopUpId};
//!
//! let payer = IdentityKey::new(b"a secret of at least 32 random bytes").payer("card_fingerprint");
//! assert_eq!(payer.to_string().len(), 64);
//!
//! let id: TopUpId = format!("tu_{payer}_usd_1").parse()?;
//! assert_eq!(id.payer, payer);
//! assert_eq!(id.to_string(), format!("tu_{payer}_usd_1"));
//! # Ok::<(), farebox_protocol::id::IdError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Sha256;

use crate::money::Currency;

/// The longest identifier a client may send.
pub const ID_BYTES_MAX: usize = 128;

/// A value that is not an identifier of the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid identifier")]
pub struct IdError;

/// 1 to 128 characters of `[A-Za-z0-9_.-]`, the first a letter or a digit: such a value can
/// neither leave the path of a URL (`..`) nor end a log line.
fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.len() <= ID_BYTES_MAX
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The identifier as it was sent.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_id(text) { Ok($name(text.to_owned())) } else { Err(IdError) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                if is_id(&text) { Ok($name(text)) } else { Err(de::Error::custom(IdError)) }
            }
        }
    };
}

string_id! {
    /// A PaymentMethod at Stripe, `pm_...`: card data that the server never sees. One that its
    /// payer is known by can spend, so it has no readable Debug.
    PaymentMethodId
}
string_id! {
    /// What a client sends as `clientId`: opaque to it, a [`Credential`](crate::Credential) to
    /// us. It is a bearer secret and has no readable Debug.
    ClientId
}

impl fmt::Debug for PaymentMethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentMethodId(..)")
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientId(..)")
    }
}

/// The key under which cards become payers. It must never change: every payer id derives from
/// it.
#[derive(Clone)]
pub struct IdentityKey(Hmac<Sha256>);

impl IdentityKey {
    /// A key of any length; at least 32 random bytes are wanted.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    pub fn new(key: &[u8]) -> IdentityKey {
        IdentityKey(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The payer that a card was first seen as: HMAC-SHA256 of Stripe's fingerprint of the card.
    pub fn payer(&self, fingerprint: &str) -> PayerId {
        let mut mac = self.0.clone();
        mac.update(fingerprint.as_bytes());
        PayerId(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(..)")
    }
}

/// Who pays at one provider: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayerId([u8; 32]);

impl PayerId {
    /// The payer with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> PayerId {
        PayerId(bytes)
    }

    /// The bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PayerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(IdError),
        };
        if text.len() != 64 {
            return Err(IdError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = hex(pair[0])? << 4 | hex(pair[1])?;
        }
        Ok(PayerId(bytes))
    }
}

impl fmt::Display for PayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for PayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One card charge that becomes credit: `tu_<payer>_<currency>_<number>`. It is also the
/// idempotency key of the charge at Stripe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopUpId {
    /// Whose account it credits.
    pub payer: PayerId,
    /// The currency of the account.
    pub currency: Currency,
    /// Counts the top-ups of the account, from 1.
    pub number: u64,
}

impl FromStr for TopUpId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.strip_prefix("tu_").ok_or(IdError)?.split('_');
        let (Some(payer), Some(currency), Some(number), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdError);
        };
        let id = TopUpId {
            payer: payer.parse()?,
            currency: currency.parse().map_err(|_| IdError)?,
            number: number.parse().map_err(|_| IdError)?,
        };
        // One spelling per id: no leading zero, no plus sign.
        if id.number > 0 && id.to_string() == text { Ok(id) } else { Err(IdError) }
    }
}

impl fmt::Display for TopUpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tu_{}_{}_{}", self.payer, self.currency, self.number)
    }
}

impl fmt::Debug for TopUpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

serde_as_text!(PayerId);
serde_as_text!(TopUpId);
