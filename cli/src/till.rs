//! What asks Stripe about a ledger: a running server, or this process in place of one.

use std::path::Path;
use std::pin::pin;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header::AUTHORIZATION};
use farebox_middleware::{
    AdminService, Money, PayerId, Payments, Reconciliation, RefundError, Refundable, Repair, Stripe,
};
use farebox_protocol::TopUpId;
use tower_service::Service as _;

use crate::Fault;
use crate::refund::{Ask, Given};
use crate::server::Server;
use crate::sheet::Sheet;
use crate::source::{At, Place, Source, patiently, unknown, variable};

/// Of routes that only this process can reach.
const TOKEN: &str = "the-routes-of-this-process-are-not-served";
/// More than any account's sheet.
const SHEET_BYTES_MAX: usize = 1 << 20;

pub(crate) enum Till {
    /// A running server's admin routes.
    Server(Server),
    /// The ledger itself, opened as a server opens it. [`Till::close`] it.
    Own { payments: Payments, routes: AdminService },
}

impl Till {
    pub(crate) async fn open(place: Place) -> Result<Till, Fault> {
        let url = match place.find()? {
            At::Server(server) => return Ok(Till::Server(server)),
            At::Ledger(url) => url,
        };
        let stripe = Stripe::from_env().map_err(|error| {
            format!(
                "{error}: on the ledger itself, this command asks Stripe with the keys of its \
                 server; or ask a running server with --url"
            )
        })?;
        drop(Source::store(&url).await?); // it exists, and no server has its file: none is made
        need_secret(&url)?;
        let payments = patiently(Payments::builder(stripe).ledger(&url).open()).await?;
        let routes = payments.admin_routes(TOKEN)?.from_anywhere();
        Ok(Till::Own { payments, routes })
    }

    pub(crate) async fn sheet(&self, payer: PayerId) -> Result<Sheet, Fault> {
        match self {
            Till::Server(server) => server.sheet(payer).await,
            Till::Own { routes, .. } => match sheet(routes, payer).await? {
                Some(sheet) => Ok(sheet),
                None => Err(unknown(payer, "in this ledger")),
            },
        }
    }

    /// Whether the ledger has a book of this payer.
    pub(crate) async fn knows(&self, payer: PayerId) -> Result<bool, Fault> {
        match self {
            Till::Server(server) => server.knows(payer).await,
            Till::Own { routes, .. } => Ok(sheet(routes, payer).await?.is_some()),
        }
    }

    /// Compares with Stripe's charges since `since`, in seconds since 1970.
    pub(crate) async fn reconcile(
        &self,
        since: i64,
        repair: bool,
    ) -> Result<Reconciliation, Fault> {
        match self {
            Till::Server(server) => server.reconcile(since, repair).await,
            Till::Own { payments, .. } => {
                let repair = if repair { Repair::Yes } else { Repair::No };
                Ok(payments.reconcile(since, repair).await?)
            }
        }
    }

    /// Gives credit back.
    pub(crate) async fn refund(&self, payer: PayerId, ask: &Ask) -> Result<Given, Fault> {
        let payments = match self {
            Till::Server(server) => return server.refund(payer, ask).await,
            Till::Own { payments, .. } => payments,
        };
        let Ask { currency, amount, top_up } = *ask;
        let what = match top_up {
            Some(number) => Refundable::TopUp(TopUpId { payer, currency, number }),
            None => Refundable::Account(payer, currency),
        };
        let amount = amount.map(|amount| Money::new(amount, currency));
        match payments.refund(what, amount).await {
            Ok(refunded) => Ok(serde_json::from_value(serde_json::to_value(refunded)?)?),
            Err(RefundError::NotFound) => Err("there is no such charge: `farebox account \
                                               statement` lists the top-ups"
                .into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends what this process began. What has not ended goes on when a server starts.
    pub(crate) async fn close(self) {
        if let Till::Own { payments, .. } = self
            && let Err(error) = payments.close().await
        {
            anstream::eprintln!("farebox: {error}");
        }
    }
}

/// A secret that is made up would be another ledger's.
fn need_secret(url: &str) -> Result<(), Fault> {
    let beside = url.strip_prefix("embedded:").map(|path| format!("{path}.secret"));
    let is_beside = beside.as_ref().is_some_and(|path| Path::new(path).exists());
    if is_beside || variable("FAREBOX_SECRET").is_some() {
        return Ok(());
    }
    let nor = beside.map_or_else(String::new, |path| format!(", and there is no {path}"));
    Err(format!(
        "FAREBOX_SECRET is not set{nor}: set it to the secret of the ledger's server, or ask a \
         running server with --url"
    )
    .into())
}

/// A payer's sheet, as the routes of this process tell it; `None`: there is no such payer.
async fn sheet(routes: &AdminService, payer: PayerId) -> Result<Option<Sheet>, Fault> {
    let request = Request::get(format!("/accounts/{payer}"))
        .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(Body::empty())?;
    let answer = routes.clone().call(request).await?;
    let status = answer.status();
    let body = to_bytes(Body::new(answer.into_body()), SHEET_BYTES_MAX).await?;
    match status {
        StatusCode::OK => Ok(Some(serde_json::from_slice(&body)?)),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err("the ledger did not answer: try again".into()),
    }
}

/// Waits for `work` unless somebody interrupts it, so that a till can be closed all the same.
pub(crate) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Fault>>,
    then: &'static str,
) -> Result<T, Fault> {
    let work = pin!(work);
    tokio::select! {
        done = work => done,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            Err(format!("it was interrupted: {then}").into())
        }
    }
}
