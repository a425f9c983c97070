//! The same layer on a plain hyper service: one closure prices every path.
//!
//! ```text
//! cargo run -p farebox-examples --bin paid-hyper
//! ```
//!
//! `STRIPE_SECRET_KEY`, `STRIPE_PUBLISHABLE_KEY` and `STRIPE_API_BASE` say where cards are
//! charged; `FAREBOX_LISTEN` where it listens.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use farebox_middleware::{Payments, Peer, Price, Stripe, usd};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::{conn::auto, graceful::GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceExt as _;

/// What nobody thought of costs money: a path that is spelled in another way is not free.
fn price(parts: &Parts) -> Price {
    match parts.uri.path() {
        "/health" => Price::Free,
        _ => usd!("0.002").into(),
    }
}

async fn handle(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(format!("You asked for {}.\n", request.uri().path()).into()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let payments = Payments::builder(Stripe::from_env()?).ledger("memory:").open().await?;
    let service = tower::ServiceBuilder::new().layer(payments.priced_by(price)).service_fn(handle);

    let listen = std::env::var("FAREBOX_LISTEN").unwrap_or("127.0.0.1:4022".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let connections = GracefulShutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (io, address) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        };
        // The address limits how often a client tries cards.
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(address));
            request
        });
        let service = TowerToHyperService::new(service);
        let server = auto::Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(io), service).into_owned();
        tokio::spawn(connections.watch(connection));
    }
    connections.shutdown().await;
    payments.close().await?;
    Ok(())
}
