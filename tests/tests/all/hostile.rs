//! Bad input of every kind gets the answer that the protocol names, and takes nothing.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use farebox_protocol::ErrorCode::{
    AuthenticationRequired, CardDeclined, InsufficientCredits, InvalidPayment,
};
use farebox_protocol::{ErrorCode, Payment};
use http::Method;

use crate::support::{Answer, Bank, Books, Provider, by_card, by_credential, card, raw, send};

/// Everything that the protocol says about a 402 for a refused payment.
fn assert_refused(what: &str, answer: &Answer, code: ErrorCode) {
    assert_eq!((answer.status, answer.code()), (402, Some(code)), "{what}: {answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    let exposed = answer.header("access-control-expose-headers");
    assert_eq!(exposed, Some("payment-required, payment-response"), "{what}");
    assert!(answer.headers.get("payment-response").is_none(), "{what}");
    let offer = answer.offer().unwrap_or_else(|| panic!("{what}: no offer"));
    assert_eq!((offer.error, offer.accepts.len()), (Some(code), 1), "{what}");
    if code == InsufficientCredits {
        assert_eq!(answer.body.as_bytes(), offer.to_json(), "{what}");
        return;
    }
    let body = answer.refusal();
    assert!(!body.success && body.client_id.is_empty() && body.error.is_some(), "{what}");
    assert_eq!((body.credits_remaining.get(), body.error_code), (0, Some(code)), "{what}");
    assert_eq!((body.charge_id, body.charged, body.top_up_id), (None, None, None), "{what}");
}

fn encoded(json: &str) -> String {
    STANDARD.encode(json)
}

/// Header values that are no payment, around one that would be.
fn malformed(method: &str) -> Vec<(String, Vec<String>)> {
    let good = format!(r#"{{"stripe402Version":1,"paymentMethodId":"{method}"}}"#);
    let with = |field: &str| good.replacen('}', &format!(",{field}}}"), 1);
    let mut cases: Vec<(String, Vec<String>)> = [
        String::new(),
        "null".into(),
        "[]".into(),
        format!("[1,\"{method}\"]"),
        "\"text\"".into(),
        "1".into(),
        "{}".into(),
        format!("[{good}]"),
        format!("{good} x"),
        format!("{good}{good}"),
        format!("\u{feff}{good}"),
        good.replace("ion\":1", "ion\":2"),
        good.replace("ion\":1", "ion\":1.0"),
        good.replace("ion\":1", "ion\":\"1\""),
        good.replace("ion\":1", "ion\":null"),
        good.replace("\"stripe402Version\":1,", ""),
        good.replace(method, ""),
        good.replace(method, "pm_1/../.."),
        good.replace(method, "pm_1\\u0000"),
        good.replace(method, "pm_1\\r\\nx: y"),
        good.replace(method, "-pm"),
        good.replace(method, &"p".repeat(129)),
        good.replace(&format!("\"{method}\""), "{}"),
        with(r#""paymentMethodId":"pm_2""#),
        with(r#""\u0070aymentMethodId":"pm_2""#),
        with(r#""clientId":["a"]"#),
        with(r#""currency":"USD""#),
        with(r#""currency":"xxx""#),
        with(r#""topUpId":"tu_1""#),
        with(r#""maxAmount":100,"maxAmount":100"#),
    ]
    .map(|json| (json.chars().take(80).collect(), vec![encoded(&json)]))
    .into();
    for number in ["50000.0", "5e4", "-1", "-0", "050000", "\"50000\"", "0", "[50000]", "true"] {
        cases.push((number.into(), vec![encoded(&with(&format!(r#""topUpAmount":{number}"#)))]));
    }
    for number in ["90071992547410", "9223372036854775808", "1e999", "NaN", "-5", "0.1"] {
        cases.push((number.into(), vec![encoded(&with(&format!(r#""maxAmount":{number}"#)))]));
    }
    let good = encoded(&good);
    cases.extend([
        ("the same twice".into(), vec![good.clone(), good.clone()]),
        ("two, one malformed".into(), vec![good.clone(), "x".into()]),
        ("two in one line".into(), vec![format!("{good}, {good}")]),
        ("white space inside".into(), vec![format!("{} {}", &good[..8], &good[8..])]),
        ("too much padding".into(), vec![format!("{good}===")]),
        ("not base64".into(), vec!["pm_card_visa!".into()]),
        ("not UTF-8".into(), vec![STANDARD.encode(b"{\"stripe402Version\":1,\"x\":\"\xff\"}")]),
        (
            "longer than is read".into(),
            vec![encoded(&with(&format!(r#""x":"{}""#, "x".repeat(8_192))))],
        ),
        (
            "nested without end".into(),
            vec![encoded(&with(&format!(r#""maxAmount":{}"#, "[".repeat(5_000))))],
        ),
    ]);
    cases
}

#[tokio::test]
async fn malformed_payments_are_refused_with_an_offer_and_take_nothing() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let method = bank.method(&card(1)).await;
    let cases = malformed(&method);
    let calls = bank.calls("GET", &format!("/v1/payment_methods/{method}"));
    for (what, values) in &cases {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let answer = provider.send(Method::GET, "/api/joke", &values).await;
        assert_refused(what, &answer, InvalidPayment);
    }
    println!("{} malformed payments: 402 invalid_payment, 0 calls to Stripe", cases.len());
    assert_eq!((provider.served(), bank.charge_calls()), (0, 0));
    assert_eq!(bank.calls("GET", &format!("/v1/payment_methods/{method}")), calls);
    assert_eq!(bank.calls("GET", "/v1/payment_methods/pm_1"), 0);
}

#[tokio::test]
async fn two_payments_are_refused_over_http_2_too_and_so_is_a_huge_one() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let good = by_card(&bank.method(&card(1)).await).encode();
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let twice = [good.as_str(), good.as_str()];
    let refused = send(&http2, Method::GET, &provider.at("/api/joke"), &twice).await.unwrap();
    assert_refused("twice", &refused, InvalidPayment);

    let huge = "A".repeat(400_000);
    assert_eq!(raw(provider.address(), "/api/joke", &huge).await, 402);
    assert_eq!((provider.served(), bank.charge_calls()), (0, 0));
}

#[tokio::test]
async fn four_dialects_unknown_fields_and_nulls_are_read() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let method = bank.method(&card(1)).await;
    let json = format!(
        r#" {{ "unknown" : [{{"?>~": 1.5}}], "paymentMethodId":"{method}", "clientId":null,
        "topUpAmount":null, "maxAmount":null, "minCredit":null, "topUpId":null,
        "currency":"usd", "stripe402Version":1 }} "#
    );
    let dialects = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    let values = dialects.map(|dialect| dialect.encode(&json));
    assert!(values.iter().any(|value| value.contains(['+', '/'])), "the alphabets differ");
    for value in &values {
        let answer = provider.send(Method::GET, "/api/joke", &[value]).await;
        assert!(answer.is_served(), "{answer:?}");
    }
    assert_eq!((provider.served(), bank.charges().len()), (4, 1));
}

#[tokio::test]
async fn without_a_payment_the_answer_is_an_offer_and_no_error() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let empty = STANDARD.encode(r#"{"stripe402Version":1,"topUpAmount":50000}"#);
    for payments in [&[][..], &[empty.as_str()]] {
        let answer = provider.send(Method::GET, "/api/joke?q=1", payments).await;
        assert_eq!((answer.status, answer.code()), (402, None), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let offer = answer.offer().unwrap();
        assert_eq!(answer.body.as_bytes(), offer.to_json());
        assert_eq!(offer.resource.url, "/api/joke");
        let terms = &offer.accepts[0];
        assert_eq!((terms.amount.get(), terms.min_top_up.get()), (100, 50_000));
        assert_eq!(terms.max_top_up.map(|units| units.get()), Some(1_000_000));
    }
}

#[tokio::test]
async fn forged_credentials_look_like_an_empty_account() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let stranger =
        Provider::with_secret(bank.stripe(), Books::Memory, b"another secret of 32 bytes .....")
            .await;
    let foreign = stranger.joke(&by_card(&bank.method(&card(2)).await)).await.credential();
    let good = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    let (payer, rest) = good.split_once('.').unwrap();
    let (_, secret) = rest.split_once('.').unwrap();
    let flipped = if secret.starts_with('A') { "B" } else { "A" };
    let forged = [
        foreign.clone(),
        payer.to_owned(),
        format!("{payer}.2.{secret}"),
        format!("{payer}.01.{secret}"),
        format!("{payer}.1.{flipped}{}", &secret[1..]),
        format!("{}.1.{secret}", "0".repeat(64)),
        good.to_uppercase(),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        format!("{good}."),
        "nobody".to_owned(),
    ];
    let mut bodies = Vec::new();
    for credential in &forged {
        let answer = provider.joke(&by_credential(credential)).await;
        assert_refused(credential, &answer, InsufficientCredits);
        assert_eq!(provider.balance(credential).await, 0, "{credential}");
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "no answer tells which kind it is");
    assert_eq!((provider.served(), provider.balance(&good).await), (1, 49_900));
    assert_eq!(stranger.balance(&foreign).await, 49_900);
    println!("{} forged credentials: 402 insufficient_credits, one body", forged.len());
}

const DECLINED: [&str; 11] = [
    "4000000000000002",
    "4000000000009995",
    "4000000000009987",
    "4000000000009979",
    "4000000000006975",
    "4000000000000069",
    "4000000000000127",
    "4000000000000119",
    "4100000000000019",
    "4000000000000341",
    "4000000000000002",
];

#[tokio::test]
async fn declined_cards_of_every_kind_get_the_same_answer() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let mut bodies = Vec::new();
    for number in DECLINED {
        let answer = provider.joke(&by_card(&bank.method(number).await)).await;
        assert_eq!((answer.status, answer.code()), (402, Some(CardDeclined)), "{number}");
        bodies.push((number, answer));
    }
    let three_d_secure = ["4000002760003184", "4000002500003155", "4000000000003220"];
    for number in three_d_secure {
        let answer = provider.joke(&by_card(&bank.method(number).await)).await;
        assert_eq!((answer.status, answer.code()), (402, Some(AuthenticationRequired)), "{number}");
    }
    assert_eq!((provider.served(), bank.charges().len()), (0, 0));
    println!(
        "{} declined cards, {} of 3-D Secure: 0 charges",
        DECLINED.len(),
        three_d_secure.len()
    );
    let first = bodies[0].1.body.clone();
    for (number, answer) in &bodies {
        assert_refused(number, answer, CardDeclined);
        assert_eq!(answer.body, first, "{number}");
    }
}

#[tokio::test]
async fn a_payment_method_that_is_used_up_is_invalid_and_its_card_is_not() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let method = bank.method("4000000000000002").await;
    let declined = provider.joke(&by_card(&method)).await;
    assert_eq!(declined.code(), Some(CardDeclined), "{declined:?}");
    let again = provider.joke(&by_card(&method)).await;
    assert_eq!((again.status, again.code()), (402, Some(InvalidPayment)), "{again:?}");

    // A good card after a bad one, by the holder of nothing.
    let good = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    assert!(good.is_served(), "{good:?}");
}

#[tokio::test]
async fn the_account_endpoint_refuses_what_is_no_credential() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let card_only = by_card("pm_1").encode();
    let twice = by_credential("a").encode();
    for payments in [&[][..], &["x"], &[&card_only], &[&twice, &twice]] {
        let answer = provider.send(Method::GET, "/account/balance", payments).await;
        assert_eq!((answer.status, answer.code()), (400, Some(InvalidPayment)), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let nobody = provider.get("/account/balance", &by_credential("nobody")).await;
    assert_eq!((nobody.status, nobody.body.as_str()), (200, r#"{"accounts":[]}"#));
}

#[tokio::test]
async fn an_unknown_credential_beside_a_good_card_is_forgotten() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let method = bank.method(&card(1)).await;
    let payment = Payment { client_id: "nobody".parse().ok(), ..by_card(&method) };
    let answer = provider.joke(&payment).await;
    assert!(answer.is_served(), "{answer:?}");
    assert_eq!(provider.balance(&answer.credential()).await, 49_900);
}
