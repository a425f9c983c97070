//! What an owner is told.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use farebox_client::{Event, Notice, usd};
use farebox_protocol::{ErrorCode, Units};
use futures_util::StreamExt as _;
use http::StatusCode;

use crate::support::{
    Seen, Server, agent, answering, client, honest, offer, policy, refused, served, tokenizer, told,
};

fn names(notices: &[Notice]) -> Vec<String> {
    let name = |notice: &Notice| {
        let json = serde_json::to_value(notice).unwrap();
        json["event"].as_str().unwrap().to_owned()
    };
    notices.iter().map(name).collect()
}

#[tokio::test]
async fn a_paid_call_is_told_step_by_step() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let heard: Arc<Mutex<Vec<Notice>>> = Arc::default();
    let listener = Arc::clone(&heard);
    let agent = agent(policy(), &stripe)
        .on_event(move |notice| listener.lock().unwrap().push(notice.clone()));
    let stream = agent.events();
    let http = client(&agent);
    for _ in 0..2 {
        http.get(server.url("/joke")).send().await.unwrap();
    }
    drop((agent, http));
    let heard = heard.lock().unwrap().clone();
    assert_eq!(names(&heard), ["offer_seen", "paying", "topped_up", "spent", "spent"]);
    assert_eq!(stream.collect::<Vec<_>>().await, heard, "the stream ends with the agent");
    assert_eq!(
        (heard[0].origin.as_str(), heard[0].route.as_str()),
        (server.url("").as_str(), "GET /joke")
    );
    assert_eq!(heard[2].event, Event::ToppedUp { amount: usd!("5"), remaining: usd!("4.99") });
    let charged = Some(usd!("0.01"));
    assert_eq!(heard[4].event, Event::Spent { charged, remaining: usd!("4.98") });
}

async fn told_by(server: &Server, calls: usize) -> Vec<Notice> {
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let stream = agent.events();
    let http = client(&agent);
    for _ in 0..calls {
        let _ = http.get(server.url("/joke")).send().await;
    }
    drop((agent, http));
    stream.collect().await
}

#[tokio::test]
async fn refusals_declines_and_unknown_outcomes_are_told() {
    let dear = Server::start(|_: &Seen| offer(10_000, None)).await;
    let notices = told_by(&dear, 1).await;
    assert_eq!(names(&notices), ["offer_seen", "refused"]);
    let Event::Refused { reason } = &notices[1].event else { panic!() };
    assert!(reason.contains("per request"), "{reason}");
    let declining = answering(|_| refused(ErrorCode::CardDeclined)).await;
    assert_eq!(names(&told_by(&declining, 1).await), ["offer_seen", "paying", "declined"]);
    let lost = answering(|_| crate::support::answer(StatusCode::BAD_GATEWAY, "")).await;
    let notices = told_by(&lost, 1).await;
    assert_eq!(notices[2].event, Event::Unknown { amount: usd!("5") });
}

/// A server that takes `takes` units per request and says `says` about it.
async fn greedy(takes: i64, says: Option<i64>) -> Server {
    let balance = AtomicI64::new(0);
    Server::start(move |seen: &Seen| {
        let Some(payment) = &seen.payment else { return offer(100, None) };
        let charge = payment.payment_method_id.is_some();
        if charge {
            balance.fetch_add(payment.top_up_amount.map_or(0, Units::get), Ordering::SeqCst);
        }
        let left = balance.fetch_sub(takes, Ordering::SeqCst) - takes;
        served(StatusCode::OK, &told(charge.then_some("ch_1"), says, left))
    })
    .await
}

fn overcharges(notices: &[Notice]) -> Vec<Event> {
    let events = notices.iter().map(|notice| notice.event.clone());
    events.filter(|event| matches!(event, Event::Overcharged { .. })).collect()
}

#[tokio::test]
async fn more_than_was_said_raises_an_alarm() {
    let (taken, allowed) = (usd!("0.03"), usd!("0.01"));
    let alarm = Event::Overcharged { taken, allowed };
    // It says so itself; or only what is left, as servers of version 1 do.
    for says in [Some(300), None] {
        let notices = told_by(&greedy(300, says).await, 3).await;
        let alarms = overcharges(&notices);
        assert!(alarms.len() >= 3 && alarms.iter().all(|event| *event == alarm), "{notices:?}");
    }
    for says in [Some(100), None] {
        assert_eq!(overcharges(&told_by(&greedy(100, says).await, 3).await), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_calls_at_a_server_of_version_1_raise_no_false_alarm() {
    let server = greedy(100, None).await;
    let stripe = tokenizer().await;
    let agent = agent(policy(), &stripe);
    let stream = agent.events();
    let http = client(&agent);
    http.get(server.url("/joke")).send().await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..64 {
        calls.spawn(http.get(server.url("/joke")).send());
    }
    calls.join_all().await;
    drop((agent, http));
    assert_eq!(overcharges(&stream.collect::<Vec<_>>().await), []);
}
