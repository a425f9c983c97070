//! What was spent where, and what a request would cost.

use farebox_client::{Agent, MaxPrice, Policy, PreviewError, Reason, Spent, Window, usd};
use farebox_policy::Decision;
use http::StatusCode;
use reqwest::{Method, Request};

use crate::support::{
    NOW, Server, agent, answering, client, held, honest, policy, served, tokenizer, told,
};

async fn rows(agent: &Agent) -> Vec<Spent> {
    agent.spending().await.unwrap().rows().to_vec()
}

fn request(method: Method, server: &Server) -> Request {
    Request::new(method, server.url("/joke").parse().unwrap())
}

#[tokio::test]
async fn a_top_up_and_what_it_paid_for_are_counted() {
    let ((_, server), stripe) = (honest(100).await, tokenizer().await);
    let agent = agent(policy(), &stripe);
    let http = client(&agent);
    for _ in 0..3 {
        http.get(server.url("/joke")).send().await.unwrap();
    }
    let rows = rows(&agent).await;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].topped_up, rows[0].spent, rows[0].requests), (usd!("5"), usd!("0.03"), 3));
    assert_eq!((rows[0].remaining, rows[0].assumed), (Some(usd!("4.97")), false));
    assert_eq!(rows[0].origin.as_deref(), Some(server.url("").as_str()));
    assert_eq!(rows[0].day, Some(Window::Day.first(NOW)));
}

#[tokio::test]
async fn what_a_v1_server_does_not_say_is_what_was_allowed() {
    let server = answering(|_| served(StatusCode::OK, &told(Some("ch_1"), None, 49_900))).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    client(&agent).get(server.url("/joke")).send().await.unwrap();
    let rows = rows(&agent).await;
    assert_eq!((rows[0].spent, rows[0].assumed), (usd!("0.01"), true));
}

#[tokio::test]
async fn a_top_up_is_in_the_file_at_once_and_the_rest_when_the_last_client_goes() {
    let ((_, server), stripe) = (honest(100).await, tokenizer().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let spent = async || {
        let later = Agent::new(Policy::new()).state(&path).unwrap();
        rows(&later).await.first().map(|row| (row.spent, row.requests))
    };
    let agent = agent(policy(), &stripe).state(&path).unwrap();
    let http = client(&agent);
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(spent().await, Some((usd!("0.01"), 1)), "with the top-up");
    http.get(server.url("/joke")).send().await.unwrap();
    assert_eq!(spent().await, Some((usd!("0.01"), 1)), "in memory");
    drop(agent);
    http.get(server.url("/joke")).send().await.unwrap();
    drop(http);
    assert_eq!(spent().await, Some((usd!("0.03"), 3)));
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let ((_, server), stripe) = (honest(100).await, tokenizer().await);
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(policy(), &stripe).state(folder.path().join("agent.json")).unwrap();
    client(&agent).get(server.url("/joke")).send().await.unwrap();
    agent.flush().await.unwrap();
    let file = std::fs::metadata(folder.path().join("agent.json.spending")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_preview_pays_nothing_and_holds_nothing() {
    let ((provider, server), stripe) = (honest(100).await, tokenizer().await);
    let agent = agent(policy(), &stripe);
    let builder = || reqwest::Client::builder().no_proxy();
    let get = || request(Method::GET, &server);
    let preview = agent.preview(builder(), get(), None).await.unwrap();
    assert_eq!((preview.status, preview.credential), (Some(402), false));
    let [proposal] = &preview.proposals[..] else { panic!("{preview:?}") };
    assert_eq!((proposal.price, proposal.explanation.top_up), (usd!("0.01"), Some(usd!("5"))));
    assert!(proposal.is_allowed());
    assert_eq!((provider.charges(), server.seen().len()), (0, 1), "asked once");
    assert!(server.seen()[0].payment.is_none());
    assert!(stripe.seen().is_empty());
    assert_eq!(held(&agent).await, usd!("0"));
    assert!(rows(&agent).await.is_empty());
    assert!(agent.known().await.unwrap().is_empty());

    let max = Some(MaxPrice(usd!("0.005")));
    let preview = agent.preview(builder(), get(), max).await.unwrap();
    let proposal = &preview.proposals[0];
    assert!(matches!(proposal.refused, Some(Reason::MaxPrice { .. })));
    assert!(!proposal.is_allowed());
}

#[tokio::test]
async fn a_preview_counts_on_credit_as_far_as_it_goes() {
    let ((provider, server), stripe) = (honest(100).await, tokenizer().await);
    let agent = agent(policy(), &stripe);
    client(&agent).get(server.url("/joke")).send().await.unwrap();
    let builder = || reqwest::Client::builder().no_proxy();
    let get = || request(Method::GET, &server);
    let preview = agent.preview(builder(), get(), None).await.unwrap();
    assert!(preview.credential);
    assert_eq!(preview.credit, [usd!("4.99")]);
    assert_eq!(preview.proposals[0].explanation.top_up, None);

    // Dearer than what is left, and than the policy allows.
    provider.price.store(50_000, std::sync::atomic::Ordering::SeqCst);
    let preview = agent.preview(builder(), get(), None).await.unwrap();
    let proposal = &preview.proposals[0];
    assert_eq!(proposal.explanation.top_up, Some(usd!("5")));
    assert!(matches!(proposal.explanation.decision, Decision::Refuse(_)));
}

#[tokio::test]
async fn a_request_that_may_change_something_is_not_sent_for_its_price() {
    let ((provider, server), stripe) = (honest(100).await, tokenizer().await);
    let agent = agent(policy(), &stripe);
    let builder = || reqwest::Client::builder().no_proxy();
    let error = agent.preview(builder(), request(Method::POST, &server), None).await.unwrap_err();
    assert!(matches!(error, PreviewError::Unsafe(Method::POST)), "{error}");
    assert!(server.seen().is_empty());

    client(&agent).post(server.url("/joke")).send().await.unwrap();
    let seen = server.seen().len();
    let preview = agent.preview(builder(), request(Method::POST, &server), None).await.unwrap();
    assert_eq!((preview.status, server.seen().len()), (None, seen), "not sent");
    assert_eq!(preview.proposals[0].price, usd!("0.01"));
    assert_eq!(provider.charges(), 1);
}

#[tokio::test]
async fn a_free_route_has_no_price() {
    let server = Server::start(|_| crate::support::answer(StatusCode::OK, "free")).await;
    let agent = Agent::new(Policy::new());
    let builder = reqwest::Client::builder().no_proxy();
    let preview = agent.preview(builder, request(Method::GET, &server), None).await.unwrap();
    assert_eq!((preview.status, preview.proposals.len()), (Some(200), 0));
}
