//! The names that a book uses: parsed once, bounded, and then trusted.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A name that is not of the expected form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid name: 1 to 64 of A-Z, a-z, 0-9, `_`, `.`, `-` and `:`")]
pub struct NameError;

const NAME_BYTES_MAX: usize = 64;

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_name(text) { Ok($name(text.to_owned())) } else { Err(NameError) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

name! {
    /// Why a payer is frozen: `operator`, or a dispute's id at Stripe.
    FreezeReason
}
name! {
    /// What the holder of an issued credential calls it.
    Label
}

macro_rules! bytes {
    ($(#[$doc:meta])* $name:ident $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// The name with these bytes.
            pub const fn from_bytes(bytes: [u8; $size]) -> $name {
                $name(bytes)
            }

            /// The bytes of the name.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let digits = text.as_bytes();
                let lower = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                if digits.len() != 2 * $size || !digits.iter().all(lower) {
                    return Err(NameError);
                }
                let mut bytes = [0; $size];
                for (at, byte) in bytes.iter_mut().enumerate() {
                    let pair = &text[2 * at..2 * at + 2];
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| NameError)?;
                }
                Ok($name(bytes))
            }
        }

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

bytes! {
    /// Names a reservation. Random, and never derived from what a caller sent.
    ReservationId 16
}
bytes! {
    /// Names a claim: a keyed hash of the caller's `Idempotency-Key`.
    ClaimKey 32
}
bytes! {
    /// What a keyed request is, so that another one under the same key is refused.
    Fingerprint 32
}

impl From<u128> for ReservationId {
    fn from(id: u128) -> Self {
        ReservationId(id.to_be_bytes())
    }
}

/// What a provider calls a priced part of its API, such as `/joke/{id}`: statements tell what was
/// spent there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route(Arc<str>);

/// A longer name is cut, and so are characters that would break a line of a statement.
const ROUTE_BYTES_MAX: usize = 96;

impl Route {
    /// The route of this name. Names come from the provider, so a long one is cut, not refused.
    pub fn new(name: &str) -> Route {
        let mut clean = String::new();
        for c in name.chars().filter(|c| !c.is_control()) {
            if clean.len() + c.len_utf8() > ROUTE_BYTES_MAX {
                break;
            }
            clean.push(c);
        }
        Route(clean.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Route::new(&name))
    }
}
