// What the doc tests of the guides share: a provider that charges cards at a sandbox of Stripe.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use axum::{Router, routing::get};
use farebox_middleware::{Payments, Stripe, usd};
use farebox_sandbox::Sandbox;

/// Sells `/page` at 0.01 usd and `/book` at 2 usd. Answers its address.
pub async fn open(sandbox: &Sandbox) -> Result<String, Box<dyn Error>> {
    open_losing(sandbox, 0).await
}

/// The same; the first `lost` answers to requests with a payment never reach their client.
pub async fn open_losing(sandbox: &Sandbox, lost: usize) -> Result<String, Box<dyn Error>> {
    let stripe = Stripe::new(sandbox.secret_key(), sandbox.publishable_key())?;
    let payments = Payments::builder(stripe.base_url(sandbox.url())?).ledger("memory:");
    let payments = payments.open().await?;
    let left = Arc::new(AtomicUsize::new(lost));
    let lose = move |request: Request, next: Next| {
        let left = Arc::clone(&left);
        async move {
            let paid = request.headers().contains_key("payment");
            let answer = next.run(request).await;
            let one_less = |left: usize| left.checked_sub(1);
            if paid && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                return StatusCode::BAD_GATEWAY.into_response();
            }
            answer
        }
    };
    let app = Router::new()
        .route("/page", get(|| async { "a page" }).route_layer(payments.price(usd!("0.01"))))
        .route("/book", get(|| async { "a book" }).route_layer(payments.price(usd!("2"))))
        .layer(axum::middleware::from_fn(lose));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}
