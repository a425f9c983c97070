//! `protocol.md`: what it shows is what this crate reads and writes.

use std::collections::BTreeMap;

use farebox_protocol::{
    CredentialKey, Currency, ErrorCode, IdentityKey, MessageError, Payment, PaymentRequired,
    PaymentResponse, Units,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::vectors::text;

struct Block {
    language: String,
    text: String,
}

/// The fenced blocks of the text, in order.
fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { language: language.to_owned(), text: inside.join("\n") });
        }
    }
    blocks
}

/// A message as its header was read: as JSON, and with the code that it refuses with.
struct Shown {
    json: Value,
    error: Option<ErrorCode>,
}

fn shown<T: Serialize>(
    value: &str,
    decode: fn(&[u8]) -> Result<T, MessageError>,
    encode: fn(&T) -> String,
    error: fn(&T) -> Option<ErrorCode>,
) -> Shown {
    let message = decode(value.as_bytes()).unwrap_or_else(|e| panic!("{value}: {e}"));
    assert_eq!(encode(&message), value, "the text shows another encoding than is written");
    Shown { json: serde_json::to_value(&message).unwrap(), error: error(&message) }
}

/// The payment headers among the lines of a request or an answer.
fn headers(head: &str) -> Vec<Shown> {
    let header = |line: &str| match line.split_once(": ")? {
        ("payment", value) => Some(shown(value, Payment::decode, Payment::encode, |_| None)),
        ("payment-required", value) => {
            Some(shown(value, PaymentRequired::decode, PaymentRequired::encode, |required| {
                required.error
            }))
        }
        ("payment-response", value) => {
            Some(shown(value, PaymentResponse::decode, PaymentResponse::encode, |response| {
                response.error_code
            }))
        }
        _ => None,
    };
    head.lines().filter_map(header).collect()
}

/// Checks the body of an answer against its status and its header.
fn check_body(head: &str, body: &str, header: Option<&Shown>) {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Account {
        #[serde(rename = "currency")]
        _currency: Currency,
        #[serde(rename = "creditsRemaining")]
        _credits_remaining: Units,
    }
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status == 200 {
        let accounts: BTreeMap<String, Vec<Account>> = serde_json::from_str(body).unwrap();
        assert!(accounts.keys().eq(["accounts"]));
    } else if let Ok(refusal) = PaymentResponse::from_json(body.as_bytes()) {
        let code = refusal.error_code.unwrap();
        let account_endpoint = status == 400 && code == ErrorCode::InvalidPayment;
        assert!(code.status() == status || account_endpoint, "{head}");
        assert_eq!(refusal.top_up_id.is_some(), code == ErrorCode::PaymentPending);
        let top_up_id = refusal.top_up_id;
        assert_eq!(refusal, PaymentResponse { top_up_id, ..PaymentResponse::refused(code) });
        assert_eq!(header.is_some(), status == 402, "{head}");
        assert!(header.is_none_or(|header| header.error == Some(code)), "{head}");
    } else {
        let json: Value = serde_json::from_str(body).unwrap();
        assert_eq!((status, Some(&json)), (402, header.map(|header| &header.json)), "{head}");
    }
}

#[test]
fn every_example_is_what_it_says() {
    let document = text("protocol.md");
    let (mut values, mut bodies, mut messages) = (0, 0, 0);
    let mut before: Option<Value> = None;
    for block in blocks(&document) {
        match block.language.as_str() {
            "http" => {
                let (head, body) = block.text.split_once("\n\n").unwrap_or((&block.text, ""));
                let mut headers = headers(head);
                assert!(headers.len() <= 1, "{head}");
                values += headers.len();
                let header = headers.pop();
                if body.starts_with('{') {
                    bodies += 1;
                    check_body(head, body, header.as_ref());
                }
                before = header.map(|header| header.json);
            }
            "json" => {
                messages += 1;
                let json: Value = serde_json::from_str(&block.text).unwrap();
                assert_eq!(Some(json), before.take(), "a message follows its header");
            }
            _ => before = None,
        }
    }
    assert!(values >= 10 && bodies >= 6 && messages >= 8, "{values} {bodies} {messages}");
}

#[test]
fn the_shell_writes_the_payment_that_is_shown() {
    let document = text("protocol.md");
    let commands = blocks(&document).into_iter().filter(|block| block.language == "sh");
    let payments: Vec<String> = commands
        .flat_map(|block| block.text.split('\'').map(str::to_owned).collect::<Vec<_>>())
        .filter(|quoted| quoted.starts_with('{'))
        .collect();
    assert_eq!(payments.len(), 1);
    for json in payments {
        let payment = Payment::from_json(json.as_bytes()).unwrap();
        assert!(document.contains(&format!("payment: {}", payment.encode())));
    }
}

#[test]
fn the_credential_of_the_examples_follows_from_its_keys() {
    let payer = IdentityKey::new(&[7; 32]).payer("Xt5EWLLDS7FJjR1c");
    let credential = CredentialKey::new(&[9; 32]).issue(payer, 1);
    assert!(text("protocol.md").contains(credential.as_str()));
}

/// The rows of a table whose first cell is a name in backticks.
fn rows(document: &str) -> impl Iterator<Item = Vec<&str>> {
    document.lines().filter(|line| line.starts_with("| `")).map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
    })
}

fn section<'a>(document: &'a str, title: &str) -> &'a str {
    let (_, rest) = document.split_once(title).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n#").next().unwrap()
}

#[test]
fn the_table_of_codes_is_complete() {
    let document = text("protocol.md");
    let told: Vec<(&str, &str)> =
        rows(section(&document, "\n### 8.1")).map(|row| (row[0], row[1])).collect();
    let known: Vec<(&str, String)> =
        ErrorCode::ALL.iter().map(|code| (code.as_str(), code.status().as_str().into())).collect();
    assert_eq!(told, known.iter().map(|(code, status)| (*code, &**status)).collect::<Vec<_>>());
}

fn names(json: &Value) -> usize {
    match json {
        Value::Object(fields) => fields.values().map(|value| 1 + names(value)).sum(),
        Value::Array(entries) => entries.iter().map(names).sum(),
        _ => 0,
    }
}

/// The message in the vectors that has every field.
fn full(file: &str) -> String {
    let vectors: Value = serde_json::from_str(&text(&format!("vectors/{file}.json"))).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == "every field").unwrap();
    case["json"].as_str().unwrap().to_owned()
}

#[test]
fn the_tables_of_fields_are_complete_and_in_the_order_of_writing() {
    let document = text("protocol.md");
    let messages = [("3.1", "payment_required"), ("3.2", "payment"), ("3.3", "payment_response")];
    for (number, file) in messages {
        let (json, mut told) = (full(file), 0);
        for table in section(&document, &format!("\n### {number}")).split("\n\n") {
            let mut rest = json.as_str();
            for row in rows(table) {
                let name = format!("\"{}\":", row[0]);
                rest = rest.split_once(&name).unwrap_or_else(|| panic!("{file}: {name}")).1;
                told += 1;
            }
        }
        assert_eq!(told, names(&serde_json::from_str(&json).unwrap()), "{file}");
    }
}
