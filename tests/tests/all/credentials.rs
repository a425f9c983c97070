//! Credentials for agents: each spends for its payer within its limit, can do nothing else, and is
//! revoked alone or with all others.

use farebox_protocol::{ErrorCode, Payment, Units};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Bank, Books, Provider, by_card, by_credential, card};

/// Asks the account endpoint with a credential.
async fn ask(
    provider: &Provider,
    method: Method,
    path: &str,
    credential: &str,
    body: impl Into<reqwest::Body>,
) -> (u16, Value) {
    let request = provider.http.request(method, provider.at(&format!("/account/{path}")));
    let request = request.header("payment", by_credential(credential).encode()).body(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn read(provider: &Provider, path: &str, credential: &str) -> (u16, Value) {
    ask(provider, Method::GET, path, credential, "").await
}

async fn issue(provider: &Provider, own: &str, wanted: Value) -> (u16, Value) {
    ask(provider, Method::POST, "credentials", own, wanted.to_string()).await
}

/// A new credential of `label`, without a limit.
async fn issued(provider: &Provider, own: &str, label: &str) -> String {
    let (status, answer) = issue(provider, own, json!({"label": label})).await;
    assert_eq!(status, 201, "{answer}");
    answer["clientId"].as_str().unwrap().to_owned()
}

/// A provider, and the own credential of a payer with 4.99 dollars.
async fn payer(bank: &Bank, books: Books) -> (Provider, String) {
    let provider = Provider::open(bank, books).await;
    let first = provider.joke(&by_card(&bank.method(&card(1)).await)).await;
    (provider, first.credential())
}

async fn is_dead(provider: &Provider, credential: &str) {
    let refused = provider.joke(&by_credential(credential)).await;
    assert_eq!((refused.status, refused.code()), (402, Some(ErrorCode::InsufficientCredits)));
    let empty = (200, json!({"accounts": []}));
    assert_eq!(read(provider, "balance", credential).await, empty);
}

#[tokio::test]
async fn an_issued_credential_pays_until_its_limit_and_the_payer_goes_on() {
    let bank = Bank::open().await;
    let (provider, own) = payer(&bank, Books::Embedded).await;
    let wanted = json!({"label": "crawler", "limit": {"currency": "usd", "amount": 250}});
    let (status, answer) = issue(&provider, &own, wanted.clone()).await;
    let agent = answer["clientId"].as_str().unwrap().to_owned();
    let told =
        json!({"clientId": agent, "number": 1, "label": "crawler", "limit": wanted["limit"]});
    assert_eq!((status, answer), (201, told));

    for left in [150, 50] {
        let paid = provider.joke(&by_credential(&agent)).await;
        assert!(paid.is_served(), "{paid:?}");
        assert_eq!(paid.credential(), agent, "the own credential is not given away");
        let (_, told) = read(&provider, "balance", &agent).await;
        assert_eq!(told["limit"], json!({"currency": "usd", "amount": 250, "left": left}));
    }
    let refused = provider.joke(&by_credential(&agent)).await;
    assert!(!refused.is_served() && refused.headers.get("payment-response").is_none());
    assert_eq!((provider.served(), provider.balance(&own).await), (3, 49_700));

    let (_, listed) = read(&provider, "credentials", &own).await;
    let listed = &listed["credentials"][0];
    assert_eq!((&listed["number"], &listed["spent"]), (&json!(1), &json!(200)));
    assert_eq!((&listed["label"], &listed["limit"]), (&json!("crawler"), &wanted["limit"]));
    assert!(listed["lastUsed"].as_u64().unwrap() > 20_000 && listed["clientId"].is_null());
    assert!(provider.joke(&by_credential(&own)).await.is_served());
}

#[tokio::test]
async fn a_revoked_credential_is_an_empty_account_and_the_others_are_not() {
    let bank = Bank::open().await;
    for books in [Books::Embedded, Books::Memory] {
        let (provider, own) = payer(&bank, books).await;
        let (first, second) =
            (issued(&provider, &own, "a").await, issued(&provider, &own, "b").await);
        assert_ne!(first, second);
        for (method, path) in [(Method::DELETE, "credentials/1"), (Method::POST, "credentials/1")] {
            assert_eq!(ask(&provider, method, path, &own, "").await, (204, Value::Null));
            is_dead(&provider, &first).await;
        }
        assert!(provider.joke(&by_credential(&second)).await.is_served());
        assert!(provider.joke(&by_credential(&own)).await.is_served());

        let third = issued(&provider, &own, "a").await;
        assert!(third.contains(".1-3."), "a number is never used again: {third}");
        is_dead(&provider, &first).await;
    }
}

#[tokio::test]
async fn raising_the_generation_revokes_every_credential() {
    let bank = Bank::open().await;
    let (provider, own) = payer(&bank, Books::Embedded).await;
    let agent = issued(&provider, &own, "a").await;
    let payer = own.split('.').next().unwrap().parse().unwrap();
    provider.payments.revoke(&payer).await.unwrap();
    for dead in [&own, &agent] {
        is_dead(&provider, dead).await;
    }
    assert_eq!(issue(&provider, &own, json!({"label": "b"})).await.0, 403);

    let own = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    assert_eq!(read(&provider, "credentials", &own).await.1, json!({"credentials": []}));
    let next = issued(&provider, &own, "a").await;
    assert!(next.contains(".2-2."), "{next}");
    assert!(provider.joke(&by_credential(&next)).await.is_served());
    is_dead(&provider, &agent).await;
}

#[tokio::test]
async fn a_further_credential_reads_its_balance_and_nothing_else() {
    let bank = Bank::open().await;
    let (provider, own) = payer(&bank, Books::Memory).await;
    let agent = issued(&provider, &own, "a").await;
    let balance = json!({"accounts": [{"currency": "usd", "creditsRemaining": 49_900}]});
    assert_eq!(read(&provider, "balance", &agent).await, (200, balance));
    let body = json!({"label": "mine"}).to_string();
    for (method, path) in [
        (Method::GET, "credentials"),
        (Method::GET, "statement"),
        (Method::POST, "credentials"),
        (Method::DELETE, "credentials/1"),
        (Method::POST, "credentials/1"),
    ] {
        let (status, answer) = ask(&provider, method, path, &agent, body.clone()).await;
        let told = (status, answer["errorCode"].as_str());
        assert_eq!(told, (403, Some("own_credential_required")), "{path}");
    }
    assert!(provider.joke(&by_credential(&agent)).await.is_served());

    // The payer's number under another spelling, or beside another secret, is nobody's.
    let forged = [
        agent.replace(".1-1.", ".1-2."),
        agent.replace(".1-1.", ".1."),
        own.replace(".1.", ".1-1."),
    ];
    for forged in &forged {
        is_dead(&provider, forged).await;
        assert_eq!(read(&provider, "credentials", forged).await.1, json!({"credentials": []}));
        let nothing = json!({"lines": [], "next": null});
        assert_eq!(read(&provider, "statement", forged).await.1, nothing);
        assert_eq!(issue(&provider, forged, json!({"label": "a"})).await.0, 403);
    }
}

/// What a card paid it may spend. Were it paid under an agent's credential, the agent would get
/// from its own card to all of the payer's credit.
#[tokio::test]
async fn an_agents_own_card_does_not_lead_past_its_limit() {
    let bank = Bank::open().await;
    let (provider, own) = payer(&bank, Books::Memory).await;
    let limit = json!({"currency": "usd", "amount": 100});
    let (_, answer) = issue(&provider, &own, json!({"label": "a", "limit": limit})).await;
    let client_id = answer["clientId"].as_str().and_then(|id| id.parse().ok());
    let method = bank.method(&card(2)).await;
    for min_credit in [None, Units::new(60_000)] {
        let payment = Payment { client_id: client_id.clone(), min_credit, ..by_card(&method) };
        for path in ["/api/joke", "/api/big"] {
            let _ = provider.get(path, &payment).await;
        }
    }
    assert_eq!(bank.charges().len(), 1, "only the payer's own card was charged");
    let stranger = provider.joke(&by_card(&method)).await;
    assert!(stranger.is_served() && stranger.credential()[..64] != own[..64], "{stranger:?}");
    assert_eq!(provider.balance(&own).await, 49_800);
}

#[tokio::test]
async fn sixty_four_stand_at_one_time_and_no_two_are_the_same() {
    let bank = Bank::open().await;
    let (provider, own) = payer(&bank, Books::Memory).await;
    let all = (0..70).map(|_| issue(&provider, &own, json!({"label": "agent"})));
    let answers = join_all(all).await;
    let mut issued: Vec<&str> =
        answers.iter().filter_map(|(_, answer)| answer["clientId"].as_str()).collect();
    issued.sort_unstable();
    issued.dedup();
    assert_eq!(issued.len(), 64);
    for (status, answer) in answers.iter().filter(|(status, _)| *status != 201) {
        let told = (*status, answer["errorCode"].as_str());
        assert_eq!(told, (409, Some("too_many_credentials")));
    }
    ask(&provider, Method::DELETE, "credentials/64", &own, "").await;
    let (status, answer) = issue(&provider, &own, json!({"label": "agent"})).await;
    assert_eq!((status, &answer["number"]), (201, &json!(65)));
}

#[tokio::test]
async fn malformed_requests_are_refused_and_issue_nothing() {
    let bank = Bank::open().await;
    let (provider, own) = payer(&bank, Books::Memory).await;
    let huge = format!(r#"{{"label":"a"{}}}"#, " ".repeat(5_000));
    for (body, status) in [
        ("", 400),
        ("null", 400),
        ("[\"a\"]", 400),
        ("{}", 400),
        (r#"{"label":""}"#, 400),
        (r#"{"label":"a b"}"#, 400),
        (r#"{"label":1}"#, 400),
        (r#"{"label":"a","label":"b"}"#, 400),
        (r#"{"label":"a","number":7}"#, 400),
        (r#"{"label":"a","limit":{"currency":"usd"}}"#, 400),
        (r#"{"label":"a","limit":{"currency":"xxx","amount":1}}"#, 400),
        (r#"{"label":"a","limit":{"currency":"usd","amount":-1}}"#, 400),
        (r#"{"label":"a","limit":{"currency":"usd","amount":1.0}}"#, 400),
        (r#"{"label":"a","limit":{"currency":"usd","amount":90071992547410}}"#, 400),
        (r#"{"label":"a","limit":{"currency":"usd","amount":1,"x":1}}"#, 400),
        (r#"{"label":"a"} x"#, 400),
        (&huge, 413),
    ] {
        let told = ask(&provider, Method::POST, "credentials", &own, body.to_owned()).await;
        assert_eq!((told.0, &told.1["errorCode"]), (status, &json!("invalid_request")), "{body}");
    }
    for path in ["statement?limit=0", "statement?limit=201", "statement?limit=1&limit=2"] {
        assert_eq!(read(&provider, path, &own).await.0, 400, "{path}");
    }
    for path in ["statement?cursor=x", "statement?cursor=1", "statement?x=1"] {
        assert_eq!(read(&provider, path, &own).await.0, 400, "{path}");
    }
    for path in ["", "credentials/", "credentials/0", "credentials/01", "credentials/65536"] {
        let told = ask(&provider, Method::DELETE, path, &own, "").await;
        assert_eq!(told.0, 404, "{path}");
    }
    for (method, path) in [
        (Method::POST, "statement"),
        (Method::PUT, "credentials"),
        (Method::DELETE, "credentials"),
        (Method::GET, "credentials/1"),
        (Method::POST, "balance"),
    ] {
        assert_eq!(ask(&provider, method, path, &own, "").await.0, 405, "{path}");
    }
    let without = provider.http.get(provider.at("/account/credentials")).send().await.unwrap();
    assert_eq!(without.status(), 400);
    assert_eq!(read(&provider, "credentials", &own).await.1, json!({"credentials": []}));
}

#[tokio::test]
async fn the_pages_of_a_statement_add_up_to_the_balance() {
    let bank = Bank::open().await;
    for books in [Books::Embedded, Books::Memory] {
        let (provider, own) = payer(&bank, books).await;
        let under = Payment {
            client_id: by_credential(&own).client_id,
            min_credit: Units::new(60_000),
            ..by_card(&bank.method(&card(2)).await)
        };
        assert!(provider.joke(&under).await.is_served());
        assert!(
            provider
                .send(Method::POST, "/api/echo", &[&by_credential(&own).encode()])
                .await
                .is_served()
        );
        let (mut cursor, mut lines) = (String::new(), Vec::new());
        loop {
            let path = format!("statement?limit=1&cursor={cursor}");
            let (status, page) = read(&provider, &path, &own).await;
            assert_eq!(status, 200, "{page}");
            lines.extend(page["lines"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        let sum = |kind: &str| -> i64 {
            let of_kind = lines.iter().filter(|line| line["kind"] == kind);
            of_kind.map(|line| line["amount"].as_i64().unwrap()).sum()
        };
        let (received, spent) = (sum("received"), sum("spent"));
        println!("{} lines: received {received}, spent {spent}", lines.len());
        assert_eq!((received, spent), (10_000_000, 30_000));
        assert_eq!(received - spent, 100 * provider.balance(&own).await);
        let whole = read(&provider, "statement", &own).await.1;
        assert_eq!(whole["lines"].as_array().unwrap(), &lines);
    }
}
