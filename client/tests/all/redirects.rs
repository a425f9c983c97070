use axum::body::Body;
use axum::response::Response;
use farebox_client::{PaymentError, Reason, usd};
use http::StatusCode;

use crate::support::{
    Seen, Server, agent, answer, client, failure, held, offer, policy, served, tokenizer, told,
};

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

fn to(status: u16, location: &str) -> Response {
    Response::builder().status(status).header("location", location).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn no_redirect_carries_a_payment_to_another_origin() {
    for status in REDIRECTS {
        for method in [http::Method::GET, http::Method::POST] {
            let evil = Server::start(|_: &Seen| answer(StatusCode::OK, "evil")).await;
            let location = evil.url("/steal");
            // The first payment is served; every later one, from credit or by card, is led away.
            let payments = std::sync::atomic::AtomicUsize::new(0);
            let server = Server::start(move |seen: &Seen| {
                if seen.payment.is_none() {
                    return offer(100, None);
                }
                match payments.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                    0 => served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)),
                    _ => to(status, &location),
                }
            })
            .await;
            let stripe = tokenizer().await;
            let http = client(&agent(policy(), &stripe));
            for _ in 0..3 {
                let _ = http.request(method.clone(), server.url("/joke")).send().await;
            }
            assert!(server.seen().iter().filter(|seen| seen.payment.is_some()).count() > 1);
            assert!(evil.seen().iter().all(|seen| seen.payment.is_none()), "{status} {method}");
        }
    }
}

#[tokio::test]
async fn a_redirected_payment_by_card_is_unknown_and_goes_nowhere() {
    for status in REDIRECTS {
        let evil = Server::start(|_: &Seen| answer(StatusCode::OK, "evil")).await;
        let location = evil.url("/steal");
        let server = crate::support::answering(move |_| to(status, &location)).await;
        let stripe = tokenizer().await;
        let agent = agent(policy(), &stripe);
        let result = client(&agent).get(server.url("/joke")).send().await;
        assert!(matches!(failure(&result), PaymentError::Unknown), "{status}");
        assert_eq!((evil.seen().len(), held(&agent).await), (0, usd!("5")));
    }
}

#[tokio::test]
async fn a_price_behind_a_redirect_to_another_origin_is_not_paid() {
    for status in REDIRECTS {
        let evil = Server::start(|_: &Seen| offer(100, None)).await;
        let location = evil.url("/joke");
        let server = Server::start(move |_: &Seen| to(status, &location)).await;
        let stripe = tokenizer().await;
        let result = client(&agent(policy(), &stripe)).get(server.url("/joke")).send().await;
        let PaymentError::Refused(reason) = failure(&result) else { panic!("{result:?}") };
        assert_eq!((reason, stripe.seen().len()), (&Reason::Redirected, 0));
    }
}

#[tokio::test]
async fn a_route_that_moved_within_its_origin_is_paid_where_it_is() {
    let server = Server::start(move |seen: &Seen| match (seen.path.as_str(), &seen.payment) {
        ("/old", _) => to(308, "/new"),
        (_, None) => offer(100, None),
        (_, Some(payment)) => {
            let charge = payment.payment_method_id.is_some().then_some("ch_1");
            served(StatusCode::OK, &told(charge, Some(100), 49_900))
        }
    })
    .await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    for _ in 0..2 {
        let response = http.get(server.url("/old")).send().await.unwrap();
        assert_eq!((response.status(), response.url().path()), (StatusCode::OK, "/new"));
    }
    assert_eq!((server.cards().len(), stripe.seen().len()), (1, 1));
}

#[tokio::test]
async fn unpaid_requests_follow_the_redirects_that_the_caller_allows() {
    let server = Server::start(|seen: &Seen| match seen.path.as_str() {
        "/old" => to(302, "/new"),
        _ => answer(StatusCode::OK, "free"),
    })
    .await;
    let stripe = tokenizer().await;
    let follows = client(&agent(policy(), &stripe));
    assert_eq!(follows.get(server.url("/old")).send().await.unwrap().status(), StatusCode::OK);
    let none = agent(policy(), &stripe).redirects(reqwest::redirect::Policy::none());
    let response = client(&none).get(server.url("/old")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
}
