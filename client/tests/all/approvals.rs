use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use farebox_client::{Answer, ApprovalId, Approver as _, ApproverError, Question, Webhook, usd};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::time::Instant;

const APPROVED: &str = "approved";

fn question() -> Question {
    let id: ApprovalId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let url = "https://api.example.com/joke?lang=en".parse().unwrap();
    let question = Question::new(id, 1_700_000_000, &Method::GET, &url, usd!("0.02"));
    question.top_up(usd!("5")).reason("0.02 usd is above 0.01 usd")
}

fn body(status: &str) -> String {
    let (id, fingerprint) = (question().id, question().fingerprint());
    format!(r#"{{"id":"{id}","fingerprint":"{fingerprint}","status":"{status}"}}"#)
}

fn response(status: u16, body: impl Into<Body>) -> Response {
    Response::builder().status(status).body(body.into()).unwrap()
}

/// What an approver's service was asked: method, path with query, token, body.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: Method,
    target: String,
    token: Option<String>,
    body: String,
}

/// An approver's service that answers as its script says.
struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Service {
    async fn start(script: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static) -> Service {
        Service::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// `None` is silence.
    fn on(
        listener: TcpListener,
        script: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static,
    ) -> Service {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, script) = (Arc::clone(&seen), Arc::new(script));
        let handler = move |request: Request| {
            let (log, script) = (Arc::clone(&log), Arc::clone(&script));
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let token = parts.headers.get("authorization");
                let one = Seen {
                    method: parts.method,
                    target: parts.uri.to_string(),
                    token: token.map(|token| token.to_str().unwrap().to_owned()),
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                log.lock().unwrap().push(one.clone());
                match script(&one) {
                    Some(response) => response,
                    None => std::future::pending().await,
                }
            }
        };
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Service { address, seen }
    }

    fn approver(&self) -> Webhook {
        Webhook::new(&format!("http://{}/approvals/", self.address)).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_question_is_put_and_then_looked_at() {
    for (said, expected) in
        [("approved", Answer::Approved), ("denied", Answer::Denied), ("pending", Answer::Pending)]
    {
        let service = Service::start(move |seen: &Seen| {
            let said = if seen.method == Method::PUT { "pending" } else { said };
            Some(response(200, body(said)))
        })
        .await;
        let approver = service.approver().token("a-token".into()).unwrap();
        assert_eq!(approver.ask(&question()).await.unwrap(), expected);
        let [put, get] = &service.seen()[..] else { panic!("one PUT and one GET") };
        let path = "/approvals/000102030405060708090a0b0c0d0e0f";
        assert_eq!((&put.method, put.target.as_str()), (&Method::PUT, path));
        assert_eq!((&get.method, get.target.as_str()), (&Method::GET, &*format!("{path}?wait=55")));
        assert_eq!(serde_json::from_str::<Question>(&put.body).unwrap(), question());
        for seen in [put, get] {
            assert_eq!(seen.token.as_deref(), Some("Bearer a-token"));
        }
    }
}

#[tokio::test]
async fn an_answer_to_the_put_needs_no_look() {
    for (said, expected) in [("approved", Answer::Approved), ("denied", Answer::Denied)] {
        let service = Service::start(move |_: &Seen| Some(response(202, body(said)))).await;
        assert_eq!(service.approver().ask(&question()).await.unwrap(), expected);
        assert_eq!(service.seen().len(), 1);
    }
}

/// Answers that are no approval of this question, each with its name.
fn forged(elsewhere: &Service) -> Vec<(String, StatusCode, String)> {
    let (id, print) = (question().id.to_string(), question().fingerprint().to_string());
    let good = body(APPROVED);
    let mut dearer = question();
    dearer.price = usd!("0.03");
    let mut cases: Vec<(String, u16, String)> = [
        ("another id", good.replace(&id, "ffffffffffffffffffffffffffffffff")),
        ("an id in capitals", good.replace(&id, &id.to_uppercase())),
        ("a short id", good.replace(&id, &id[1..])),
        ("no id", good.replace(&format!(r#""id":"{id}","#), "")),
        ("another price", good.replace(&print, &dearer.fingerprint().to_string())),
        ("a fingerprint in capitals", good.replace(&print, &print.to_uppercase())),
        ("the start of the fingerprint", good.replace(&print, &print[..32])),
        ("an empty fingerprint", good.replace(&print, "")),
        ("no fingerprint", good.replace(&format!(r#""fingerprint":"{print}","#), "")),
        ("a null fingerprint", good.replace(&format!(r#""{print}""#), "null")),
        ("no status", format!(r#"{{"id":"{id}","fingerprint":"{print}"}}"#)),
        ("the id twice", good.replacen('{', &format!(r#"{{"id":"{id}","#), 1)),
        ("approved, then denied", good.replace('}', ",\"status\":\"denied\"}")),
        ("denied, then approved", good.replacen('{', r#"{"status":"denied","#, 1)),
        ("truncated", good[..good.len() - 1].to_owned()),
        ("more after it", format!("{good}{good}")),
        ("a byte order mark", format!("\u{feff}{good}")),
        ("an array", format!(r#"["{id}","{print}","approved"]"#)),
        ("an array of one", format!("[{good}]")),
        ("a string", format!("{good:?}")),
        ("nested", format!(r#"{{"approval":{good}}}"#)),
        ("null", "null".to_owned()),
        ("true", "true".to_owned()),
        ("approved", "approved".to_owned()),
        ("nothing", String::new()),
        ("a page", "<html><body>approved</body></html>".to_owned()),
        ("a form", format!("id={id}&fingerprint={print}&status=approved")),
        ("a large body", format!("{good}{}", " ".repeat(1_000_000))),
        ("a large field", good.replacen('{', &format!(r#"{{"a":"{}","#, "a".repeat(1_000_000)), 1)),
        ("deep", "[".repeat(4_000)),
    ]
    .map(|(name, body)| (name.to_owned(), 200, body))
    .into();
    for status in [
        "Approved",
        "APPROVED",
        "approved ",
        " approved",
        "approve",
        "yes",
        "ok",
        "",
        "approved\\u0000",
        "\u{430}pproved",
    ] {
        cases.push((format!("status {status:?}"), 200, body(status)));
    }
    for status in
        ["true", "1", "null", r#"["approved"]"#, r#"{"approved":null}"#, r#"{"approved":true}"#]
    {
        cases.push((format!("status {status}"), 200, good.replace(r#""approved""#, status)));
    }
    for status in [
        201, 203, 204, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 409, 410, 418,
        429, 500, 502, 503, 504,
    ] {
        cases.push((format!("{status} towards {}", elsewhere.address), status, good.clone()));
    }
    cases
        .into_iter()
        .map(|(name, status, body)| (name, StatusCode::from_u16(status).unwrap(), body))
        .collect()
}

#[tokio::test]
async fn nothing_but_an_approval_of_this_question_is_taken_for_one() {
    let elsewhere = Service::start(|_: &Seen| Some(response(200, body(APPROVED)))).await;
    let location = format!("http://{}/approvals/{}", elsewhere.address, question().id);
    let mut approvals = Vec::new();
    let cases = forged(&elsewhere);
    assert!(cases.len() > 60);
    for (name, status, forged) in &cases {
        for forge_the_put in [true, false] {
            let (status, forged, location) = (*status, forged.clone(), location.clone());
            let service = Service::start(move |seen: &Seen| {
                if !forge_the_put && seen.method == Method::PUT {
                    return Some(response(200, body("pending")));
                }
                let builder = Response::builder().status(status).header("location", &location);
                Some(builder.body(Body::from(forged.clone())).unwrap())
            })
            .await;
            let asked = service.approver().ask(&question()).await;
            if !matches!(asked, Err(_) | Ok(Answer::Pending)) {
                approvals.push((name.clone(), asked));
            }
            assert_eq!(service.seen().len(), if forge_the_put { 1 } else { 2 }, "{name}");
        }
    }
    assert!(approvals.is_empty(), "{approvals:?}");
    assert!(elsewhere.seen().is_empty(), "no redirect is followed");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4_096]).await;
            let good = body(APPROVED);
            let promised = good.len() + 1;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {promised}\r\n\r\n{good}");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
    });
    let asked = Webhook::new(&base).unwrap().ask(&question()).await;
    assert!(matches!(asked, Err(ApproverError::Unavailable)), "{asked:?}");
}

#[tokio::test]
async fn a_failure_says_what_it_is() {
    let cases = [
        (response(200, body(APPROVED).replace("0001", "ffff")), "to another question"),
        (response(200, "approved"), "malformed"),
        (response(503, body(APPROVED)), "status 503"),
        (response(302, body(APPROVED)), "status 302"),
    ];
    for (answer, expected) in cases {
        let answer = Mutex::new(Some(answer));
        let service = Service::start(move |_: &Seen| answer.lock().unwrap().take()).await;
        let error = service.approver().ask(&question()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_service_that_is_silent_or_drips_is_left_after_a_while() {
    let drip = || {
        let start = body(APPROVED)[..40].to_owned();
        response(200, Body::new(Endless(Some(start.into()))))
    };
    for (put, drips, seconds) in
        [(true, false, 15), (true, true, 15), (false, false, 70), (false, true, 70)]
    {
        let service = Service::start(move |seen: &Seen| {
            if !put && seen.method == Method::PUT {
                return Some(response(200, body("pending")));
            }
            // From here on time passes as fast as nobody does anything.
            tokio::time::pause();
            drips.then(drip)
        })
        .await;
        let start = Instant::now();
        let asked = service.approver().ask(&question()).await;
        let took = start.elapsed().as_secs();
        tokio::time::resume();
        assert!(matches!(asked, Err(ApproverError::Unavailable)), "{asked:?}");
        assert!((seconds - 1..=seconds + 1).contains(&took), "{took}");
    }
}

/// A body that starts and does not end.
struct Endless(Option<bytes::Bytes>);

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        match self.0.take() {
            Some(start) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(start)))),
            None => std::task::Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_service_that_was_down_is_asked_again_and_another_process_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let base = format!("http://{address}");
    let down = Webhook::new(&base).unwrap().ask(&question()).await;
    assert!(matches!(down, Err(ApproverError::Unavailable)), "{down:?}");

    let said = Arc::new(Mutex::new("pending"));
    let now = Arc::clone(&said);
    let listener = TcpListener::bind(address).await.unwrap();
    let service =
        Service::on(listener, move |_: &Seen| Some(response(200, body(*now.lock().unwrap()))));
    let first = Webhook::new(&base).unwrap();
    assert_eq!(first.ask(&question()).await.unwrap(), Answer::Pending);
    drop(first);
    *said.lock().unwrap() = APPROVED;
    let journal = serde_json::to_string(&question()).unwrap();
    let restarted: Question = serde_json::from_str(&journal).unwrap();
    let second = Webhook::new(&base).unwrap();
    assert_eq!(second.ask(&restarted).await.unwrap(), Answer::Approved);
    let ids: HashSet<String> = service
        .seen()
        .iter()
        .map(|seen| seen.target.trim_end_matches("?wait=55").to_owned())
        .collect();
    assert_eq!(ids.len(), 1, "it was one question: {ids:?}");
}

#[tokio::test]
async fn an_approval_is_not_one_of_the_same_request_at_another_price() {
    let service = Service::start(|_: &Seen| Some(response(200, body(APPROVED)))).await;
    assert_eq!(service.approver().ask(&question()).await.unwrap(), Answer::Approved);
    let mut others = vec![question(); 6];
    others[0].price = usd!("0.020001");
    others[1].top_up = Some(usd!("5.01"));
    others[2].top_up = None;
    others[3].path.push('&');
    others[4].method = "POST".to_owned();
    others[5].origin.push_str(":8443");
    for other in others {
        let asked = service.approver().ask(&other).await;
        assert!(matches!(asked, Err(ApproverError::OtherQuestion)), "{other:?}: {asked:?}");
    }
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_refused() {
    for token in ["a\nb", "a\r\nx: y", "\0"] {
        let webhook = Webhook::new("https://approvals.example.com").unwrap();
        assert!(webhook.token(token.into()).is_err());
    }
}

fn spec(file: &str) -> String {
    let path = format!("{}/../spec/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    question: Value,
    hashed: Option<String>,
    #[serde(default)]
    refused: bool,
}

#[test]
fn approval_vectors_hold() {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    let file: File = serde_json::from_str(&spec("vectors/approval.json")).unwrap();
    assert!(file.cases.len() >= 25);
    let mut prints = HashSet::new();
    for case in file.cases {
        let read: Result<Question, _> = serde_json::from_value(case.question.clone());
        let Ok(question) = read else {
            assert!(case.refused, "{}: {}", case.name, read.unwrap_err());
            continue;
        };
        assert!(!case.refused, "{}", case.name);
        assert_eq!(serde_json::to_value(&question).unwrap(), case.question, "{}", case.name);
        let print = question.fingerprint().to_string();
        let hashed = Sha256::digest(case.hashed.expect("what is hashed"));
        let hex: String = hashed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, print, "{}", case.name);
        let is_known = !prints.insert(print);
        assert_eq!(is_known, case.name.ends_with("the same fingerprint"), "{}", case.name);
    }
}

#[test]
fn the_examples_of_the_document_are_the_messages_of_this_client() {
    let document = spec("approvals.md");
    let blocks: Vec<&str> = document
        .split("```json\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    let [put, told] = blocks[..] else { panic!("a question and an answer: {blocks:?}") };
    assert_eq!(serde_json::from_str::<Question>(put).unwrap(), question());
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!(told, serde_json::from_str::<Value>(&body("pending")).unwrap());
    assert!(document.contains(&format!("{}", question().fingerprint())));
    assert!(document.contains("?wait=55"));
}
