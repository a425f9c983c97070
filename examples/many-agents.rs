//! Twenty agents at once, each with a card and a state of its own, under one budget.
//!
//! ```text
//! cargo run -p farebox-examples --bin many-agents
//! ```
//!
//! Everything runs in this process: a sandbox of Stripe, three servers that sell pages, and the
//! agents, who read until the budget refuses. The program fails unless the cards were charged
//! what the agents say, and no more than the budget.

mod shop;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use axum::{Router, routing::get};
use farebox_client::{
    Agent, Budget, Card, Currency, Micros, Money, PaymentError, PaymentErrorExt as _, Policy,
    Receipt, usd,
};
use farebox_sandbox::Sandbox;
use tokio::task::JoinSet;

const AGENTS: u64 = 20;
const SERVERS: usize = 3;
/// How many pages an agent wants of every server.
const PAGES: usize = 6;
const PRICE: Money = usd!("0.50");
const BUDGET: Money = usd!("60");

type Fault = Box<dyn Error + Send + Sync>;

/// What became of one agent.
#[derive(Default)]
struct Row {
    name: String,
    pages: usize,
    spent: i64,
    card: i64,
    refused: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(
            shop::open(&sandbox, |payments| {
                let page = get(|| async { "A page." }).route_layer(payments.price(PRICE));
                Router::new().route("/page", page)
            })
            .await?,
        );
    }

    // One file, and one handle on it for all; other processes could open the same file.
    let folder = tempfile::tempdir()?;
    let budget = Budget::file(folder.path().join("team.budget"))?;
    let policy = Policy::new().allow("127.0.0.1").per_request(PRICE).per_top_up(usd!("5"));
    let policy = policy.lifetime(BUDGET);

    let mut running = JoinSet::new();
    for n in 0..AGENTS {
        let agent = agent(n, policy.clone(), &budget, folder.path(), sandbox.url())?;
        let (servers, name) = (servers.clone(), format!("agent-{n:02}"));
        running.spawn(read(name, agent, servers));
    }
    let mut rows = Vec::new();
    while let Some(ended) = running.join_next().await {
        rows.push(ended?.map_err(|fault| fault as Box<dyn Error>)?);
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    print(&rows)?;
    settle_up(&rows, &sandbox)
}

/// An agent with a state of its own: credit and payments in flight are its, the budget is not.
fn agent(
    n: u64,
    policy: Policy,
    budget: &Budget,
    folder: &Path,
    tokenizer: &str,
) -> Result<Agent, Box<dyn Error>> {
    let card: Card = format!("{}:12:2034:123", number(n)).parse()?;
    let agent = Agent::new(policy).card(card).budget(budget.clone());
    Ok(agent.state(folder.join(format!("agent-{n:02}.json")))?.tokenizer(tokenizer)?)
}

/// Reads pages of every server. The budget's refusal is final: nothing comes back to it.
async fn read(name: String, agent: Agent, servers: Vec<SocketAddr>) -> Result<Row, Fault> {
    let http = agent.client(reqwest::Client::builder())?.build();
    let mut row = Row { name, ..Row::default() };
    for server in servers {
        for _ in 0..PAGES {
            let response = match http.get(format!("http://{server}/page")).send().await {
                Ok(response) => response,
                Err(error) => match error.payment() {
                    Some(PaymentError::Refused(_)) => {
                        row.refused += 1;
                        break;
                    }
                    _ => return Err(error.into()),
                },
            };
            let receipt = response.extensions().get::<Receipt>().ok_or("a page was free")?;
            row.pages += 1;
            row.spent += receipt.charged.map_or(0, |charged| charged.micros().get());
            row.card += receipt.top_up.map_or(0, |amount| amount.micros().get());
        }
    }
    Ok(row)
}

fn print(rows: &[Row]) -> Result<(), Box<dyn Error>> {
    println!("{:10} {:>5}  {:>10}  {:>10}  {:>7}", "agent", "pages", "spent", "card", "refused");
    let sum = |part: fn(&Row) -> i64| rows.iter().map(part).sum::<i64>();
    let count = |part: fn(&Row) -> usize| rows.iter().map(part).sum::<usize>();
    let total = Row {
        name: "total".to_owned(),
        pages: count(|row| row.pages),
        spent: sum(|row| row.spent),
        card: sum(|row| row.card),
        refused: count(|row| row.refused),
    };
    for Row { name, pages, spent, card, refused } in rows.iter().chain([&total]) {
        let (spent, card) = (dollars(*spent)?.to_string(), dollars(*card)?.to_string());
        println!("{name:10} {pages:>5}  {spent:>10}  {card:>10}  {refused:>7}");
    }
    Ok(())
}

/// Fails unless the cards were charged what the agents say, and no more than the budget.
fn settle_up(rows: &[Row], sandbox: &Sandbox) -> Result<(), Box<dyn Error>> {
    let cents: i64 = sandbox.charges().iter().map(|charge| charge.amount).sum();
    let charged = Currency::USD.from_minor(cents).ok_or("out of range")?;
    let said: i64 = rows.iter().map(|row| row.card).sum();
    let spent: i64 = rows.iter().map(|row| row.spent).sum();
    println!("Stripe charged {} of a budget of {BUDGET}.", dollars(charged.get())?);
    if charged > BUDGET.micros() {
        return Err("the cards were charged more than the budget".into());
    }
    if said != charged.get() || spent > charged.get() {
        return Err("the receipts do not agree with Stripe".into());
    }
    Ok(())
}

fn dollars(micros: i64) -> Result<Money, Box<dyn Error>> {
    Ok(Money::new(Micros::new(micros).ok_or("out of range")?, Currency::USD))
}

/// The number of the `n`th test card: with its check digit, as Stripe wants it.
fn number(n: u64) -> u64 {
    let body = 424_242_424_200_000 + n;
    let doubled = (0..15).map(|place| {
        let digit = body / 10_u64.pow(place) % 10;
        match (place % 2 == 0, digit) {
            (true, 5..) => digit * 2 - 9,
            (true, _) => digit * 2,
            (false, _) => digit,
        }
    });
    body * 10 + (10 - doubled.sum::<u64>() % 10) % 10
}
