use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use farebox_client::{AskFirst, PaymentError};
use http::StatusCode;
use http_body::Frame;
use reqwest::Body;

use crate::support::{
    Seen, Server, agent, answer, client, failure, honest, offer, policy, tokenizer,
};

const MIB: usize = 1_024 * 1_024;

/// A body that can be sent once.
struct Stream(VecDeque<Bytes>);

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

/// A stream of `length` bytes, no two neighbouring chunks alike, and the same as a text.
fn stream(length: usize) -> (Body, String) {
    let letters = ('a'..='z').cycle().flat_map(|letter| std::iter::repeat_n(letter, 1_000));
    let text: String = letters.take(length).collect();
    let chunks = text.as_bytes().chunks(64 * 1_024).map(Bytes::copy_from_slice).collect();
    (Body::wrap(Stream(chunks)), text)
}

#[tokio::test]
async fn a_streamed_body_is_paid_for_and_arrives_whole() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    for length in [0, 1, 70_000, MIB] {
        let (body, text) = stream(length);
        let response = http.post(server.url("/upload")).body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let last = server.seen().pop().unwrap();
        assert!(last.payment.is_some() && last.body == text, "{length}");
    }
    assert_eq!(provider.charges(), 1);
}

#[tokio::test]
async fn a_long_stream_to_a_free_route_arrives_whole() {
    let server = Server::start(|_: &Seen| answer(StatusCode::OK, "free")).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    let (body, text) = stream(MIB + 1);
    http.post(server.url("/upload")).body(body).send().await.unwrap();
    let seen = server.seen();
    assert!(seen.len() == 1 && seen[0].body == text);
}

#[tokio::test]
async fn a_long_stream_of_unknown_price_is_not_paid_for() {
    let server = Server::start(|_: &Seen| offer(100, None)).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    let (body, _) = stream(MIB + 1);
    let result = http.post(server.url("/upload")).body(body).send().await;
    assert!(matches!(failure(&result), PaymentError::BodyNotReplayable));
    assert_eq!((server.seen().len(), stripe.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_caller_may_let_the_price_be_asked_without_the_body() {
    let (provider, server) = honest(100).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    for _ in 0..2 {
        let (body, text) = stream(3 * MIB);
        let upload = http.post(server.url("/upload")).header("content-type", "text/plain");
        let response = upload.body(body).with_extension(AskFirst).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let last = server.seen().pop().unwrap();
        assert!(last.payment.is_some() && last.body == text);
        assert_eq!(last.headers["content-type"], "text/plain");
    }
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().filter(|seen| seen.payment.is_none()).collect();
    // From credit, the second upload needs no question.
    assert_eq!((asked.len(), seen.len(), provider.charges()), (1, 3, 1));
    assert!(asked[0].body.is_empty() && !asked[0].headers.contains_key("content-type"));
    assert_eq!(asked[0].headers["content-length"], "0");
}

#[tokio::test]
async fn a_body_that_can_be_sent_again_is_sent_also_by_those_who_would_ask_first() {
    let server = Server::start(|_: &Seen| answer(StatusCode::OK, "free")).await;
    let stripe = tokenizer().await;
    let http = client(&agent(policy(), &stripe));
    let (body, text) = stream(70_000);
    let upload = http.post(server.url("/upload")).body(body).with_extension(AskFirst);
    upload.send().await.unwrap();
    let seen = server.seen();
    assert!(seen.len() == 1 && seen[0].body == text);
}
