//! The operator's routes: who is let in, what is told, and what a freeze and a revocation do.

use std::collections::HashSet;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use farebox_middleware::{AdminService, Payments, Peer};
use farebox_protocol::{ErrorCode, Payment, Units};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::util::ServiceExt as _;

use crate::support::{Bank, Books, Program, Provider, by_card, by_credential, card};

const TOKEN: &str = "a-token-of-thirty-two-characters";

/// The operator of a provider, who reaches the admin routes over HTTP.
struct Operator {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Operator {
    async fn of(payments: &Payments) -> Operator {
        let admin = Router::new().fallback_service(payments.admin_routes(TOKEN).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admin = admin.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, admin).await.unwrap() });
        Operator { address, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.http.get(format!("http://{}/{path}", self.address));
        self.send(request.bearer_auth(TOKEN)).await
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.http.post(format!("http://{}/{path}", self.address));
        self.send(request.bearer_auth(TOKEN).body(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(answer.headers().get("access-control-allow-origin").is_none());
        let status = answer.status().as_u16();
        let json: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(json["error"].is_string(), status >= 400, "{json}");
        (status, json)
    }

    /// Writes a request byte for byte; answers the status.
    async fn raw(&self, head: &str) -> u16 {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap()
    }
}

fn payer_of(credential: &str) -> &str {
    &credential[..64]
}

/// A provider with one payer, its own credential, and the operator.
async fn house(bank: &Bank, books: Books) -> (Provider, String, Operator) {
    let provider = Provider::open(bank, books).await;
    let own = provider.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    let operator = Operator::of(&provider.payments).await;
    (provider, own, operator)
}

#[tokio::test]
async fn only_the_token_opens_the_admin_routes() {
    let bank = Bank::open().await;
    let (provider, own, operator) = house(&bank, Books::Memory).await;
    let host = format!("host: {}", operator.address);
    let right = format!("authorization: Bearer {TOKEN}");
    let paths = [
        "ledger".to_owned(),
        "books".to_owned(),
        "nothing".to_owned(),
        format!("accounts/{}", payer_of(&own)),
    ];
    for path in &paths {
        let get = |head: &str| format!("GET /{path} HTTP/1.1\r\n{host}\r\n{head}");
        let opened = operator.raw(&get(&right)).await;
        assert!(matches!(opened, 200 | 404), "{path}: {opened}");
        for wrong in [
            "x: y".to_owned(),
            "authorization: Bearer".to_owned(),
            "authorization: Bearer ".to_owned(),
            format!("authorization: Basic {TOKEN}"),
            format!("authorization: {TOKEN}"),
            format!("{right}x"),
            format!("authorization: Bearer {}", &TOKEN[1..]),
            format!("authorization: Bearer {}", TOKEN.to_uppercase()),
            format!("authorization: Bearer {}", "x".repeat(TOKEN.len())),
            format!("{right}\r\n{right}"),
            format!("{right}\r\nauthorization: Bearer x"),
            format!("x-authorization: Bearer {TOKEN}"),
            format!("payment: {}", by_credential(&own).encode()),
        ] {
            assert_eq!(operator.raw(&get(&wrong)).await, 401, "{path}: {wrong}");
        }
    }
    for short in ["", "x", &TOKEN[1..], "a token of thirty-two characters", &"é".repeat(40)] {
        let refused = provider.payments.admin_routes(short).unwrap_err();
        assert!(format!("{refused:?}").contains("at least 32 characters"), "{short}");
    }
}

/// Asks the service itself, as from a peer.
async fn from(service: &AdminService, host: Option<&str>, peers: &[&str]) -> u16 {
    let request = Request::get("/ledger").header("authorization", format!("Bearer {TOKEN}"));
    let request = host.into_iter().fold(request, |request, host| request.header("host", host));
    let mut request = request.body(Body::empty()).unwrap();
    for (at, peer) in peers.iter().enumerate() {
        let peer: SocketAddr = peer.parse().unwrap();
        match at {
            0 => request.extensions_mut().insert(ConnectInfo(peer)).map(drop),
            _ => request.extensions_mut().insert(Peer(peer)).map(drop),
        };
    }
    service.clone().oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn other_machines_and_rebound_names_are_refused_unless_the_operator_says_so() {
    let payments = Payments::for_tests();
    let service = payments.admin_routes(TOKEN).unwrap();
    let anywhere = service.clone().from_anywhere();
    let (here, there, name) = ("127.0.0.1:9", "203.0.113.9:9", Some("localhost:4029"));
    for peers in [&[here][..], &["[::1]:9"], &["[::ffff:127.0.0.1]:9"], &[here, here]] {
        assert_eq!(from(&service, name, peers).await, 200, "{peers:?}");
    }
    for peers in [&[there][..], &[], &[here, there], &[there, here], &["0.0.0.0:9"]] {
        assert_eq!(from(&service, name, peers).await, 403, "{peers:?}");
        assert_eq!(from(&anywhere, name, peers).await, 200, "{peers:?}");
    }
    for name in [None, Some("evil.example"), Some("localhost.evil.example"), Some("10.0.0.1:4029")]
    {
        assert_eq!(from(&service, name, &[here]).await, 403, "{name:?}");
        assert_eq!(from(&anywhere, name, &[here]).await, 200, "{name:?}");
    }

    let operator = Operator::of(&payments).await;
    let right = format!("authorization: Bearer {TOKEN}");
    for (head, status) in [
        ("GET /ledger HTTP/1.1\r\nhost: localhost", 200),
        ("GET /ledger HTTP/1.1\r\nhost: evil.example", 403),
        ("GET http://evil.example/ledger HTTP/1.1\r\nhost: localhost", 403),
        ("GET http://localhost/ledger HTTP/1.1\r\nhost: evil.example", 403),
        ("GET /ledger HTTP/1.1\r\nhost: localhost\r\nhost: evil.example", 403),
        ("GET /ledger HTTP/1.0", 403),
        ("OPTIONS /ledger HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example", 405),
    ] {
        assert_eq!(operator.raw(&format!("{head}\r\n{right}")).await, status, "{head}");
    }
}

#[tokio::test]
async fn the_operator_sees_the_ledger_and_a_payer() {
    let bank = Bank::open().await;
    for books in [Books::Memory, Books::Embedded] {
        let (provider, own, operator) = house(&bank, books).await;
        let payer = payer_of(&own);
        let (_, ledger) = operator.get("ledger").await;
        // The card's book is the payer's.
        assert_eq!((&ledger["mode"], &ledger["payers"]), (&json!("sandbox"), &json!(1)));
        assert!(ledger["schema"].as_u64() >= Some(2) && ledger["account"].is_string(), "{ledger}");

        let request = provider.http.post(provider.at("/account/credentials"));
        let request = request.header("payment", by_credential(&own).encode());
        let limit = json!({"currency": "usd", "amount": 300});
        let body = json!({"label": "crawler", "limit": limit}).to_string();
        assert_eq!(request.body(body).send().await.unwrap().status(), 201);

        let (status, mut told) = operator.get(&format!("accounts/{payer}")).await;
        assert!(told["credentials"][0]["issued"].take().as_i64() > Some(0));
        let sums = json!({
            "currency": "usd", "available": 4_990_000, "reserved": 0, "refunding": 0,
            "spent": 10_000, "received": 5_000_000, "refunded": 0, "withdrawn": 0,
            "openTopUp": null, "topUps": 1,
        });
        let further = json!({
            "number": 1, "label": "crawler", "issued": null, "spent": 0, "reserved": 0,
            "limit": {"currency": "usd", "amount": 30_000},
        });
        let whole = json!({
            "payer": payer, "generation": 1, "owner": payer, "frozen": [], "knownCards": 1,
            "credentials": [further], "accounts": [sums],
        });
        assert_eq!((status, told), (200, whole));

        let (_, page) = operator.get(&format!("accounts/{payer}/statement?limit=1")).await;
        let next = page["next"].as_str().unwrap();
        let path = format!("accounts/{payer}/statement?cursor={next}");
        let (_, rest) = operator.get(&path).await;
        let kinds: HashSet<&str> =
            [&page, &rest].iter().filter_map(|page| page["lines"][0]["kind"].as_str()).collect();
        assert_eq!((kinds, &rest["next"]), (HashSet::from(["spent", "received"]), &Value::Null));
    }
}

#[tokio::test]
async fn a_frozen_payer_neither_spends_nor_pays_until_the_last_reason_is_gone() {
    let bank = Bank::open().await;
    let (provider, own, operator) = house(&bank, Books::Embedded).await;
    let method = bank.method(&card(1)).await;
    let freeze = format!("accounts/{}/freeze", payer_of(&own));
    let unfreeze = format!("accounts/{}/unfreeze", payer_of(&own));
    let why = |reason: &str| json!({"reason": reason}).to_string();
    assert_eq!(operator.post(&freeze, why("operator")).await.1, json!({"frozen": ["operator"]}));
    let both = json!({"frozen": ["du_1", "operator"]});
    assert_eq!(operator.post(&freeze, why("du_1")).await.1, both);
    assert_eq!(operator.post(&freeze, why("du_1")).await.1, both);

    let looked_up = bank.calls("GET", &format!("/v1/payment_methods/{method}"));
    let with_card = Payment { client_id: own.parse().ok(), ..by_card(&method) };
    let more = Payment { min_credit: Units::new(60_000), ..with_card.clone() };
    for payment in [by_credential(&own), with_card, more] {
        for path in ["/api/joke", "/api/big"] {
            let refused = provider.get(path, &payment).await;
            let told = (refused.status, refused.code());
            assert_eq!(told, (403, Some(ErrorCode::AccountFrozen)), "{path} {refused:?}");
        }
    }
    let again = bank.calls("GET", &format!("/v1/payment_methods/{method}"));
    assert_eq!((provider.served(), bank.charge_calls()), (1, 1), "no card is touched");
    println!("look-ups of a frozen payer's card: {}", again - looked_up);

    assert_eq!(operator.post(&unfreeze, why("none")).await.1, both);
    let left = json!({"frozen": ["operator"]});
    assert_eq!(operator.post(&unfreeze, why("du_1")).await.1, left);
    assert_eq!(provider.joke(&by_credential(&own)).await.status, 403);
    assert_eq!(operator.post(&unfreeze, why("operator")).await.1, json!({"frozen": []}));
    let paid = provider.joke(&by_credential(&own)).await;
    assert_eq!((paid.status, paid.remaining()), (200, 49_800));
}

#[tokio::test]
async fn the_operator_revokes_one_credential_or_all() {
    let bank = Bank::open().await;
    let (provider, own, operator) = house(&bank, Books::Memory).await;
    let mut agents = Vec::new();
    for _ in 0..2 {
        let request = provider.http.post(provider.at("/account/credentials"));
        let request = request.header("payment", by_credential(&own).encode());
        let answer = request.body(r#"{"label":"a"}"#).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        agents.push(answer["clientId"].as_str().unwrap().to_owned());
    }
    let served =
        async |credential: &str| provider.joke(&by_credential(credential)).await.is_served();
    let revoke = format!("accounts/{}/revoke", payer_of(&own));
    for wrong in ["", "[]", "null", r#"{"number":"1"}"#, r#"{"number":70000}"#, r#"{"all":true}"#] {
        assert_eq!(operator.post(&revoke, wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(operator.post(&revoke, r#"{"number":1}"#).await, (200, json!({"generation": 1})));
    assert!(!served(&agents[0]).await && served(&agents[1]).await && served(&own).await);
    assert_eq!(operator.post(&revoke, "{}").await, (200, json!({"generation": 2})));
    assert!(!served(&agents[0]).await && !served(&agents[1]).await && !served(&own).await);
}

#[tokio::test]
async fn the_pages_of_books_hold_every_payer_once_and_in_order() {
    let bank = Bank::open().await;
    for books in [Books::Memory, Books::Embedded] {
        let provider = Provider::open(&bank, books).await;
        let mut payers = Vec::new();
        for n in 0..7 {
            let paid = provider.joke(&by_card(&bank.method(&card(n)).await)).await;
            payers.push(payer_of(&paid.credential()).to_owned());
        }
        payers.sort_unstable();
        let operator = Operator::of(&provider.payments).await;
        for limit in [1, 2, 3, 6, 7, 8, 1_000] {
            let (mut after, mut seen, mut pages) = (String::new(), Vec::new(), 0);
            loop {
                let (status, page) =
                    operator.get(&format!("books?limit={limit}&after={after}")).await;
                assert_eq!((status, &page["payers"]), (200, &json!(7)));
                assert_eq!(page["first"]["mode"], "sandbox");
                pages += 1;
                assert!(pages <= payers.len(), "the pages have no end");
                for row in page["books"].as_array().unwrap() {
                    let account = &row["book"]["head"]["accounts"]["usd"];
                    assert_eq!(account["available"], 4_990_000, "{row}");
                    assert!(!row["book"]["entries"].as_array().unwrap().is_empty());
                    seen.push(row["payer"].as_str().unwrap().to_owned());
                }
                match page["next"].as_str() {
                    Some(next) => next.clone_into(&mut after),
                    None => break,
                }
            }
            assert_eq!((seen, pages), (payers.clone(), 7_usize.div_ceil(limit)), "limit {limit}");
        }
    }
    let operator = Operator::of(&Payments::for_tests()).await;
    let (_, empty) = operator.get("books").await;
    assert_eq!((&empty["books"], &empty["next"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn tricks_with_paths_bodies_and_unknown_payers_change_nothing() {
    let bank = Bank::open().await;
    let (provider, own, operator) = house(&bank, Books::Memory).await;
    let payer = payer_of(&own);
    let host = format!("host: {}\r\nauthorization: Bearer {TOKEN}", operator.address);
    for path in [
        "/".to_owned(),
        "//ledger".to_owned(),
        "/ledger/".to_owned(),
        "/LEDGER".to_owned(),
        "/%6cedger".to_owned(),
        "/accounts/../ledger".to_owned(),
        "/accounts/%2e%2e/ledger".to_owned(),
        "/accounts/..%2fledger".to_owned(),
        "/accounts/".to_owned(),
        "/accounts//statement".to_owned(),
        format!("/accounts/{payer}/"),
        format!("/accounts/{payer}/statement/x"),
        format!("/accounts/{}", payer.to_uppercase()),
        format!("/accounts/{}", &payer[1..]),
        format!("/accounts/%{:02x}{}", payer.as_bytes()[0], &payer[1..]),
        format!("/x/accounts/{payer}"),
    ] {
        assert_eq!(operator.raw(&format!("GET {path} HTTP/1.1\r\n{host}")).await, 404, "{path}");
    }
    let freeze = format!("accounts/{payer}/freeze");
    for body in [
        "",
        "{",
        "[\"x\"]",
        "{}",
        r#"{"reason":""}"#,
        r#"{"reason":"a b"}"#,
        r#"{"reason":"x","y":1}"#,
        r#"{"reason":"x","reason":"y"}"#,
    ] {
        assert_eq!(operator.post(&freeze, body).await.0, 400, "{body}");
    }
    assert_eq!(operator.post(&freeze, " ".repeat(5_000) + r#"{"reason":"x"}"#).await.0, 413);
    assert_eq!(operator.post(&freeze, "x".repeat(3_000_000)).await.0, 413);
    for (path, status) in [
        (format!("books?after={}", &payer[1..]), 400),
        ("books?limit=0".to_owned(), 400),
        ("books?limit=1001".to_owned(), 400),
        ("books?limit=1&limit=1".to_owned(), 400),
        (format!("accounts/{payer}/statement?limit=201"), 400),
        (format!("accounts/{payer}/statement?cursor=../x"), 400),
        (freeze.clone(), 405),
    ] {
        assert_eq!(operator.get(&path).await.0, status, "{path}");
    }
    for path in ["ledger", "books", &format!("accounts/{payer}")] {
        assert_eq!(operator.post(path, "{}").await.0, 405, "{path}");
    }

    // Nobody's account: asking about it, or freezing it, does not make a book.
    let nobody = "0".repeat(64);
    for path in ["", "/statement"] {
        assert_eq!(operator.get(&format!("accounts/{nobody}{path}")).await.0, 404);
    }
    for (verb, body) in
        [("freeze", r#"{"reason":"x"}"#), ("unfreeze", r#"{"reason":"x"}"#), ("revoke", "{}")]
    {
        assert_eq!(operator.post(&format!("accounts/{nobody}/{verb}"), body).await.0, 404);
    }
    assert_eq!(operator.get("ledger").await.1["payers"], 1);
    assert!(provider.joke(&by_credential(&own)).await.is_served());
}

#[tokio::test]
async fn the_example_answers_its_operator_and_refuses_a_short_token() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    let with = |token: &str| {
        [
            ("FAREBOX_LEDGER", ledger.clone()),
            ("FAREBOX_SETTLE_WITHIN_MS", "100".to_owned()),
            ("FAREBOX_ADMIN_TOKEN", token.to_owned()),
            ("FAREBOX_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ]
    };
    let program = Program::start("paid-api", &with(TOKEN)).await;
    let url = program.said.iter().find_map(|line| line.strip_prefix("admin on ")).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = http.get(format!("{url}/ledger"));
    assert_eq!(ask.try_clone().unwrap().send().await.unwrap().status(), 401);
    assert_eq!(ask.bearer_auth(TOKEN).send().await.unwrap().status(), 200);
    let public = http.get(format!("{}/ledger", program.url)).bearer_auth(TOKEN);
    assert_eq!(public.send().await.unwrap().status(), 404, "it has a listener of its own");
    program.terminate().await;
    assert!(program.end().await.success());

    let told = crate::support::refusal(&with("short")).await;
    assert!(told.contains("at least 32 characters"), "{told}");
}

/// The body of an answer of the service itself.
async fn body(service: AdminService, path: &str) -> Value {
    let request = Request::get(path).header("authorization", format!("Bearer {TOKEN}"));
    let answer =
        service.from_anywhere().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn on_axum_the_routes_can_be_nested() {
    let payments = Payments::for_tests();
    let app =
        Router::new().nest_service("/admin", payments.admin_routes(TOKEN).unwrap().from_anywhere());
    let request = Request::get("/admin/ledger").header("authorization", format!("Bearer {TOKEN}"));
    let answer = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let direct = body(payments.admin_routes(TOKEN).unwrap(), "/ledger").await;
    assert_eq!(direct["payers"], 0);
}
