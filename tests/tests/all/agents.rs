//! Agents: programs that pay on their own, against the real thing.

use farebox_client::{Agent, Card, PaymentError, PaymentErrorExt as _, Policy, Receipt, usd};
use reqwest_middleware::ClientWithMiddleware;

use crate::support::{Bank, Books, Program, Provider, card, run};

fn policy() -> Policy {
    let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.10"));
    policy.per_top_up(usd!("5")).per_day(usd!("20"))
}

fn agent(bank: &Bank, policy: Policy, n: u32) -> Agent {
    let card: Card = format!("{}:12:34:123", card(n)).parse().unwrap();
    Agent::new(policy).card(card).tokenizer(bank.url()).unwrap()
}

fn client(agent: &Agent) -> ClientWithMiddleware {
    agent.client(reqwest::Client::builder().no_proxy()).unwrap().build()
}

#[tokio::test]
async fn the_first_call_takes_two_round_trips_and_every_later_one() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let agent = agent(&bank, policy(), 1);
    let http = client(&agent);
    let mut trips = Vec::new();
    for n in 1..=5 {
        let before = provider.requests();
        let response = http.get(provider.at("/api/joke")).send().await.unwrap();
        trips.push(provider.requests() - before);
        let receipt = response.extensions().get::<Receipt>().cloned().unwrap();
        assert_eq!(receipt.charged, Some(usd!("0.01")));
        assert_eq!(receipt.remaining.micros().units_floor().get(), 50_000 - n * 100);
        assert_eq!(response.text().await.unwrap(), "A joke.");
    }
    println!("round trips of five calls: {trips:?}, {} charge", bank.charges().len());
    assert_eq!(trips, [2, 1, 1, 1, 1]);
    assert_eq!(bank.charges().len(), 1);

    // A handler that fails costs the agent nothing.
    let failed = http.get(provider.at("/api/fail")).send().await.unwrap();
    assert_eq!(failed.status(), 500);
    let receipt = failed.extensions().get::<Receipt>().cloned().unwrap();
    assert_eq!(receipt.charged.map(|charged| charged.micros().get()), Some(0));
}

#[tokio::test]
async fn an_agent_pays_over_http_2() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let agent = agent(&bank, policy(), 1);
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
    let http = agent.client(http2).unwrap().build();
    for _ in 0..2 {
        let response = http.get(provider.at("/api/joke")).send().await.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (http::Version::HTTP_2, 200));
        assert!(response.extensions().get::<Receipt>().is_some(), "it was not paid");
    }
}

#[tokio::test]
async fn the_budget_of_a_day_stops_an_agent_at_its_last_top_up() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let agent = agent(&bank, policy().per_request(usd!("5")).per_day(usd!("10")), 1);
    let http = client(&agent);
    for _ in 0..2 {
        assert_eq!(http.get(provider.at("/api/big")).send().await.unwrap().status(), 200);
    }
    let stopped = http.get(provider.at("/api/big")).send().await.unwrap_err();
    let reason = stopped.payment();
    assert!(matches!(reason, Some(PaymentError::Refused(_))), "{reason:?}");
    println!("10 dollars a day: {} charges, then `{stopped}`", bank.charges().len());
    assert_eq!((bank.charges().len(), bank.charged(), provider.served()), (2, 100_000, 2));
}

#[tokio::test]
async fn many_calls_of_an_agent_at_once_make_one_top_up() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Embedded).await;
    let agent = agent(&bank, policy(), 1);
    let http = client(&agent);
    let url = provider.at("/api/joke");
    let calls = (0..50).map(|_| http.get(&url).send());
    for response in futures_util::future::join_all(calls).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!((bank.charges().len(), provider.served()), (1, 50));
}

#[tokio::test]
async fn an_agent_does_not_pay_what_its_owner_does_not_allow() {
    let bank = Bank::open().await;
    let provider = Provider::open(&bank, Books::Memory).await;
    let strict = agent(&bank, policy(), 1);
    let dear = client(&strict).get(provider.at("/api/big")).send().await.unwrap_err();
    assert!(matches!(dear.payment(), Some(PaymentError::Refused(_))), "{dear:?}");
    let stranger = agent(&bank, Policy::new().allow("api.example.com"), 2);
    let elsewhere = client(&stranger).get(provider.at("/api/joke")).send().await;
    let refused = match &elsewhere {
        Ok(response) => response.status() == 402,
        Err(error) => matches!(error.payment(), Some(PaymentError::Refused(_))),
    };
    assert!(refused, "{elsewhere:?}");
    assert_eq!((bank.charge_calls(), bank.calls("POST", "/v1/payment_methods")), (0, 0));
}

/// The example programs, as their documentation runs them.
#[tokio::test]
async fn the_example_agent_pays_the_example_servers() {
    let bank = Bank::open().await;
    let folder = tempfile::tempdir().unwrap();
    let ledger = format!("embedded:{}", folder.path().join("books.redb").display());
    let mut environment = bank.environment().to_vec();
    environment.push(("FAREBOX_LEDGER", ledger));
    let api = Program::start("paid-api", &environment).await;
    let hyper = Program::start("paid-hyper", &bank.environment()).await;
    let urls = [
        format!("{}/api/joke", api.url),
        format!("{}/api/weather", api.url),
        format!("{}/api/fail", api.url),
        format!("{}/", api.url),
        format!("{}/anything", hyper.url),
        format!("{}/health", hyper.url),
    ];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let environment = [
        ("FAREBOX_CARD", format!("{}:12:34:123", card(1))),
        ("STRIPE_API_BASE", bank.url().to_owned()),
    ];
    let output = run("agent", &environment, &urls).await;
    let said = String::from_utf8(output.stdout).unwrap();
    println!("{said}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (words, count) in [(": 200 OK", 5), (": 500 ", 1), ("  free", 2), ("  cost ", 4)] {
        assert_eq!(said.matches(words).count(), count, "`{words}` in {said}");
    }
    assert_eq!(bank.charges().len(), 2, "one top-up at each provider");
    hyper.terminate().await;
    assert!(hyper.end().await.success());
    api.kill().await;
}

/// Runs an example that needs nothing but itself, and answers what it printed.
async fn example(name: &str) -> String {
    let output = run(name, &[], &[]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    println!("{said}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The results that the model of the example got, in their order.
fn results(said: &str) -> Vec<serde_json::Value> {
    let results = said.lines().filter_map(|line| line.strip_prefix("  result "));
    results.map(|json| serde_json::from_str(json).unwrap()).collect()
}

#[tokio::test]
async fn a_model_that_obeys_every_page_spends_what_its_owner_allows() {
    let said = example("llm-tool").await;
    let results = results(&said);
    let rule = |n: usize| results[n]["rule"].as_str();
    assert_eq!(results.len(), 17);
    assert_eq!(rule(0), Some("max_price"));
    assert_eq!(results[1]["receipt"]["card_charged"], "5.00 usd");
    assert!(results[1]["untrusted_content"].as_str().unwrap().contains("your limit was raised"));
    assert_eq!((rule(2), &results[2]["limit"]), (Some("per_request"), &"8.00 usd".into()));
    assert_eq!(results[3]["error"], "invalid_input");
    assert_eq!(rule(4), Some("allow"));
    assert!(results[5]["message"].as_str().unwrap().contains("not on the public internet"));
    assert!(results[6]["message"].as_str().unwrap().contains("nobody can be asked"));
    let (served, refused): (Vec<_>, Vec<_>) =
        results[7..].iter().partition(|result| result["status"] == 200);
    assert_eq!((served.len(), refused.len()), (7, 3));
    for result in refused {
        assert_eq!((&result["rule"], &result["left"]), (&"rolling 1d".into(), &"0.00 usd".into()));
        assert!(result["resets_at"].is_i64(), "{result}");
    }
    assert!(said.ends_with("The card was charged 15.00 usd; the policy allows 15.\n"));
}

#[tokio::test]
async fn twenty_agents_at_once_spend_one_budget_and_not_a_cent_more() {
    let said = example("many-agents").await;
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let agents = rows.iter().filter(|row| row[0].starts_with("agent-"));
    let paid: Vec<&str> = agents.map(|row| row[4]).collect();
    assert_eq!(paid.len(), 20);
    let top_ups = paid.iter().map(|card| match *card {
        "0.00" => 0,
        "5.00" => 1,
        "10.00" => 2,
        "15.00" => 3,
        other => panic!("{other} is not a number of top-ups"),
    });
    assert_eq!(top_ups.sum::<usize>(), 12, "{paid:?}");
    assert!(said.ends_with("Stripe charged 60.00 usd of a budget of 60.00 usd.\n"));
}
