use std::net::SocketAddr;

use axum::body::Body;
use axum::response::Response;
use farebox_client::{Agent, PaymentError, Reason, usd};
use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect::Policy;
use tokio::task::JoinSet;

use crate::support::{
    Http, Seen, Server, agent, answer, client, failure, held, offer, policy, served, tokenizer,
    told,
};

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

fn to(status: u16, location: &str) -> Response {
    Response::builder().status(status).header("location", location).body(Body::empty()).unwrap()
}

/// Where a redirect leads. `Chain` goes through the first origin to another host.
#[derive(Clone, Copy, Debug)]
enum Target {
    SameOrigin,
    OtherPort,
    /// Over plain http beyond loopback, where no payment may travel.
    OtherHost,
    Chain,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Default,
    None,
    /// One redirect, and an error for more.
    One,
    /// Stops before the other host.
    NotTheOtherHost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Paid {
    No,
    FromCredit,
    ByCard,
}

const TARGETS: [Target; 4] =
    [Target::SameOrigin, Target::OtherPort, Target::OtherHost, Target::Chain];
const RULES: [Rule; 4] = [Rule::Default, Rule::None, Rule::One, Rule::NotTheOtherHost];
const PAID: [Paid; 3] = [Paid::No, Paid::FromCredit, Paid::ByCard];
const METHODS: [Method; 2] = [Method::GET, Method::POST];
const LOOPBACK: &str = "127.0.0.1";
const OTHER_HOST: &str = "other.test";

impl Rule {
    fn policy(self) -> Policy {
        match self {
            Rule::Default => Policy::default(),
            Rule::None => Policy::none(),
            Rule::One => Policy::limited(1),
            Rule::NotTheOtherHost => Policy::custom(|attempt| match attempt.url().host_str() {
                Some(OTHER_HOST) => attempt.stop(),
                _ => attempt.follow(),
            }),
        }
    }
}

/// A request as it arrived, without what no redirect can change.
#[derive(Clone, Debug, PartialEq)]
struct Arrived {
    at_home: bool,
    paid: bool,
    method: Method,
    path: String,
    body: String,
    /// Without those that every paying client adds: `payment`, and the key of the call.
    headers: HeaderMap,
}

/// How a call ended: status and address, or why not.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Answered(StatusCode, String),
    TooManyRedirects,
    Unknown,
}

/// Two servers. The one at home leads away from `/free/<status>/<target>` whatever it is sent,
/// and from `/paid/<status>/<target>` once it is paid by card.
struct World {
    home: Server,
    other: Server,
}

fn address(server: &Server) -> SocketAddr {
    server.url("").replace("http://", "").parse().unwrap()
}

impl World {
    async fn start() -> World {
        let other = Server::start(|_: &Seen| answer(StatusCode::OK, "arrived")).await;
        let [port, host] = [other.url("/end"), other.url("/end").replace(LOOPBACK, OTHER_HOST)];
        let home = Server::start(move |seen: &Seen| {
            let parts: Vec<_> = seen.path.split('/').collect();
            let (status, target) = match parts[1..] {
                ["prime"] if seen.payment.is_none() => return offer(100, None),
                ["prime"] => return served(StatusCode::OK, &told(Some("ch_1"), Some(100), 49_900)),
                ["paid", ..] if seen.card().is_none() => return offer(100, None),
                [_, status, target] => (status.parse().unwrap(), target),
                _ => return answer(StatusCode::OK, "arrived"),
            };
            match target {
                "SameOrigin" => to(status, "/end"),
                "OtherPort" => to(status, &port),
                "Chain" => to(status, &format!("/hop/{status}/OtherHost")),
                _ => to(status, &host),
            }
        })
        .await;
        World { home, other }
    }

    fn client(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder().no_proxy().resolve(OTHER_HOST, address(&self.other))
    }

    /// What arrived during a call, and how it ended.
    async fn call(&self, http: &Http, method: &Method, path: &str) -> (Vec<Arrived>, End) {
        let before = (self.home.seen().len(), self.other.seen().len());
        let request = http.request(method.clone(), self.home.url(path));
        let request = request.header("authorization", "Bearer mine").header("cookie", "c=1");
        let request = request.header("content-type", "text/plain").body("body");
        let end = match request.send().await {
            Ok(response) => End::Answered(response.status(), response.url().to_string()),
            Err(reqwest_middleware::Error::Reqwest(error)) if error.is_redirect() => {
                End::TooManyRedirects
            }
            error => {
                assert!(matches!(failure(&error), PaymentError::Unknown), "{error:?}");
                End::Unknown
            }
        };
        let home = self.home.seen().into_iter().skip(before.0).map(|seen| (true, seen));
        let other = self.other.seen().into_iter().skip(before.1).map(|seen| (false, seen));
        let arrived = home.chain(other).map(|(at_home, seen)| {
            let mut headers = seen.headers;
            let paid = headers.remove("payment").is_some();
            headers.remove("idempotency-key");
            let Seen { method, path, body, .. } = seen;
            Arrived { at_home, paid, method, path, body, headers }
        });
        (arrived.collect(), end)
    }
}

/// What must arrive, and how it must end, if `bare` is what reqwest alone does with a free route.
fn expected(
    paid: Paid,
    method: &Method,
    bare: &(Vec<Arrived>, End),
    asked: End,
) -> (Vec<Arrived>, End) {
    let (arrived, end) = bare.clone();
    let unpaid = arrived[0].clone();
    let payment = Arrived { paid: true, ..unpaid.clone() };
    match paid {
        Paid::No => (arrived, end),
        // It took no payment, so it is asked without one, if asking changes nothing there.
        Paid::FromCredit if method.is_safe() => ([vec![payment], arrived].concat(), end),
        Paid::FromCredit => (vec![payment], asked),
        Paid::ByCard => (vec![unpaid, payment], End::Unknown),
    }
}

async fn paying(world: &World, stripe: &Server, paid: Paid, rule: Rule) -> (Agent, Http) {
    let agent = agent(policy().per_day(usd!("10000")), stripe).redirects(rule.policy());
    let http = agent.client(world.client()).unwrap().build();
    if paid == Paid::FromCredit {
        http.get(world.home.url("/prime")).send().await.unwrap();
    }
    (agent, http)
}

/// Every status, target and method under one rule; how many cells that were.
async fn judge(rule: Rule, paid: Paid) -> usize {
    let (world, stripe) = (World::start().await, tokenizer().await);
    let bare = world.client().redirect(rule.policy()).build().unwrap();
    let bare = reqwest_middleware::ClientBuilder::new(bare).build();
    let (agent, http) = paying(&world, &stripe, paid, rule).await;
    let mut cells = 0;
    for (status, target) in REDIRECTS.into_iter().flat_map(|one| TARGETS.map(|to| (one, to))) {
        for method in METHODS {
            let free = format!("/free/{status}/{target:?}");
            let mut bare = world.call(&bare, &method, &free).await;
            let path = if paid == Paid::ByCard { free.replace("free", "paid") } else { free };
            bare.0[0].path.clone_from(&path);
            let led = StatusCode::from_u16(status).unwrap();
            let asked = End::Answered(led, world.home.url(&path));
            let expected = expected(paid, &method, &bare, asked);
            let seen = world.call(&http, &method, &path).await;
            assert_eq!(seen, expected, "{status} {target:?} {rule:?} {paid:?} {method}");
            agent.write_off(&world.home.url("")).await.unwrap();
            cells += 1;
        }
    }
    assert!(world.other.seen().iter().all(|seen| seen.payment.is_none()));
    cells
}

#[tokio::test]
async fn redirects_never_carry_a_payment_and_are_followed_as_reqwest_alone_follows_them() {
    let rules = RULES.into_iter().flat_map(|rule| PAID.map(|paid| judge(rule, paid)));
    let cells = rules.collect::<JoinSet<_>>().join_all().await;
    assert_eq!(cells.into_iter().sum::<usize>(), 480);
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
    for (status, host) in REDIRECTS.into_iter().flat_map(|one| [(one, LOOPBACK), (one, OTHER_HOST)])
    {
        let evil = Server::start(|_: &Seen| offer(100, None)).await;
        let location = evil.url("/joke").replace(LOOPBACK, host);
        let server = Server::start(move |_: &Seen| to(status, &location)).await;
        let stripe = tokenizer().await;
        let builder = reqwest::Client::builder().no_proxy().resolve(OTHER_HOST, address(&evil));
        let agent = agent(policy().allow(OTHER_HOST), &stripe);
        let http = agent.client(builder).unwrap().build();
        let result = http.get(server.url("/joke")).send().await;
        let PaymentError::Refused(reason) = failure(&result) else { panic!("{result:?}") };
        assert_eq!((reason, stripe.seen().len()), (&Reason::Redirected, 0));
        assert_eq!(evil.seen().len(), 1);
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
    let none = agent(policy(), &stripe).redirects(Policy::none());
    let response = client(&none).get(server.url("/old")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
}
