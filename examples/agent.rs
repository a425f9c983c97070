//! A client that pays: `agent URL...`
//!
//! ```text
//! FAREBOX_CARD=4242424242424242:12:34:123 STRIPE_API_BASE=http://127.0.0.1:PORT \
//!     cargo run -p farebox-examples --bin agent -- http://127.0.0.1:4020/api/joke
//! ```

use std::error::Error;

use farebox_client::{Agent, Card, PaymentErrorExt as _, Policy, Receipt, usd};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let urls: Result<Vec<reqwest::Url>, _> =
        std::env::args().skip(1).map(|url| url.parse()).collect();
    let urls = urls.ok().filter(|urls| !urls.is_empty()).unwrap_or_else(|| {
        eprintln!("usage: agent URL...\n  FAREBOX_CARD=number:mm:yy:cvc pays");
        std::process::exit(2)
    });
    let mut policy =
        Policy::new().per_request(usd!("0.10")).per_top_up(usd!("5")).per_day(usd!("20"));
    for url in &urls {
        policy = policy.allow(url.host_str().unwrap_or_default());
    }
    let mut agent = Agent::new(policy).card(Card::from_env("FAREBOX_CARD")?);
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
