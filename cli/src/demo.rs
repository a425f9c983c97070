//! `farebox demo`: a sandbox of Stripe, a server that charges, and an agent that pays.
//!
//! Everything is the real thing on loopback: the ledger is a file, the card is charged over HTTP,
//! the agent knows nothing of the server but its address. At the end the demo adds up what was
//! taken and what was spent, and fails if that does not agree.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use farebox_client::{Agent, Card, MaxPrice, PaymentErrorExt as _, Policy, Receipt};
use farebox_middleware::{Payer, Payments, Stripe, usd};
use farebox_protocol::{Currency, Micros, Money, Payment, header};
use farebox_sandbox::Sandbox;
use reqwest_middleware::ClientWithMiddleware;

use crate::Fault;
use crate::terminal::HEADING;
use crate::transcript::{self, Transcript};

const GOOD_CARD: &str = "4242424242424242:12:2034:123";
const DECLINED_CARD: &str = "4000000000000002:12:2034:123";

pub(crate) async fn run() -> Result<(), Fault> {
    let folder = tempfile::tempdir()?;
    let ledger = folder.path().join("demo.redb");
    let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
    let stripe = Stripe::new(sandbox.secret_key(), sandbox.publishable_key())?;
    let payments = Payments::builder(stripe.base_url(sandbox.url())?)
        .ledger(&format!("embedded:{}", ledger.display()))
        .secret(b"the demo's secret, which guards nothing")
        .open()
        .await?;

    let transcript = Transcript::default();
    let app = app(&payments)
        .layer(axum::middleware::from_fn_with_state(transcript.clone(), transcript::print));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(async move { serving.await });
    anstream::println!("A server sells jokes at {server}; Stripe's sandbox is {}.", sandbox.url());

    let totals = converse(&server, &sandbox, &transcript).await?;
    let _ = stop.send(());
    serving.await??;
    payments.close().await?;
    settle_up(&totals, &sandbox)?;
    sandbox.stop().await;
    Ok(())
}

fn app(payments: &Payments) -> Router {
    let joke = |payer: Payer| async move { format!("A joke for {:.8}.", payer.id().to_string()) };
    let fail = || async { (StatusCode::INTERNAL_SERVER_ERROR, "It broke.") };
    Router::new()
        .route("/joke", get(joke).route_layer(payments.price(usd!("0.01"))))
        .route("/novel", get(joke).route_layer(payments.price(usd!("0.90"))))
        .route("/broken", get(fail).route_layer(payments.price(usd!("0.01"))))
        .nest_service("/account", payments.account_routes())
}

/// What the demo counted on the agent's side, and what the server says at the end.
struct Totals {
    acknowledged: Micros,
    remaining: Micros,
    balance: Micros,
    requests: usize,
    payments: usize,
}

async fn converse(
    server: &str,
    sandbox: &Sandbox,
    transcript: &Transcript,
) -> Result<Totals, Fault> {
    let policy = Policy::new().allow("127.0.0.1").per_request(usd!("0.05"));
    let policy = policy.per_top_up(usd!("5")).per_day(usd!("10"));
    let agent = |card: &str| -> Result<ClientWithMiddleware, Fault> {
        let agent = Agent::new(policy.clone()).card(card.parse::<Card>()?);
        Ok(agent.tokenizer(sandbox.url())?.client(reqwest::Client::builder())?.build())
    };
    let http = agent(GOOD_CARD)?;
    let mut acknowledged = Micros::ZERO;
    let mut remaining = Micros::ZERO;

    let calls = [
        ("The first call is answered 402. The agent pays $5 by card and asks again.", "/joke"),
        ("The next call pays from that credit, in one round trip.", "/joke"),
        ("A call that fails costs nothing.", "/broken"),
        ("And one more.", "/joke"),
    ];
    for (what, path) in calls {
        heading(what);
        let seen = sandbox.calls().len();
        let response = http.get(format!("{server}{path}")).send().await?;
        for call in sandbox.calls().iter().skip(seen) {
            anstream::println!("  at Stripe: {} {} {}", call.method, call.path, call.status);
        }
        let receipt = response.extensions().get::<Receipt>().ok_or("no receipt")?;
        let charged = receipt.charged.ok_or("the receipt does not say what was charged")?;
        acknowledged = acknowledged.checked_add(charged.micros()).ok_or("out of range")?;
        remaining = receipt.remaining.micros();
        anstream::println!("  It cost {charged}; {} are left.", receipt.remaining);
    }

    heading("The policy allows 5 cents a request. A novel at 90 cents is refused, unpaid.");
    expect_refusal(&http, &format!("{server}/novel")).await?;
    heading("The caller may want less than the policy allows: this one pays half a cent at most.");
    let half = http.get(format!("{server}/joke")).with_extension(MaxPrice(usd!("0.005")));
    match half.send().await.err().as_ref().and_then(|error| error.payment()) {
        Some(reason) => anstream::println!("  {reason}"),
        None => return Err("a price above the caller's maximum was paid".into()),
    }
    heading("Another agent's card is declined. Nothing is taken, and nothing is said about why.");
    expect_refusal(&agent(DECLINED_CARD)?, &format!("{server}/joke")).await?;

    heading("The balance is free to ask for.");
    let balance = balance(server, transcript).await?;
    let seen = transcript.seen();
    let (requests, payments) = (seen.requests, seen.payments);
    Ok(Totals { acknowledged, remaining, balance, requests, payments })
}

async fn expect_refusal(http: &ClientWithMiddleware, url: &str) -> Result<(), Fault> {
    match http.get(url).send().await.err().as_ref().and_then(|error| error.payment()) {
        Some(reason) => anstream::println!("  {reason}"),
        None => return Err(format!("{url} was served though it must not be paid").into()),
    }
    Ok(())
}

/// Asks the server, with the good card's credential, what is left.
async fn balance(server: &str, transcript: &Transcript) -> Result<Micros, Fault> {
    let client_id = transcript.seen().client_id.ok_or("no credential was given out")?.parse()?;
    let payment = Payment { client_id: Some(client_id), ..Payment::default() };
    let request = reqwest::Client::new()
        .get(format!("{server}/account/balance"))
        .header(header::PAYMENT, payment.encode());
    let body = request.send().await?.text().await?;
    anstream::println!("  {body}");
    let json: serde_json::Value = serde_json::from_str(&body)?;
    let units = json["accounts"][0]["creditsRemaining"].as_i64().ok_or("no balance")?;
    let units = farebox_protocol::Units::new(units).ok_or("the balance is out of range")?;
    Ok(units.micros())
}

/// Fails unless the card, the credit and the receipts agree.
fn settle_up(totals: &Totals, sandbox: &Sandbox) -> Result<(), Fault> {
    let cents: i64 = sandbox.charges().iter().map(|charge| charge.amount).sum();
    let charged = Currency::USD.from_minor(cents).ok_or("out of range")?;
    let Totals { acknowledged, remaining, balance, requests, payments } = *totals;
    let usd = |micros| Money::new(micros, Currency::USD);
    heading("Does it add up?");
    anstream::println!("  {requests} requests, {payments} of them with a payment");
    anstream::println!("  charged to the card    {:>10}", usd(charged).to_string());
    anstream::println!("  spent, by receipt      {:>10}", usd(acknowledged).to_string());
    anstream::println!("  left, by receipt       {:>10}", usd(remaining).to_string());
    anstream::println!("  left, by balance       {:>10}", usd(balance).to_string());
    if acknowledged.checked_add(remaining) != Some(charged) || balance != remaining {
        return Err("the amounts do not agree".into());
    }
    anstream::println!("  What was charged is what was spent and what is left.");
    Ok(())
}

fn heading(text: &str) {
    anstream::println!("\n{HEADING}{text}{HEADING:#}");
}
