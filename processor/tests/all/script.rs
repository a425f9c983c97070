//! An HTTP server that plays a script: one reply per request, and a record of what it was sent.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farebox_processor::{Call, IdempotencyKey, Stripe, TopUp};
use farebox_protocol::{PaymentMethodId, TopUpId, usd};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) const SECRET: &str = "sk_test_scripted";
pub(crate) const PUBLISHABLE: &str = "pk_test_scripted";

/// What the server does with one request, after it has read all of it.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole answer.
    Answer { status: u16, headers: Vec<(&'static str, &'static str)>, body: String },
    /// A TCP reset instead of an answer.
    Reset,
    /// A TCP reset, and from then on nobody listens.
    ResetAndLeave,
    /// The answer of the server at this address.
    Forward(SocketAddr),
    /// A TCP reset after the server at this address has answered: the request ran.
    RunAndReset(SocketAddr),
    /// Half of an answer, then the end of the connection.
    Truncated,
    /// Nothing, for longer than anybody waits.
    Silence,
}

pub(crate) fn reply(status: u16, body: &Value) -> Reply {
    Reply::Answer { status, headers: vec![], body: body.to_string() }
}

pub(crate) fn error(status: u16, error: &Value) -> Reply {
    reply(status, &json!({ "error": error }))
}

pub(crate) fn html(status: u16) -> Reply {
    Reply::Answer { status, headers: vec![], body: "<html>oh no</html>".to_owned() }
}

pub(crate) fn intent(status: &str) -> Value {
    json!({"id": "pi_1", "object": "payment_intent", "status": status, "amount": 500,
           "amount_received": 500, "currency": "usd", "livemode": false, "metadata": {}})
}

impl Reply {
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Reply {
        if let Reply::Answer { headers, .. } = &mut self {
            headers.push((name, value));
        }
        self
    }
}

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The form fields of the body, or of the query of a GET.
    pub(crate) fn fields(&self) -> BTreeMap<String, String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let text = if self.method == "GET" { query } else { &self.body };
        form_urlencoded::parse(text.as_bytes()).into_owned().collect()
    }
}

pub(crate) struct Script {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Script {
    pub(crate) async fn play(replies: impl IntoIterator<Item = Reply>) -> Script {
        farebox_canary::watch();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        let log = seen.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read(&mut stream).await;
                log.lock().unwrap().push(request.clone());
                let reply = replies.pop_front().unwrap_or_else(|| html(599));
                let leave = matches!(reply, Reply::ResetAndLeave);
                if leave {
                    // First nobody listens, then the client learns that its request is lost. The
                    // port is kept, so that no other test can come to listen there.
                    let address = listener.local_addr().unwrap();
                    drop(listener);
                    let port = TcpSocket::new_v4().unwrap();
                    port.set_reuseaddr(true).unwrap();
                    port.bind(address).unwrap();
                    act(stream, request, reply).await;
                    return std::future::pending().await;
                }
                tokio::spawn(act(stream, request, reply));
            }
        });
        Script { url, seen }
    }

    pub(crate) fn stripe(&self) -> Stripe {
        Stripe::new(SECRET, PUBLISHABLE).unwrap().base_url(&self.url).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The attempts at one call: all of them, the same to the byte and under one key.
    pub(crate) fn identical_attempts(&self) -> usize {
        let seen = self.seen();
        for attempt in &seen {
            assert_eq!(attempt, &seen[0], "an attempt differs from the first one");
            assert_eq!(attempt.header("idempotency-key"), top_up_id().to_string());
        }
        seen.len()
    }
}

async fn read(stream: &mut TcpStream) -> Seen {
    let mut bytes = Vec::new();
    let head_end = loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.unwrap();
        assert_ne!(n, 0, "the client hung up within its request");
        bytes.extend_from_slice(&chunk[..n]);
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let headers: BTreeMap<_, _> = lines.map(header).collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = bytes[head_end + 4..].to_vec();
    while body.len() < length {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.unwrap();
        assert_ne!(n, 0, "the client hung up within its body");
        body.extend_from_slice(&chunk[..n]);
    }
    Seen {
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
    }
}

async fn act(mut stream: TcpStream, request: Seen, reply: Reply) {
    match reply {
        Reply::Forward(server) => {
            let answer = forward(&request, server).await;
            stream.write_all(&answer).await.unwrap();
        }
        Reply::RunAndReset(server) => {
            forward(&request, server).await;
            stream.set_zero_linger().unwrap();
        }
        Reply::Reset | Reply::ResetAndLeave => stream.set_zero_linger().unwrap(),
        Reply::Silence => tokio::time::sleep(Duration::from_secs(60)).await,
        Reply::Truncated => {
            let half = "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{\"id\":\"pi_1\",\"stat";
            stream.write_all(half.as_bytes()).await.unwrap();
        }
        Reply::Answer { status, headers, body } => {
            let mut head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\
                 request-id: req_scripted\r\n",
                body.len()
            );
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            // The client may refuse to read all of it.
            let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

/// Sends a request as it came, and waits for the whole answer.
async fn forward(request: &Seen, server: SocketAddr) -> Vec<u8> {
    let mut text =
        format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(&request.body);
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

pub(crate) fn top_up_id() -> TopUpId {
    format!("tu_{}_usd_1", "ab".repeat(32)).parse().unwrap()
}

pub(crate) fn card() -> PaymentMethodId {
    "pm_scripted".parse().unwrap()
}

pub(crate) fn key() -> IdempotencyKey {
    IdempotencyKey::from(top_up_id())
}

pub(crate) fn call(stripe: &Stripe) -> Call {
    let (id, amount, payment_method) = (top_up_id(), usd!("5").micros(), &card());
    stripe.top_up(&TopUp { id, amount, customer: "cus_1", payment_method, save_card: true })
}
