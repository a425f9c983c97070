//! A provider on this machine, for the examples that run by themselves.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use farebox_middleware::{Admission, Payments, Stripe};
use farebox_sandbox::Sandbox;

/// Serves `app`, which charges cards at `sandbox`, until the program ends. Answers its address.
pub(crate) async fn open(
    sandbox: &Sandbox,
    app: impl FnOnce(&Payments) -> Router,
) -> Result<SocketAddr, Box<dyn Error>> {
    let stripe = Stripe::new(sandbox.secret_key(), sandbox.publishable_key())?;
    let payments = Payments::builder(stripe.base_url(sandbox.url())?).ledger("memory:");
    // All payers of an example have one address, and would share the limits of one client.
    let app = app(&payments.admission(Admission::unlimited()).open().await?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
