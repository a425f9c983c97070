//! Events on their way to an endpoint.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use farebox_sandbox::{Delivery, Sandbox, StartErrorKind};

use crate::support::{Api, NOW};

#[derive(Clone)]
struct Letter {
    signature: String,
    body: String,
    event: String,
    kind: String,
}

/// An endpoint that answers with the given statuses, and then with 200.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    letters: Arc<Mutex<Vec<Letter>>>,
}

impl Endpoint {
    pub(crate) async fn start(statuses: &[u16]) -> Self {
        let letters = Arc::new(Mutex::new(Vec::new()));
        let statuses = Arc::new(Mutex::new(statuses.to_vec()));
        let received = Arc::clone(&letters);
        let answer = async move |headers: HeaderMap, body: String| {
            let event: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(headers["content-type"], "application/json; charset=utf-8");
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            let signature = headers["stripe-signature"].to_str().unwrap().to_owned();
            let (event, kind) = (text("id"), text("type"));
            received.lock().unwrap().push(Letter { signature, body, event, kind });
            let mut statuses = statuses.lock().unwrap();
            let status = if statuses.is_empty() { 200 } else { statuses.remove(0) };
            (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")]).into_response()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
        let router = Router::new().route("/webhooks", axum::routing::post(answer));
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { url, letters }
    }

    /// Waits for so many letters, and then a little for one too many.
    async fn receive(&self, count: usize) -> Vec<Letter> {
        let started = Instant::now();
        while self.letters.lock().unwrap().len() < count {
            assert!(started.elapsed() < Duration::from_secs(10), "too few letters");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let letters = self.letters.lock().unwrap().clone();
        assert_eq!(letters.len(), count);
        letters
    }

    /// The events that arrived, once the last two are both this one.
    async fn events_until_twice(&self, event: &str) -> Vec<String> {
        let started = Instant::now();
        loop {
            let letters = self.letters.lock().unwrap().clone();
            let events: Vec<_> = letters.into_iter().map(|letter| letter.event).collect();
            if events.ends_with(&[event.to_owned(), event.to_owned()]) {
                return events;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "{events:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn kinds(&self, count: usize) -> Vec<String> {
        self.receive(count).await.into_iter().map(|letter| letter.kind).collect()
    }
}

const SECRETS: [&str; 2] = ["whsec_old", "whsec_new"];
const PAID: [&str; 3] = ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"];

async fn with(endpoint: &Endpoint, delivery: Delivery) -> Api {
    let secrets = SECRETS.map(str::to_owned);
    Api::with(|builder| builder.webhook(&endpoint.url, secrets).delivery(delivery)).await
}

/// Attempts as (status, attempt), once there are so many.
async fn attempts(api: &Api, count: usize) -> Vec<(u16, u32)> {
    let started = Instant::now();
    while api.sandbox.deliveries().len() < count {
        assert!(started.elapsed() < Duration::from_secs(20), "too few attempts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    api.sandbox.deliveries().iter().map(|record| (record.status, record.attempt)).collect()
}

#[tokio::test]
async fn events_arrive_in_order_and_signed_with_every_secret() {
    let endpoint = Endpoint::start(&[]).await;
    let api = with(&endpoint, Delivery::default()).await;
    api.pay("pm_card_visa", "").await.ok();
    let events = api.sandbox.events();
    let letters = endpoint.receive(3).await;
    for (event, letter) in events.iter().zip(&letters) {
        assert_eq!(
            (&event.id, &event.kind, &event.body),
            (&letter.event, &letter.kind, &letter.body)
        );
        let (signature, body) = api.sandbox.signed(&event.id, NOW).unwrap();
        assert_eq!((&signature, body), (&letter.signature, letter.body.clone().into_bytes()));
        assert!(signature.starts_with(&format!("t={NOW},v1=")));
        assert_eq!(signature.matches(",v1=").count(), 2);
    }
    let listed = api.get(&format!("/v1/events/{}", events[0].id)).await.ok();
    assert_eq!(listed.json(), serde_json::from_str::<serde_json::Value>(&events[0].body).unwrap());
    let mut kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    kinds.sort_unstable();
    let mut expected = PAID;
    expected.sort_unstable();
    assert_eq!(kinds, expected);
    assert_eq!(attempts(&api, 3).await, [(200, 1); 3]);
    assert_eq!(api.sandbox.webhook_secret(), "whsec_old");
    assert_eq!(api.sandbox.signed("evt_none", NOW), None);
}

#[tokio::test]
async fn the_sandbox_has_a_secret_of_its_own_and_it_follows_from_the_seed() {
    let (one, same) = (Api::start().await, Api::start().await);
    let other = Api::with(|builder| builder.seed(8)).await;
    let secret = one.sandbox.webhook_secret();
    assert!(secret.starts_with("whsec_") && secret.len() == 30);
    assert_eq!(secret, same.sandbox.webhook_secret());
    assert_ne!(secret, other.sandbox.webhook_secret());
    one.customer().await;
    one.pay("pm_card_visa", "").await.ok();
    let event = one.sandbox.events().remove(0).id;
    let own = one.sandbox.signed(&event, NOW).unwrap();
    one.sandbox.deliver_to("http://127.0.0.1:9/", [secret], Delivery::default()).unwrap();
    assert_eq!(one.sandbox.signed(&event, NOW).unwrap(), own);
    let given = ["whsec_given".to_owned()];
    one.sandbox.deliver_to("http://127.0.0.1:9/", given, Delivery::default()).unwrap();
    assert_ne!(one.sandbox.signed(&event, NOW).unwrap(), own);
}

#[tokio::test]
async fn duplicates_are_the_same_event_twice() {
    let endpoint = Endpoint::start(&[]).await;
    let api = with(&endpoint, Delivery { duplicate: true, ..Delivery::default() }).await;
    api.pay("pm_card_visa", "").await.ok();
    let letters = endpoint.receive(6).await;
    for (event, pair) in api.sandbox.events().iter().zip(letters.chunks(2)) {
        assert!(pair.iter().all(|letter| letter.body == event.body));
    }
}

#[tokio::test]
async fn a_shuffled_order_follows_from_the_seed() {
    let mut orders = Vec::new();
    for seed in [7, 7, 8, 9, 10] {
        let endpoint = Endpoint::start(&[]).await;
        let delivery = Delivery { reorder: true, ..Delivery::default() };
        let start = |builder: farebox_sandbox::Builder| {
            builder.seed(seed).webhook(&endpoint.url, []).delivery(delivery)
        };
        let api = Api::with(start).await;
        // One request: its events come at once, however busy the machine is.
        api.pay("pm_card_visa", "").await.ok();
        orders.push(endpoint.kinds(3).await);
    }
    assert_eq!(orders[0], orders[1]);
    let sorted = |order: &Vec<String>| {
        let mut order = order.clone();
        order.sort_unstable();
        order
    };
    assert!(orders.iter().all(|order| sorted(order) == sorted(&orders[0])));
    assert!(orders.iter().any(|order| *order != orders[0]), "some seed shuffles");
}

#[tokio::test]
async fn lost_events_follow_from_the_seed() {
    let mut arrived = Vec::new();
    for (seed, drop) in [(7, 50), (7, 50), (7, 0), (7, 100)] {
        let endpoint = Endpoint::start(&[]).await;
        let start = |builder: farebox_sandbox::Builder| {
            let delivery = Delivery { drop, ..Delivery::default() };
            builder.seed(seed).webhook(&endpoint.url, []).delivery(delivery)
        };
        let api = Api::with(start).await;
        for _ in 0..8 {
            api.pay("pm_card_visa", "").await.ok();
        }
        // Asked for, an event is not lost, and arrives when everything else has.
        let event = api.sandbox.events().remove(0).id;
        assert!(api.sandbox.deliver(&event) && api.sandbox.deliver(&event));
        let mut events = endpoint.events_until_twice(&event).await;
        events.truncate(events.len() - 2);
        arrived.push(events);
    }
    assert_eq!(arrived[0], arrived[1]);
    assert!((4..=20).contains(&arrived[0].len()), "{}", arrived[0].len());
    assert_eq!((arrived[2].len(), arrived[3].len()), (24, 0));
    assert!(arrived[0].iter().all(|event| arrived[2].contains(event)));
}

#[tokio::test]
async fn a_delay_is_before_the_first_attempt() {
    let endpoint = Endpoint::start(&[]).await;
    let api = with(&endpoint, Delivery { delay_millis: 300, ..Delivery::default() }).await;
    let started = Instant::now();
    api.pay("pm_card_visa", "").await.ok();
    endpoint.receive(3).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn by_hand_any_event_is_sent_any_number_of_times() {
    let endpoint = Endpoint::start(&[]).await;
    let api = with(&endpoint, Delivery { manual: true, ..Delivery::default() }).await;
    api.pay("pm_card_visa", "").await.ok();
    endpoint.receive(0).await;
    let events = api.sandbox.events();
    for event in [&events[2], &events[0], &events[2]] {
        assert!(api.sandbox.deliver(&event.id));
    }
    let expected = [&events[2].kind, &events[0].kind, &events[2].kind];
    assert_eq!(endpoint.kinds(3).await.iter().collect::<Vec<_>>(), expected);
    assert!(!api.sandbox.deliver("evt_none"));
    let nowhere = Api::start().await;
    nowhere.pay("pm_card_visa", "").await.ok();
    assert!(!nowhere.sandbox.deliver(&nowhere.sandbox.events()[0].id));
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_and_the_rest_does_not_wait() {
    let endpoint = Endpoint::start(&[500, 302]).await;
    let api = with(&endpoint, Delivery::default()).await;
    api.pay("pm_card_visa", "").await.ok();
    assert_eq!(attempts(&api, 5).await, [(500, 1), (302, 1), (200, 1), (200, 2), (200, 2)]);
    let letters = endpoint.receive(5).await;
    let events: Vec<_> = letters.iter().map(|letter| letter.event.as_str()).collect();
    assert_eq!(events[3..], events[..2]);
    assert_eq!(letters[0].body, letters[3].body);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", taken.local_addr().unwrap());
    drop(taken);
    let api = Api::with(|builder| {
        builder.webhook(url, []).delivery(Delivery { manual: true, ..Delivery::default() })
    })
    .await;
    api.pay("pm_card_visa", "").await.ok();
    assert!(api.sandbox.deliver(&api.sandbox.events()[0].id));
    assert_eq!(attempts(&api, 2).await[..2], [(0, 1), (0, 2)]);
}

#[tokio::test]
async fn events_stay_on_this_machine() {
    let delivery = Delivery::default;
    let api = Api::start().await;
    for (url, secret, delivery) in [
        ("http://192.0.2.1/", "whsec_a", delivery()),
        ("https://127.0.0.1/", "whsec_a", delivery()),
        ("http://127.0.0.1:9/", "sk_test_a", delivery()),
        ("http://127.0.0.1:9/", "whsec_", delivery()),
        ("http://127.0.0.1:9/", "whsec_a b", delivery()),
        ("http://127.0.0.1:9/", "whsec_a", Delivery { drop: 101, ..delivery() }),
    ] {
        let secrets = || [secret.to_owned()];
        assert!(api.sandbox.deliver_to(url, secrets(), delivery.clone()).is_err(), "{url}");
        let builder = Sandbox::builder().webhook(url, secrets()).delivery(delivery);
        let error = builder.start("127.0.0.1:0".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), StartErrorKind::InvalidWebhook);
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn another_endpoint_takes_over() {
    let (first, second) = (Endpoint::start(&[]).await, Endpoint::start(&[]).await);
    let api = with(&first, Delivery::default()).await;
    api.pay("pm_card_visa", "").await.ok();
    first.receive(3).await;
    api.sandbox.deliver_to(&second.url, [], Delivery::default()).unwrap();
    api.pay("pm_card_visa", "").await.ok();
    second.receive(3).await;
    first.receive(3).await;
}
