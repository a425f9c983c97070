use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farebox_client::{PaymentError, Receipt, usd};
use farebox_protocol::{ErrorCode, PayerId, PaymentResponse, TopUpId};
use http::StatusCode;

use crate::support::{
    Honest, Reply, Seen, Server, agent, answer, answering, client, failure, held, offer, policy,
    refused, served, tokenizer, told,
};

fn top_up_id() -> TopUpId {
    TopUpId { payer: PayerId::from_bytes([7; 32]), currency: usd!("1").currency(), number: 1 }
}

/// A 503 about the top-up.
fn unavailable(code: ErrorCode) -> axum::response::Response {
    let mut body = PaymentResponse::refused(code);
    body.top_up_id = Some(top_up_id());
    answer(StatusCode::SERVICE_UNAVAILABLE, &String::from_utf8(body.to_json()).unwrap())
}

fn pending() -> axum::response::Response {
    unavailable(ErrorCode::PaymentPending)
}

#[tokio::test]
async fn a_pending_charge_keeps_its_hold_and_is_resumed_with_the_same_card_token() {
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| match payments.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => pending(),
        _ => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy().per_day(usd!("5")), &stripe);
    let http = client(&agent);
    for _ in 0..2 {
        let result = http.get(server.url("/joke")).send().await;
        assert!(matches!(failure(&result), PaymentError::Unknown));
        assert_eq!(held(&agent).await, usd!("5"));
    }
    let response = http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(response.extensions().get::<Receipt>().unwrap().top_up, Some(usd!("5")));
    assert_eq!(server.cards(), ["pm_1", "pm_1", "pm_1"]);
    assert_eq!((stripe.seen().len(), held(&agent).await), (1, usd!("5")));
    let ids: Vec<_> = server.seen().iter().filter_map(|seen| seen.payment.clone()).collect();
    assert_eq!(ids[0].top_up_id, None);
    assert_eq!((ids[1].top_up_id, ids[2].top_up_id), (Some(top_up_id()), Some(top_up_id())));
    assert!(ids.iter().all(|paid| paid.top_up_amount.unwrap().get() == 50_000));
    // The price was known, so going on took one round trip.
    assert_eq!(server.seen().len(), 2 + 1 + 1);
}

#[tokio::test]
async fn another_route_resumes_the_payment_of_its_origin() {
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| match payments.fetch_add(1, Ordering::SeqCst) {
        0 => pending(),
        _ => served(StatusCode::OK, &told(None, Some(100), 49_900)),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    assert!(http.get(server.url("/joke")).send().await.is_err());
    http.get(server.url("/other")).send().await.unwrap();
    assert_eq!(server.cards(), ["pm_1", "pm_1"]);
    assert_eq!(held(&agent).await, usd!("5"), "a charge whose answer was lost is not taken back");
}

#[tokio::test]
async fn a_pending_charge_that_is_declined_returns_its_hold() {
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| match payments.fetch_add(1, Ordering::SeqCst) {
        0 => pending(),
        _ => refused(ErrorCode::CardDeclined),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    assert!(http.get(server.url("/joke")).send().await.is_err());
    let result = http.get(server.url("/joke")).send().await;
    assert!(matches!(failure(&result), PaymentError::Declined(ErrorCode::CardDeclined)));
    assert_eq!(held(&agent).await, usd!("0"));
    assert!(http.get(server.url("/joke")).send().await.is_err());
    assert_eq!(server.cards(), ["pm_1", "pm_1", "pm_2"]);
}

#[tokio::test]
async fn an_outage_while_a_charge_is_pending_says_nothing_about_the_charge() {
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| match payments.fetch_add(1, Ordering::SeqCst) {
        0 => pending(),
        1 => refused(ErrorCode::ProcessorUnavailable),
        2 => refused(ErrorCode::RateLimited),
        _ => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    for _ in 0..3 {
        let result = http.get(server.url("/joke")).send().await;
        assert!(matches!(failure(&result), PaymentError::Unknown));
        assert_eq!(held(&agent).await, usd!("5"));
    }
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(server.cards(), ["pm_1"; 4]);
}

#[tokio::test]
async fn a_refusal_that_names_the_pending_top_up_ends_it_and_returns_its_hold() {
    let payments = AtomicUsize::new(0);
    let server = answering(move |_| match payments.fetch_add(1, Ordering::SeqCst) {
        0 => pending(),
        1 => unavailable(ErrorCode::ProcessorUnavailable),
        _ => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)),
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    assert!(http.get(server.url("/joke")).send().await.is_err());
    let result = http.get(server.url("/joke")).send().await;
    let code = ErrorCode::ProcessorUnavailable;
    assert!(matches!(failure(&result), PaymentError::Declined(c) if *c == code), "{result:?}");
    assert_eq!(held(&agent).await, usd!("0"));
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(server.cards(), ["pm_1", "pm_1", "pm_2"]);
}

/// A repeat of a payment whose answer was lost is a second charge where the first one was spent.
#[tokio::test]
async fn an_honest_server_that_loses_its_answers_takes_no_more_than_the_day_allows() {
    let provider = Honest::new(50_000);
    let script = Arc::clone(&provider);
    let server = Server::start(move |seen: &Seen| {
        let response = script.answer(seen);
        match seen.card() {
            Some(_) => answer(StatusCode::BAD_GATEWAY, "lost"),
            None => response,
        }
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy().per_request(usd!("5")).per_day(usd!("20")), &stripe);
    let http = client(&agent);
    for _ in 0..12 {
        assert!(http.get(server.url("/novel")).send().await.is_err());
        let charged = 5_000_000 * i64::try_from(provider.charges()).unwrap();
        assert!(charged <= held(&agent).await.micros().get(), "{charged} is more than is held");
    }
    assert_eq!((provider.charges(), held(&agent).await), (4, usd!("20")));
}

#[tokio::test]
async fn answers_that_do_not_say_what_was_taken_keep_the_hold() {
    let unclear: [fn() -> Reply; 9] = [
        || answer(StatusCode::INTERNAL_SERVER_ERROR, "").into(),
        || answer(StatusCode::BAD_GATEWAY, "<html>").into(),
        || answer(StatusCode::SERVICE_UNAVAILABLE, "{}").into(),
        || answer(StatusCode::NOT_FOUND, "").into(),
        || answer(StatusCode::FOUND, "").into(),
        || refused(ErrorCode::RequestInFlight).into(),
        || refused(ErrorCode::PaymentFailed).into(),
        // A decline that carries a charge.
        || {
            let mut body = PaymentResponse::refused(ErrorCode::CardDeclined);
            body.charge_id = Some("ch_1".to_owned());
            let body = String::from_utf8(body.to_json()).unwrap();
            answer(StatusCode::PAYMENT_REQUIRED, &body).into()
        },
        // A decline in a status that no decline has.
        || {
            let body = PaymentResponse::refused(ErrorCode::CardDeclined);
            let body = String::from_utf8(body.to_json()).unwrap();
            answer(StatusCode::BAD_REQUEST, &body).into()
        },
    ];
    for (case, reply) in unclear.into_iter().enumerate() {
        let server = answering(move |_| reply()).await;
        let stripe = tokenizer().await;
        let agent = agent(policy(), &stripe);
        let result = client(&agent).get(server.url("/joke")).send().await;
        assert!(failure(&result).is_unknown(), "{case}: {result:?}");
        assert_eq!((held(&agent).await, server.cards().len()), (usd!("5"), 1), "{case}");
    }
}

#[tokio::test]
async fn silence_after_a_payment_is_unknown() {
    let server = answering(|_| Reply::Silence).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let request = client(&agent).get(server.url("/joke")).timeout(Duration::from_millis(300));
    let result = request.send().await;
    assert!(matches!(failure(&result), PaymentError::Unknown));
    assert_eq!(held(&agent).await, usd!("5"));
}

#[tokio::test]
async fn a_call_dropped_while_it_pays_keeps_its_hold_and_is_resumed() {
    let payments = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&payments);
    let server = Server::start(move |seen: &Seen| -> Reply {
        if seen.card().is_none() {
            let mut required = crate::support::required(100);
            required.accepts[0].max_top_up = farebox_protocol::Units::new(1_000_000);
            return crate::support::asking(&required).into();
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Silence,
            _ => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)).into(),
        }
    })
    .await;
    let stripe = tokenizer().await;
    let agent = agent(policy().per_day(usd!("5")), &stripe);
    let http = client(&agent);
    let call = http.get(server.url("/joke")).send();
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    assert_eq!((held(&agent).await, payments.load(Ordering::SeqCst)), (usd!("5"), 1));
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(server.cards(), ["pm_1", "pm_1"]);
    assert_eq!(held(&agent).await, usd!("5"));
}

#[tokio::test]
async fn a_call_dropped_at_the_tokenizer_returns_its_hold() {
    let server = Server::start(|_: &Seen| offer(100, None)).await;
    let stripe = Server::start(|_: &Seen| Reply::Silence).await;
    let agent = agent(policy(), &stripe);
    let call = client(&agent).get(server.url("/joke")).send();
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    assert_eq!(stripe.seen().len(), 1);
    // It goes back in the background.
    let returned = async {
        while held(&agent).await != usd!("0") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), returned).await.unwrap();
}

#[tokio::test]
async fn a_success_without_a_word_about_the_payment_keeps_the_hold() {
    let server = answering(|_| answer(StatusCode::OK, "served")).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let response = client(&agent).get(server.url("/joke")).send().await.unwrap();
    assert!(response.extensions().get::<Receipt>().is_none());
    assert_eq!(response.text().await.unwrap(), "served");
    assert_eq!(held(&agent).await, usd!("5"));
}
