//! 127.0.0.2 is excepted from the guards of these tests, and stands for the public internet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::response::Response;
use farebox_client::{Agent, Guard, PaymentError, Reason};
use http::{HeaderValue, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Http, Seen, Server, agent, answer, client, failure, honest, policy, tokenizer,
};

/// Spellings of loopback addresses that connect to a server on this machine.
const LOOPBACK: [&str; 24] = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7F.1",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.0x1",
    "0",
    "0x0",
    "0.0.0.0",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "example.com@127.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "localhost",
    "LOCALHOST",
];

/// Other addresses that are not public.
const ELSEWHERE: [&str; 40] = [
    "127.0.0.3",
    "127.255.255.254",
    "10.0.0.1",
    "012.0.0.1",
    "10.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "3232235777",
    "169.254.169.254",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "0.1.2.3",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:0:0:0:0:80ff:fffe]",
    "[2001:db8::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[100::1]",
];

/// A port that counts its connections. It hands them on to a server, or closes them.
struct Door {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Door {
    async fn open(address: &str, to: Option<&Server>) -> Option<Door> {
        let listener = TcpListener::bind(address).await.ok()?;
        let address = listener.local_addr().unwrap();
        let to = to.map(|server| server.url("").replace("http://", ""));
        let accepted = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let Some(to) = to.clone() else { continue };
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Some(Door { address, accepted })
    }

    /// A public door to `server`, and a private one that has the same port.
    async fn pair(server: &Server) -> (Door, Door) {
        loop {
            let public = Door::open("127.0.0.2:0", Some(server)).await.unwrap();
            let private = format!("127.0.0.1:{}", public.address.port());
            if let Some(private) = Door::open(&private, None).await {
                return (public, private);
            }
        }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/joke", self.address.port())
    }
}

/// Answers with the addresses that its script has for the n-th look-up of any name.
struct Script<F>(F, AtomicUsize);

impl<F: Fn(usize) -> &'static [&'static str] + Send + Sync> Resolve for Script<F> {
    fn resolve(&self, _: Name) -> Resolving {
        let found = (self.0)(self.1.fetch_add(1, Ordering::SeqCst)).iter();
        let found: Vec<_> =
            found.map(|address| SocketAddr::new(address.parse::<IpAddr>().unwrap(), 0)).collect();
        Box::pin(async { Ok(Box::new(found.into_iter()) as Addrs) })
    }
}

fn script<F: Fn(usize) -> &'static [&'static str] + Send + Sync>(look_up: F) -> Script<F> {
    Script(look_up, AtomicUsize::new(0))
}

fn public() -> Guard {
    Guard::public_only().allow("127.0.0.2").unwrap()
}

/// A client that looks up the name again for every request.
fn forgetful(agent: &Agent) -> Http {
    agent.client(reqwest::Client::builder().pool_max_idle_per_host(0)).unwrap().build()
}

fn is_blocked(result: &Result<reqwest::Response, reqwest_middleware::Error>) -> bool {
    matches!(failure(result), PaymentError::Refused(Reason::PrivateAddress(_)))
}

fn to(location: &str) -> Response {
    let location = HeaderValue::from_bytes(location.as_bytes()).unwrap();
    Response::builder().status(307).header("location", location).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn no_spelling_of_an_address_that_is_not_public_is_connected_to() {
    let stripe = tokenizer().await;
    let inside = Door::open("127.0.0.1:0", None).await.unwrap();
    let http = client(&agent(policy(), &stripe).guard(public()));
    for host in LOOPBACK.into_iter().chain(ELSEWHERE) {
        let get = http.get(inside.url(host)).send().await;
        let post = http.post(inside.url(host)).body("secret").send().await;
        assert!(is_blocked(&get) && is_blocked(&post), "{host}: {get:?}");
        assert_eq!(inside.accepted(), 0, "{host}");
    }
}

#[tokio::test]
async fn no_redirect_leads_to_an_address_that_is_not_public() {
    let stripe = tokenizer().await;
    let inside = Door::open("127.0.0.1:0", None).await.unwrap();
    let http = client(&agent(policy(), &stripe).guard(public()));
    for host in LOOPBACK.into_iter().chain(ELSEWHERE) {
        let location = inside.url(host);
        let server = Server::start(move |_: &Seen| to(&location)).await;
        let outside = Door::open("127.0.0.2:0", Some(&server)).await.unwrap();
        let result = http.get(outside.url("127.0.0.2")).send().await;
        assert!(is_blocked(&result), "{host}: {result:?}");
        assert_eq!((server.seen().len(), inside.accepted()), (1, 0), "{host}");
    }
}

#[tokio::test]
async fn without_a_guard_the_same_spellings_reach_loopback() {
    let stripe = tokenizer().await;
    let inside = Door::open("127.0.0.1:0", None).await.unwrap();
    let http = client(&agent(policy(), &stripe));
    for (reached, host) in LOOPBACK.into_iter().enumerate() {
        assert_eq!(inside.accepted(), reached, "before {host}");
        assert!(http.get(inside.url(host)).send().await.is_err(), "{host}");
    }
    assert_eq!(inside.accepted(), LOOPBACK.len());
}

#[tokio::test]
async fn a_name_that_changes_to_a_private_address_is_not_followed_there() {
    let stripe = tokenizer().await;
    let server = Server::start(|_: &Seen| answer(StatusCode::OK, "free")).await;
    let (outside, inside) = Door::pair(&server).await;
    let guard = public().resolver(script(|look_up| match look_up {
        0 => &["127.0.0.2"],
        _ => &["127.0.0.1"],
    }));
    let http = forgetful(&agent(policy(), &stripe).guard(guard));
    let url = outside.url("rebinding.test");
    assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::OK);
    let second = http.get(&url).send().await;
    let PaymentError::Refused(Reason::PrivateAddress(blocked)) = failure(&second) else {
        panic!("{second:?}");
    };
    assert_eq!((blocked.host(), blocked.address()), ("rebinding.test", [127, 0, 0, 1].into()));
    assert_eq!((outside.accepted(), inside.accepted()), (1, 0));
}

#[tokio::test]
async fn no_payment_by_card_follows_a_name_to_a_private_address() {
    let stripe = tokenizer().await;
    let (provider, server) = honest(100).await;
    let (outside, inside) = Door::pair(&server).await;
    let guard = public().resolver(script(|look_up| match look_up {
        0 => &["127.0.0.2"],
        _ => &["127.0.0.1"],
    }));
    let agent = agent(policy().allow("localhost"), &stripe).guard(guard);
    let result = forgetful(&agent).get(outside.url("localhost")).send().await;
    failure(&result);
    assert_eq!((server.cards().len(), provider.charges(), inside.accepted()), (0, 0, 0));
}

#[tokio::test]
async fn no_credential_follows_a_name_to_a_private_address() {
    let stripe = tokenizer().await;
    let (_, server) = honest(100).await;
    let (outside, inside) = Door::pair(&server).await;
    // The offer, the payment by card, one request from credit.
    let guard = public().resolver(script(|look_up| match look_up {
        0..3 => &["127.0.0.2"],
        _ => &["127.0.0.1"],
    }));
    let agent = agent(policy().allow("localhost"), &stripe).guard(guard);
    let http = forgetful(&agent);
    let url = outside.url("localhost");
    for _ in 0..2 {
        assert_eq!(http.get(&url).send().await.unwrap().status(), StatusCode::OK);
    }
    for _ in 0..2 {
        assert!(is_blocked(&http.get(&url).send().await));
        assert!(is_blocked(&http.post(&url).send().await));
    }
    let paid = server.seen().iter().filter(|seen| seen.payment.is_some()).count();
    assert_eq!((paid, outside.accepted(), inside.accepted()), (2, 3, 0));
}

#[tokio::test]
async fn a_redirect_to_a_name_with_a_private_address_is_not_followed() {
    let stripe = tokenizer().await;
    let inside = Door::open("127.0.0.1:0", None).await.unwrap();
    let location = inside.url("inside.test");
    let server = Server::start(move |_: &Seen| to(&location)).await;
    let outside = Door::open("127.0.0.2:0", Some(&server)).await.unwrap();
    let guard = public().resolver(script(|_| &["127.0.0.1", "::1", "169.254.169.254"]));
    let http = client(&agent(policy(), &stripe).guard(guard));
    let result = http.get(outside.url("127.0.0.2")).send().await;
    assert!(is_blocked(&result), "{result:?}");
    assert_eq!((server.seen().len(), inside.accepted()), (1, 0));
}

#[tokio::test]
async fn of_several_addresses_only_the_public_ones_are_tried() {
    let stripe = tokenizer().await;
    let server = Server::start(|_: &Seen| answer(StatusCode::OK, "free")).await;
    let (outside, inside) = Door::pair(&server).await;
    let guard = public().resolver(script(|_| &["::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"]));
    let http = forgetful(&agent(policy(), &stripe).guard(guard));
    for _ in 0..3 {
        let response = http.get(outside.url("mixed.test")).send().await.unwrap();
        assert_eq!(response.remote_addr().unwrap(), outside.address);
    }
    assert_eq!((outside.accepted(), inside.accepted()), (3, 0));
}

#[tokio::test]
async fn a_guarded_agent_pays_and_its_tokenizer_is_not_guarded() {
    let stripe = tokenizer().await;
    let (provider, server) = honest(100).await;
    let outside = Door::open("127.0.0.2:0", Some(&server)).await.unwrap();
    let agent = agent(policy().allow("127.0.0.2"), &stripe).guard(public());
    let http = client(&agent);
    for _ in 0..3 {
        let response = http.get(outside.url("127.0.0.2")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!((provider.charges(), stripe.seen().len()), (1, 1));
}

#[tokio::test]
async fn an_exception_holds_for_what_it_names_and_for_nothing_else() {
    let stripe = tokenizer().await;
    let server = Server::start(|_: &Seen| answer(StatusCode::OK, "free")).await;
    // Exception, hosts that it lets through, hosts that it does not.
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("127.0.0.1", &["127.0.0.1", "127.1", "[::ffff:7f00:1]", "localhost"], &["127.0.0.2"]),
        ("127.0.0.0/31", &["127.0.0.1"], &["127.0.0.2", "0.0.0.0"]),
        ("127.0.0.0/8", &["127.0.0.1", "localhost"], &["10.0.0.1", "[::1]"]),
        ("::ffff:127.0.0.1", &["[::ffff:7f00:1]"], &["127.0.0.1"]),
        ("LocalHost.", &["localhost", "LOCALHOST"], &["127.0.0.1", "[::1]"]),
        ("host", &[], &["localhost", "127.0.0.1"]),
    ];
    let inside = Door::open("127.0.0.1:0", Some(&server)).await.unwrap();
    for (exception, through, refused) in cases {
        let guard = Guard::public_only().allow(exception).unwrap();
        let http = client(&agent(policy(), &stripe).guard(guard));
        for host in through {
            assert!(http.get(inside.url(host)).send().await.is_ok(), "{exception}: {host}");
        }
        for host in refused {
            let result = http.get(inside.url(host)).send().await;
            assert!(is_blocked(&result), "{exception}: {host}");
        }
    }
}

#[test]
fn an_exception_that_names_nothing_is_an_error() {
    let malformed = [
        "",
        ".",
        "..",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "127.1",
        "0x7f.1",
        "[::1]",
        "*.internal",
        "http://localhost",
        "localhost:80",
        "db internal",
        "a..b",
        "höst",
        "10.0.0.0/8/8",
    ];
    for text in malformed {
        let error = Guard::public_only().allow(text).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{text:?} is no address")), "{error}");
    }
}

#[tokio::test]
async fn a_guarded_client_uses_no_proxy_and_no_other_resolver() {
    let stripe = tokenizer().await;
    let proxy = Door::open("127.0.0.1:0", None).await.unwrap();
    let builder = reqwest::Client::builder()
        .proxy(reqwest::Proxy::all(format!("http://{}", proxy.address)).unwrap())
        .dns_resolver(script(|_| panic!("the guard resolves names")));
    let server = Server::start(|_: &Seen| answer(StatusCode::OK, "free")).await;
    let outside = Door::open("127.0.0.2:0", Some(&server)).await.unwrap();
    let guard = public().resolver(script(|_| &["127.0.0.2"]));
    let http = agent(policy(), &stripe).guard(guard).client(builder).unwrap().build();
    let response = http.get(outside.url("outside.test")).send().await.unwrap();
    assert_eq!((response.status(), proxy.accepted()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn addresses_that_the_program_gives_to_its_builder_are_its_own_words() {
    let stripe = tokenizer().await;
    let server = Server::start(|_: &Seen| answer(StatusCode::OK, "free")).await;
    let inside = Door::open("127.0.0.1:0", Some(&server)).await.unwrap();
    let builder = reqwest::Client::builder().resolve("inside.test", inside.address);
    let guard = public().resolver(script(|_| &["127.0.0.1"]));
    let http = agent(policy(), &stripe).guard(guard).client(builder).unwrap().build();
    assert!(http.get(inside.url("inside.test")).send().await.is_ok());
    assert!(is_blocked(&http.get(inside.url("other.test")).send().await));
    assert_eq!(inside.accepted(), 1);
}
