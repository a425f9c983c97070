use std::fmt::Debug;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use farebox_protocol::header::{self, PAYMENT, PAYMENT_REQUIRED, PAYMENT_RESPONSE};
use farebox_protocol::{MessageError, Payment, PaymentRequired, PaymentResponse};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::vectors::{Named, cases};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    value: Option<String>,
    values: Option<Vec<String>>,
    json: Option<String>,
    message: Option<Value>,
    encoded: Option<String>,
    refused: Option<String>,
}

impl Named for Case {
    fn name(&self) -> &str {
        &self.name
    }
}

/// How one of the three messages is read and written.
struct Message<T> {
    header: HeaderName,
    decode: fn(&[u8]) -> Result<T, MessageError>,
    from_json: fn(&[u8]) -> Result<T, MessageError>,
    encode: fn(&T) -> String,
}

impl<T: Serialize + PartialEq + Debug> Message<T> {
    fn check(&self, file: &str, at_least: usize) {
        let cases: Vec<Case> = cases(file, at_least);
        for accepted in [true, false] {
            let count = cases.iter().filter(|case| case.message.is_some() == accepted).count();
            assert!(count >= at_least / 5, "{file}: {count} cases of one kind");
        }
        for case in &cases {
            self.holds(case);
        }
    }

    fn holds(&self, case: &Case) {
        let name = &case.name;
        let read = match (&case.value, &case.values) {
            (Some(value), None) => (self.decode)(value.as_bytes()),
            (None, Some(values)) => self.decode_all(values),
            _ => panic!("{name}: `value` or `values`"),
        };
        match (&case.message, &case.encoded, &case.refused) {
            (Some(message), Some(encoded), None) => {
                let read = read.unwrap_or_else(|e| panic!("{name}: refused: {e}"));
                assert_eq!(&serde_json::to_value(&read).unwrap(), message, "{name}");
                assert_eq!(&(self.encode)(&read), encoded, "{name}");
                assert_eq!((self.decode)(encoded.as_bytes()), Ok(read), "{name}");
            }
            (None, None, Some(reason)) => {
                let error = read.expect_err(name);
                assert_eq!(word(error), reason, "{name}");
            }
            _ => panic!("{name}: `message` and `encoded`, or `refused`"),
        }
        if let (Some(json), Some(value)) = (&case.json, &case.value) {
            assert_eq!(&inside(value), json.as_bytes(), "{name}: `json` is not what `value` holds");
            let body = (self.from_json)(json.as_bytes());
            assert_eq!(body, (self.decode)(value.as_bytes()), "{name}: as a body");
        }
    }

    fn decode_all(&self, values: &[String]) -> Result<T, MessageError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&self.header, HeaderValue::from_str(value).unwrap());
        }
        let value = header::single(&headers, &self.header)?.expect("a value");
        (self.decode)(value.as_bytes())
    }
}

fn word(error: MessageError) -> &'static str {
    match error {
        MessageError::Duplicate => "duplicate",
        MessageError::TooLong => "too_long",
        MessageError::NotBase64 => "not_base64",
        MessageError::NotTheMessage => "not_the_message",
        _ => panic!("a vector needs a word for {error:?}"),
    }
}

/// What a value holds, read by an engine that minds neither alphabet nor padding.
fn inside(value: &str) -> Vec<u8> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    engine.decode(value.replace('-', "+").replace('_', "/")).unwrap()
}

#[test]
fn payment_vectors_hold() {
    Message {
        header: PAYMENT,
        decode: Payment::decode,
        from_json: Payment::from_json,
        encode: Payment::encode,
    }
    .check("payment", 160);
}

#[test]
fn payment_required_vectors_hold() {
    Message {
        header: PAYMENT_REQUIRED,
        decode: PaymentRequired::decode,
        from_json: PaymentRequired::from_json,
        encode: PaymentRequired::encode,
    }
    .check("payment_required", 70);
}

#[test]
fn payment_response_vectors_hold() {
    Message {
        header: PAYMENT_RESPONSE,
        decode: PaymentResponse::decode,
        from_json: PaymentResponse::from_json,
        encode: PaymentResponse::encode,
    }
    .check("payment_response", 50);
}

#[test]
fn no_header_is_no_payment() {
    assert_eq!(header::single(&HeaderMap::new(), &PAYMENT), Ok(None));
}

#[test]
fn bodies_are_the_json_of_their_headers() {
    let refused = PaymentResponse::refused(farebox_protocol::ErrorCode::CardDeclined);
    assert_eq!(inside(&refused.encode()), refused.to_json());
    let price = farebox_protocol::usd!("0.01");
    let required = PaymentRequired::stripe("/joke", price, farebox_protocol::usd!("5"), "pk_1");
    assert_eq!(inside(&required.encode()), required.to_json());
}

/// Whether such a header is read or refused is left open; that it is answered is not.
#[test]
fn no_nesting_overflows_a_stack() {
    for depth in [100, 1_000, 3_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let unknown = format!(r#"{{"stripe402Version":1,"x":{deep}}}"#);
        let scheme = format!(
            r#"{{"stripe402Version":1,"resource":{{"url":"/"}},"accepts":[{{"scheme":"x","y":{deep}}}]}}"#
        );
        let value = header::encode_json(unknown.as_bytes());
        assert!(value.len() <= header::HEADER_BYTES_MAX);
        let _ = (Payment::decode(value.as_bytes()), PaymentRequired::from_json(scheme.as_bytes()));
    }
}
