//! `farebox sandbox`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderMap;
use serde_json::Value;

use crate::Place;

/// A sandbox in a process of its own, until it is dropped.
struct Running {
    child: Child,
    variables: Value,
}

impl Running {
    fn start(place: &Place, arguments: &[&str]) -> Running {
        let fixed = ["sandbox", "--listen", "127.0.0.1:0", "--json", "--seed", "7"];
        let mut command = place.command(&[&fixed[..], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Running { child, variables: serde_json::from_str(&line).unwrap() }
    }

    fn variable(&self, name: &str) -> &str {
        self.variables[name].as_str().unwrap()
    }

    /// A payment of 5 dollars.
    async fn pay(&self) -> reqwest::Result<reqwest::Response> {
        reqwest::Client::new()
            .post(format!("{}/v1/payment_intents", self.variable("STRIPE_API_BASE")))
            .bearer_auth(self.variable("STRIPE_SECRET_KEY"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(
                "amount=500&currency=usd&confirm=true&payment_method=pm_card_visa\
                 &allowed_payment_method_types[]=card",
            )
            .send()
            .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then the test has failed already.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_limits_are_set_on_the_command_line() {
    let place = Place::new();
    let faults = [
        "--fault",
        "POST /v1/payment_intents reset_after skip=1",
        "--fault",
        "POST /v1/payment_intents bad_gateway ran=false",
    ];
    let sandbox = Running::start(&place, &faults);
    assert_eq!(sandbox.pay().await.unwrap().status(), 502);
    assert!(sandbox.pay().await.is_err());
    assert_eq!(sandbox.pay().await.unwrap().status(), 200);
    let limited = Running::start(&place, &["--rate-limit", "0"]);
    assert_eq!(limited.pay().await.unwrap().status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_where_the_command_line_says() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let letters = Arc::clone(&received);
    let take = async move |headers: HeaderMap, body: String| {
        let signature = headers["stripe-signature"].to_str().unwrap().to_owned();
        letters.lock().unwrap().push((signature, body));
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", axum::routing::post(take));
    tokio::spawn(async { axum::serve(listener, router).await });
    let place = Place::new();
    let secrets = ["--webhook-secret", "whsec_a", "--webhook-secret", "whsec_b"];
    let webhook = ["--webhook", &url, "--duplicate", "--reorder", "--delay", "10", "--drop", "0"];
    let sandbox = Running::start(&place, &[&webhook[..], &secrets].concat());
    assert_eq!(sandbox.variable("STRIPE_WEBHOOK_SECRET"), "whsec_a");
    assert_eq!(sandbox.pay().await.unwrap().status(), 200);
    let started = Instant::now();
    while received.lock().unwrap().len() < 6 {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let letters = received.lock().unwrap().clone();
    assert!(letters.iter().all(|(signature, _)| signature.matches(",v1=").count() == 2));
    for (_, body) in &letters {
        assert_eq!(letters.iter().filter(|(_, other)| other == body).count(), 2);
    }
}

#[test]
fn the_secret_of_webhooks_is_printed_to_be_exported() {
    let place = Place::new();
    let fixed = ["sandbox", "--listen", "127.0.0.1:0", "--seed", "7"];
    let mut child = place.command(&fixed).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let exported: Vec<_> = lines
        .map(|line| line.unwrap())
        .filter(|line| line.starts_with("export "))
        .take(4)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(exported[3].starts_with("export STRIPE_WEBHOOK_SECRET=whsec_"), "{exported:?}");
}

#[test]
fn what_cannot_be_is_refused_and_says_why() {
    let place = Place::new();
    for (arguments, status, words) in [
        (&["--fault", "POST /v1/customers explode"][..], 2, "unknown variant `explode`"),
        (&["--fault", "explode"], 2, "a fault is a method, a path and a kind"),
        (&["--webhook", "http://example.com/"], 1, "a webhook URL is on this machine"),
        (&["--webhook", "http://127.0.0.1:9/", "--drop", "101"], 1, "at most 100"),
        (&["--webhook-secret", "whsec_a"], 2, "--webhook <URL>"),
        (&["--duplicate"], 2, "--webhook <URL>"),
        (&["--drop", "1"], 2, "--webhook <URL>"),
    ] {
        let ended = place.run(&[&["sandbox", "--listen", "127.0.0.1:0"], arguments].concat());
        assert_eq!(ended.status, status, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(words), "{arguments:?}: {}", ended.errors);
    }
}
