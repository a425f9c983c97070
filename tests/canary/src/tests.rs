use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::{BTreeSet, Kind, hits};

const PAYER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

type Encode = fn(&str) -> String;

/// Texts of each kind, as a careless line would show them.
fn planted() -> Vec<(Kind, String)> {
    let plain = [
        (Kind::Card, "number: 4242424242424242"),
        (Kind::Card, "number 4242 4242 4242 4242"),
        (Kind::Card, "number 4000-0000-0000-0002, declined"),
        (Kind::Card, "card%5Bnumber%5D=4242+4242+4242+4242"),
        (Kind::Card, "only a part of it: 242424242424"),
        (Kind::Card, "371449635398431:12:34"),
        (Kind::Card, "a card of the crowd: 4242420000000018"),
        (Kind::Cvc, "card[cvc]=987"),
        (Kind::Cvc, "card%5Bcvc%5D=987&expand=1"),
        (Kind::Cvc, r#"{"cvc":"9871"}"#),
        (Kind::Cvc, r#"Card { cvc: Some("987") }"#),
        (Kind::Expiry, "card[exp_month]=11"),
        (Kind::Expiry, r#"{"exp_year": 2047}"#),
        (Kind::SecretKey, "the key is sk_test_farebox"),
        (Kind::SecretKey, "Invalid API Key: rk_live_0123456789"),
        (Kind::SecretKey, "client_secret=pi_3abc_secret_def"),
        (Kind::WebhookSecret, "whsec_0123456789abcdef"),
        (Kind::PublishableKey, r#""publishableKey":"pk_test_farebox""#),
        (Kind::PaymentMethod, "payment_method=pm_1abc"),
        (Kind::PaymentMethod, "PaymentMethodId(pm_card_visa)"),
        (Kind::Credential, r#"{"clientId":"payer"}"#),
        (Kind::Bearer, "authorization: Bearer abc-DEF-123"),
        (Kind::Named, "token: a-token-of-thirty-two-characters"),
    ];
    let credential = (Kind::Credential, format!("spends {PAYER}.1.{PAYER} at once"));
    plain.map(|(kind, text)| (kind, text.to_owned())).into_iter().chain([credential]).collect()
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn every_kind_is_found_in_every_encoding() {
    let encodings: [(&str, Encode); 10] = [
        ("as it is", str::to_owned),
        ("upper and lower hexadecimal", |text| {
            hexadecimal(text) + &hexadecimal(text).to_uppercase()
        }),
        ("percent", percent),
        ("base64", |text| STANDARD.encode(text)),
        ("base64 without padding", |text| STANDARD_NO_PAD.encode(text)),
        ("base64 for addresses", |text| URL_SAFE.encode(text)),
        ("base64 for addresses, without padding", |text| URL_SAFE_NO_PAD.encode(text)),
        ("base64 in percent", |text| percent(&STANDARD.encode(text))),
        ("base64 of base64", |text| STANDARD.encode(STANDARD.encode(text))),
        ("bytes", |text| format!("{:?}", text.as_bytes())),
    ];
    for (kind, text) in planted() {
        for (name, encode) in encodings {
            // Other letters stand directly before and after it, at every offset.
            for before in ["", "x=", "header: ", "\"", "(a) "] {
                let line = format!("TRACE some_crate::at: {before}{}", encode(&text));
                assert!(hits(line.as_bytes()).contains(&kind), "{kind}, {name}: {line}");
            }
        }
    }
}

#[test]
fn base64_is_found_behind_letters_of_its_own_alphabet() {
    for before in ["a", "ab", "abc", "abcd"] {
        let line = format!("{before}{}", STANDARD.encode("card[number]=4242424242424242"));
        assert!(hits(line.as_bytes()).contains(&Kind::Card), "{line}");
    }
}

#[test]
fn what_may_be_logged_is_not_found() {
    for line in [
        "2026-11-21T09:45:23.123456Z TRACE farebox_client::pay: paid by card price=0.01 usd",
        "test secrets::no_secret_is_in_logs_at_any_level_nor_in_errors ... ok",
        "the secret key must begin with sk_test_, sk_live_, rk_test_ or rk_live_",
        "Invalid API Key provided: sk_test_*********lses",
        "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')",
        "a cvc is three or four digits",
        "cvc_check: pass, last4: 4242",
        "top-up of 4000000000000000 micros at 1790000000123456789",
        "payer 0000000000000000000000000000000000000000000000000000000000000000",
        "connecting to 127.0.0.1:42424",
        "at /home/me/client/tests/all/secrets.rs:42:17",
        r#"{"success":false,"creditsRemaining":0,"clientId":""}"#,
        "Bearer authentication is missing",
    ] {
        assert_eq!(hits(line.as_bytes()), BTreeSet::new(), "{line}");
    }
}
