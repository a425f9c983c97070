//! No spelling of a path and no method reaches a priced handler for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use farebox_middleware::{Price, usd};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;

use crate::support::{Bank, Books, Provider, by_card, by_credential, card, raw};

/// `/api/joke` in other words.
const SPELLINGS: [&str; 18] = [
    "/api/JOKE",
    "/API/joke",
    "/api/joke/",
    "/api//joke",
    "//api/joke",
    "/api/./joke",
    "/api/x/../joke",
    "/api/%2e/joke",
    "/api/%2E%2E/api/joke",
    "/api/%6aoke",
    "/api%2fjoke",
    "/api/joke%20",
    "/api/joke%00",
    "/api/joke;v=1",
    "/api/joke.json",
    "/api\\joke",
    "/api/joke%3Fa",
    "api/joke",
];

#[tokio::test]
async fn other_spellings_of_a_path_reach_no_handler() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let method = bank.method(&card(1)).await;
    let payment = by_card(&method).encode();
    for target in SPELLINGS {
        let status = raw(provider.address(), target, &payment).await;
        assert!((400..500).contains(&status), "{target}: {status}");
    }
    println!("{} spellings of a priced path: 0 served, 0 charged", SPELLINGS.len());
    assert_eq!((provider.served(), bank.charge_calls()), (0, 0));

    // What is the same path costs its price.
    for (target, status) in [("/api/joke?%2e", 200), ("http://api/api/joke", 200)] {
        assert_eq!(raw(provider.address(), target, &payment).await, status, "{target}");
    }
    assert_eq!((provider.served(), bank.charges().len()), (2, 1));
    assert_eq!(raw(provider.address(), "/api/joke?free=1", "").await, 402);
}

#[tokio::test]
async fn a_method_that_the_route_does_not_know_costs_nothing() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let payment = by_card(&bank.method(&card(1)).await).encode();
    let brew = Method::from_bytes(b"BREW").unwrap();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE, brew]
    {
        let answer = provider.send(method.clone(), "/api/joke", &[&payment]).await;
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(provider.send(Method::GET, "/api/echo", &[&payment]).await.status, 405);
    assert_eq!((provider.served(), bank.charge_calls()), (0, 0));
}

/// One closure prices every path: `/health` is free, and what nobody thought of is not.
fn price(parts: &Parts) -> Price {
    match parts.uri.path() {
        "/health" => Price::Free,
        "/broken" => usd!("1000").into(),
        _ => usd!("0.01").into(),
    }
}

/// The layer on a plain hyper service. Answers its address.
async fn plain_hyper(provider: &Provider, served: Arc<AtomicUsize>) -> String {
    let handle = move |request: Request<Incoming>| {
        served.fetch_add(1, Ordering::SeqCst);
        let body = Full::<Bytes>::from(format!("You asked for {}.", request.uri().path()));
        async move { Ok::<_, std::convert::Infallible>(Response::new(body)) }
    };
    let layer = provider.payments.priced_by(price);
    let service = tower::ServiceBuilder::new().layer(layer).service_fn(handle);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let _ = server.serve_connection(TokioIo::new(io), service).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_closure_that_prices_what_it_does_not_know_fails_closed() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let method = bank.method(&card(1)).await;
    let credential = provider.joke(&by_card(&method)).await.credential();
    let served = Arc::new(AtomicUsize::new(0));
    let address = plain_hyper(&provider, served.clone()).await;

    for target in ["/joke", "/HEALTH", "/health/", "//health", "/%68ealth", "/./health"] {
        assert_eq!(raw(&address, target, "").await, 402, "{target}");
    }
    assert_eq!(served.load(Ordering::SeqCst), 0);
    for payment in ["", "malformed"] {
        assert_eq!(raw(&address, "/health", payment).await, 200);
    }
    assert_eq!(served.load(Ordering::SeqCst), 2);
    let payment = by_credential(&credential).encode();
    assert_eq!(raw(&address, "/joke", &payment).await, 200);
    assert_eq!(provider.balance(&credential).await, 49_800);

    // A price that cannot work is no price: nothing is taken, whatever is paid.
    let broken = provider.http.get(format!("http://{address}/broken")).header("payment", &payment);
    let broken = broken.send().await.unwrap();
    assert_eq!(broken.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(broken.headers().contains_key("retry-after"));
    assert!(broken.text().await.unwrap().contains("price_unavailable"));
    assert_eq!((served.load(Ordering::SeqCst), provider.balance(&credential).await), (3, 49_800));
}

#[tokio::test]
async fn a_credential_is_worth_nothing_at_another_provider() {
    let bank = Bank::open().await;
    let one = Provider::open(&bank, Books::Memory).await;
    let other = b"the secret of another provider ..";
    let other = Provider::with_secret(bank.stripe(), Books::Memory, other).await;
    let credential = one.joke(&by_card(&bank.method(&card(1)).await)).await.credential();
    let refused = other.joke(&by_credential(&credential)).await;
    assert_eq!(refused.code(), Some(farebox_protocol::ErrorCode::InsufficientCredits));
    assert_eq!((other.balance(&credential).await, one.balance(&credential).await), (0, 49_900));
}
