//! The battery of hostile providers against the agent's client, under the reference policy.
//!
//! Costs are read at Stripe. Every scenario has an agent of its own, which asks three times in a
//! row, the third time with a layer around it that retries, and then four times at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use farebox_client::{Agent, Card, Currency, MaxPrice, Money, Policy, usd};
use farebox_sandbox::hostile::{Hostile, Kind, Scenario, Verdict, scenarios};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use http::Extensions;
use http_body_util::Full;
use reqwest_middleware::ClientWithMiddleware;

const NOW: i64 = 1_800_000_000;
const CARD: &str = "4242424242424242:12:40:123";
/// What a careful program sets: the longest that one request takes.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest that nine requests may take, with waiting for each other's payments.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(90);
const AT_ONCE: usize = 16;
/// The most that a caller reads of an answer.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How a scenario ended.
struct Played {
    verdict: Verdict,
    held: Money,
    took: Duration,
    /// Whether the last request was served.
    served: bool,
}

fn agent(battery: &Hostile) -> Agent {
    let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
    with_card(policy.per_top_up(usd!("5")).per_day(usd!("10")), battery)
}

fn with_card(policy: Policy, battery: &Hostile) -> Agent {
    let card: Card = CARD.parse().unwrap();
    let agent = Agent::new(policy).card(card).clock(|| NOW);
    agent.tokenizer(battery.sandbox().url()).unwrap()
}

/// One call; `true` if it was served.
async fn call(http: &ClientWithMiddleware, scenario: &Scenario, url: &str, tries: usize) -> bool {
    let mut extensions = Extensions::new();
    for _ in 0..tries {
        let request = match scenario.method {
            "POST" => http.post(url).body(reqwest::Body::wrap(Full::<Bytes>::from("sent once"))),
            _ => http.get(url),
        };
        let request = request.build().unwrap();
        let answer = http.execute_with_extensions(request, &mut extensions).await;
        if let Ok(mut answer) = answer {
            let status = answer.status();
            let mut read = 0;
            while read < BODY_BYTES_MAX
                && let Ok(Some(chunk)) = answer.chunk().await
            {
                read += chunk.len();
            }
            if status.is_success() {
                return true;
            }
        }
    }
    false
}

/// Three calls in a row, four at once, and a last one; `true` if that was served.
async fn play(battery: &Hostile, agent: &Agent, scenario: &Scenario) -> bool {
    let builder = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    let http = agent.client(builder).unwrap().build();
    let url = battery.scenario_url(scenario.name).unwrap();
    for tries in [1, 1, 3] {
        call(&http, scenario, url, tries).await;
    }
    let paths: Vec<String> = (0..4).map(|n| format!("{url}/{n}")).collect();
    join_all(paths.iter().map(|url| call(&http, scenario, url, 1))).await;
    call(&http, scenario, url, 1).await
}

/// With an agent of its own.
async fn play_alone(battery: &Hostile, scenario: &Scenario) -> Played {
    let agent = agent(battery);
    let started = Instant::now();
    let served = play(battery, &agent, scenario).await;
    Played {
        verdict: battery.verdict(scenario.name).unwrap(),
        held: held(&agent).await,
        took: started.elapsed(),
        served,
    }
}

async fn start() -> Hostile {
    Hostile::start("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn of_kind(kind: Kind) -> impl Iterator<Item = &'static Scenario> {
    scenarios().iter().filter(move |scenario| scenario.kind == kind)
}

async fn play_all(kind: Kind) -> Vec<Played> {
    let battery = start().await;
    let played = of_kind(kind).map(|scenario| play_alone(&battery, scenario));
    stream::iter(played).buffer_unordered(AT_ONCE).collect().await
}

async fn held(agent: &Agent) -> Money {
    agent.usage().await.unwrap().held(Currency::USD, NOW)
}

fn cents(amount: i64) -> Money {
    Money::new(Currency::USD.from_minor(amount).unwrap(), Currency::USD)
}

/// What is wrong, in words, for every scenario at once.
fn complaints(played: &Played) -> Vec<String> {
    let Played { verdict, held, took, .. } = played;
    let mut wrong = Vec::new();
    if verdict.cost > verdict.allowed {
        wrong.push(format!("cost {} cents, {} are allowed", verdict.cost, verdict.allowed));
    }
    if held.micros() < cents(verdict.cost).micros() {
        wrong.push(format!("the budget counts {held}, {} cents left the card", verdict.cost));
    }
    if *took > SCENARIO_TIMEOUT {
        wrong.push(format!("it took {took:?}"));
    }
    wrong.extend(verdict.leaks.iter().cloned());
    wrong.into_iter().map(|wrong| format!("{}: {wrong}", verdict.name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_costs_more_than_the_policy_allows_or_learns_what_it_should_not() {
    let all = play_all(Kind::Attack).await;
    assert!(all.len() >= 27);
    assert!(all.iter().all(|played| played.verdict.requests > 0 || is_elsewhere(played)));
    let wrong: Vec<String> = all.iter().flat_map(complaints).collect();
    let longest = all.iter().map(|played| played.took).max().unwrap();
    let cost: i64 = all.iter().map(|played| played.verdict.cost).sum();
    println!("{} attacks cost {cost} cents, the longest took {longest:?}", all.len());
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether a scenario may be left alone: its host is not allowed.
fn is_elsewhere(played: &Played) -> bool {
    played.verdict.name.ends_with("_host")
}

/// The day's limit is for all origins together.
#[tokio::test(flavor = "multi_thread")]
async fn all_attacks_together_cost_one_agent_no_more_than_its_day() {
    let battery = start().await;
    let agent = agent(&battery);
    // One that takes money and denies it goes first: what follows meets a budget that is in use.
    let liar = of_kind(Kind::Attack).find(|scenario| scenario.name == "false_decline").unwrap();
    play(&battery, &agent, liar).await;
    let played = of_kind(Kind::Attack).map(|scenario| play(&battery, &agent, scenario));
    stream::iter(played).buffer_unordered(AT_ONCE).for_each(async |_| {}).await;
    let verdicts = battery.verdicts();
    let cost: i64 = verdicts.iter().map(|verdict| verdict.cost).sum();
    let leaks: Vec<&String> = verdicts.iter().flat_map(|verdict| &verdict.leaks).collect();
    assert_eq!(leaks, Vec::<&String>::new());
    assert!((500..=1_000).contains(&cost), "{cost} cents left the card");
    let held = held(&agent).await;
    assert!(held.micros() >= cents(cost).micros(), "{held} held for {cost} cents");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_honest_provider_is_paid_once_and_serves() {
    let all = play_all(Kind::Control).await;
    assert!(all.len() >= 4);
    for played in &all {
        let Played { verdict, held, served, .. } = played;
        assert!(verdict.within && *served, "{verdict:?}");
        // Whether the hold of a refused card goes back is the client's to decide.
        if verdict.name != "declined_once" {
            assert_eq!(*held, cents(verdict.cost), "{verdict:?}");
        }
        assert_eq!(complaints(played), Vec::<String>::new());
    }
}

/// The caller's own limit, where the policy would pay.
#[tokio::test(flavor = "multi_thread")]
async fn a_price_above_the_callers_own_maximum_is_not_paid() {
    let battery = start().await;
    let policy = Policy::new().allow("127.0.0.1").per_request(usd!("1"));
    let agent = with_card(policy.per_top_up(usd!("5")).per_day(usd!("10")), &battery);
    let http = agent.client(reqwest::Client::builder().no_proxy()).unwrap().build();
    let get = |max| http.get(battery.scenario_url("dear").unwrap()).with_extension(MaxPrice(max));
    for _ in 0..3 {
        assert!(get(usd!("0.19")).send().await.is_err());
    }
    assert_eq!((battery.verdict("dear").unwrap().cost, held(&agent).await), (0, usd!("0")));
    assert!(get(usd!("0.20")).send().await.unwrap().status().is_success());
    assert_eq!(battery.verdict("dear").unwrap().cost, 500);
    assert!(get(usd!("0.19")).send().await.is_err(), "nor from credit");
    assert_eq!(battery.verdict("dear").unwrap().served, 1);
}

/// Of a 402 that does not end, only its start is read, also by a program that sets no timeout.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_price_is_left_before_its_end() {
    let battery = start().await;
    let http = agent(&battery).client(reqwest::Client::builder().no_proxy()).unwrap().build();
    for name in ["endless_body", "huge_body", "compressed_bomb", "endless_head"] {
        let started = Instant::now();
        let answer = http.get(battery.scenario_url(name).unwrap()).send().await;
        // The provider itself goes on for ten seconds.
        assert!(started.elapsed() < Duration::from_secs(7), "{name}: {:?}", started.elapsed());
        assert!(answer.is_err() || answer.unwrap().status() == 402, "{name}");
    }
}
