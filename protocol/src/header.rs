//! The three headers: their names, how a value is encoded, and what is refused.
//!
//! A value is base64 of a JSON object, at most 8,192 bytes. We write standard base64 with
//! padding; we read both alphabets, with or without padding, because peers send all four.
//!
//! ```
//! use farebox_protocol::{MessageError, Payment};
//!
//! assert!(Payment::decode(b"eyJzdHJpcGU0MDJWZXJzaW9uIjoxfQ==").is_ok());
//! assert!(Payment::decode(b"eyJzdHJpcGU0MDJWZXJzaW9uIjoxfQ").is_ok());
//! assert_eq!(Payment::decode(b"not base64"), Err(MessageError::NotBase64));
//! ```

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// On a 402: what the request costs and how it can be paid.
pub const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
/// On a request: how it is paid.
pub const PAYMENT: HeaderName = HeaderName::from_static("payment");
/// On an answer to a paid request: what was charged and what remains.
pub const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");

/// The longest encoded header value that is read.
pub const HEADER_BYTES_MAX: usize = 8_192;

/// Why a header was refused. The words are for logs; a client is told only that its payment is
/// malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The header was sent more than once.
    #[error("the header was sent more than once")]
    Duplicate,
    /// The value is longer than [`HEADER_BYTES_MAX`].
    #[error("the header is longer than 8,192 bytes")]
    TooLong,
    /// The value is in none of the four base64 dialects.
    #[error("the header is not base64")]
    NotBase64,
    /// The bytes are not the JSON object that the header carries.
    #[error("the header does not hold the expected JSON object")]
    NotTheMessage,
}

/// The one value of a header, or `None` without it.
///
/// # Errors
///
/// [`MessageError::Duplicate`] when it was sent more than once: two proxies must never read two
/// different payments from one request.
pub fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, MessageError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(MessageError::Duplicate) } else { Ok(first) }
}

/// Base64 of a JSON object, as a header carries it.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, MessageError> {
    if value.len() > HEADER_BYTES_MAX {
        return Err(MessageError::TooLong);
    }
    let url_safe = value.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = match (url_safe, value.ends_with(b"=")) {
        (false, true) => &STANDARD,
        (false, false) => &STANDARD_NO_PAD,
        (true, true) => &URL_SAFE,
        (true, false) => &URL_SAFE_NO_PAD,
    };
    let json = engine.decode(value).map_err(|_| MessageError::NotBase64)?;
    decode_json(&json)
}

/// A JSON object, as a body carries it.
pub(crate) fn decode_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, MessageError> {
    // serde_json minds the encoding of the strings that it keeps, not of those that it skips.
    let text = std::str::from_utf8(json).map_err(|_| MessageError::NotTheMessage)?;
    let Object(message) = serde_json::from_str(text).map_err(|_| MessageError::NotTheMessage)?;
    Ok(message)
}

/// A struct read from a JSON object: serde would also read it from an array of its fields.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

/// An [`Object`] as a field.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// A message as a header value.
pub(crate) fn encode<T: Serialize>(message: &T) -> String {
    encode_json(&to_json(message))
}

/// The JSON of a message.
#[expect(clippy::expect_used, reason = "strings and integers always serialize")]
pub(crate) fn to_json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages hold only strings and integers")
}

/// JSON bytes as a header value: standard base64 with padding.
pub fn encode_json(json: &[u8]) -> String {
    STANDARD.encode(json)
}

/// The number 1: the only version of the protocol, refused when it is anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version1;

impl Serialize for Version1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Version1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            1 => Ok(Version1),
            _ => Err(de::Error::custom("unknown version")),
        }
    }
}
