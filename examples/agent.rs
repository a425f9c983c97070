//! A client that pays: `agent URL...`
//!
//! ```text
//! FAREBOX_CARD=4242424242424242:12:34:123 STRIPE_API_BASE=http://127.0.0.1:PORT \
//!     cargo run -p farebox-examples --bin agent -- http://127.0.0.1:4020/api/joke
//! ```
//!
//! `FAREBOX_POLICY` is a policy in TOML; without it, the servers that are named get small amounts.
//! `FAREBOX_STATE` is a file that keeps credit and budget for the next time.

use std::error::Error;

use farebox_client::{Agent, Card, PaymentErrorExt as _, Policy, Receipt, usd};
use reqwest::Url;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let urls: Result<Vec<Url>, _> = std::env::args().skip(1).map(|url| url.parse()).collect();
    let urls = urls.ok().filter(|urls| !urls.is_empty()).unwrap_or_else(|| {
        eprintln!("usage: agent URL...\n  FAREBOX_CARD=number:mm:yy:cvc pays");
        std::process::exit(2)
    });
    let mut agent = Agent::new(policy(&urls)?).card(Card::from_env("FAREBOX_CARD")?);
    if let Ok(path) = std::env::var("FAREBOX_STATE") {
        agent = agent.state(path)?;
    }
    if let Ok(base) = std::env::var("STRIPE_API_BASE") {
        agent = agent.tokenizer(&base)?;
    }
    let http = agent.client(reqwest::Client::builder())?.build();

    for url in urls {
        let response = match http.get(url.clone()).send().await {
            Ok(response) => response,
            Err(error) => match error.payment() {
                Some(reason) => {
                    println!("{url}: {reason}");
                    continue;
                }
                None => return Err(error.into()),
            },
        };
        let (status, receipt) =
            (response.status(), response.extensions().get::<Receipt>().cloned());
        println!("{url}: {status}: {}", response.text().await?.trim_end());
        match receipt {
            Some(Receipt { charged: Some(charged), remaining, .. }) => {
                println!("  cost {charged}, {remaining} left");
            }
            Some(Receipt { remaining, .. }) => println!("  {remaining} left"),
            None => println!("  free"),
        }
    }
    Ok(())
}

/// What the owner wrote down, or else small amounts for the servers of `urls`.
fn policy(urls: &[Url]) -> Result<Policy, Box<dyn Error>> {
    if let Ok(path) = std::env::var("FAREBOX_POLICY") {
        let policy = Policy::from_toml(&std::fs::read_to_string(path)?)?;
        policy.warnings().iter().for_each(|warning| eprintln!("{warning}"));
        return Ok(policy);
    }
    let policy = Policy::new().per_request(usd!("0.10")).per_top_up(usd!("5")).per_day(usd!("20"));
    let hosts = urls.iter().map(|url| url.host_str().unwrap_or_default());
    Ok(hosts.fold(policy, Policy::allow))
}
