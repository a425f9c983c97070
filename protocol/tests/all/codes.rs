use std::collections::HashSet;

use farebox_protocol::{ErrorCode, PaymentResponse};
use serde::Deserialize;
use serde_json::json;

use crate::vectors::{Named, cases};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    name: String,
    code: String,
    status: Option<u16>,
    read_as: Option<String>,
}

impl Named for Case {
    fn name(&self) -> &str {
        &self.name
    }
}

#[test]
fn code_vectors_hold() {
    let mut named = HashSet::new();
    for case in cases::<Case>("codes", 24) {
        let name = &case.name;
        let read: ErrorCode = serde_json::from_value(json!(case.code)).unwrap();
        if let Some(read_as) = case.read_as {
            assert_eq!((read, read.as_str()), (ErrorCode::Unknown, read_as.as_str()), "{name}");
            continue;
        }
        named.insert(read);
        assert_eq!(read.as_str(), case.code, "{name}");
        assert_eq!(Some(read.status().as_u16()), case.status, "{name}");
        assert_eq!(serde_json::to_value(read).unwrap(), json!(case.code), "{name}");
    }
    let all: HashSet<ErrorCode> = ErrorCode::ALL.iter().copied().collect();
    assert_eq!(named, all, "every code has a case");
}

#[test]
fn only_a_402_invites_payment() {
    for code in ErrorCode::ALL {
        let later =
            ["pending", "unavailable", "limit", "frozen", "flight", "conflict", "already", "key"];
        let invites = !later.iter().any(|word| code.as_str().contains(word));
        assert_eq!(code.status() == 402, invites, "{code:?}");
    }
}

#[test]
fn a_refusal_has_v1s_fields() {
    for &code in ErrorCode::ALL {
        let body: serde_json::Value =
            serde_json::from_slice(&PaymentResponse::refused(code).to_json()).unwrap();
        let expected = json!({"success": false, "creditsRemaining": 0, "clientId": "",
            "error": code.message(), "errorCode": code.as_str()});
        assert_eq!(body, expected);
    }
}
