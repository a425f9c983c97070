//! A stand-in for the admin routes of a server, over books in memory. The real ones are tested
//! with the command in `tests/`.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use farebox_ledger::store::Memory;
use farebox_ledger::{Book, Command, Outcome, Store as _, statement};
use farebox_protocol::PayerId;
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "a token of the tests";
/// The most that a page holds here, so that pages are turned.
const PAGE: usize = 1;

type Ledger = State<Arc<Memory>>;
type Answer = Result<Json<Value>, Response>;

/// The value of a parameter that needs no decoding.
fn asked<T: std::str::FromStr>(query: &RawQuery, name: &str) -> Option<T> {
    let pairs = query.0.as_deref()?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    Some(value.parse().ok().unwrap())
}

/// Serves `ledger`; where.
pub(crate) async fn serve(ledger: Memory) -> String {
    let routes = Router::new()
        .route("/accounts/{payer}", get(account))
        .route("/accounts/{payer}/statement", get(statement_of))
        .route("/accounts/{payer}/{what}", post(act))
        .route("/books", get(books))
        .layer(middleware::from_fn(guard))
        .with_state(Arc::new(ledger));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/admin", listener.local_addr().unwrap());
    let app = Router::new().nest("/admin", routes);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn guard(request: Request, next: Next) -> Response {
    let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    match token == Some(&format!("Bearer {TOKEN}")) {
        true => next.run(request).await,
        false => refuse(StatusCode::UNAUTHORIZED, "no such token"),
    }
}

async fn known(ledger: &Memory, payer: &str) -> Result<(PayerId, Book), Response> {
    let payer: PayerId = payer.parse().unwrap();
    let book = ledger.book(&payer).await.unwrap();
    if book.head.seq == 0 {
        return Err(refuse(StatusCode::NOT_FOUND, "no such payer"));
    }
    Ok((payer, book))
}

async fn account(State(ledger): Ledger, Path(payer): Path<String>) -> Answer {
    let (payer, Book { head, .. }) = known(&ledger, &payer).await?;
    let accounts = head.accounts.iter().map(|(currency, account)| {
        json!({
            "currency": currency, "available": account.available, "reserved": account.reserved,
            "refunding": account.refunding, "spent": account.spent,
            "received": account.received, "refunded": account.refunded,
            "withdrawn": account.withdrawn, "openTopUp": account.open, "topUps": account.ended,
        })
    });
    let credentials = head.credentials.iter().map(|(number, credential)| {
        json!({
            "number": number, "label": credential.label, "issued": credential.issued, "spent": credential.spent,
            "reserved": credential.reserved,
        })
    });
    Ok(Json(json!({
        "payer": payer, "generation": head.generation, "frozen": head.frozen,
        "credentials": credentials.collect::<Vec<_>>(), "knownCards": head.known.len(),
        "accounts": accounts.collect::<Vec<_>>(),
    })))
}

async fn statement_of(State(ledger): Ledger, Path(payer): Path<String>, query: RawQuery) -> Answer {
    let (_, book) = known(&ledger, &payer).await?;
    let cursor = asked(&query, "cursor");
    let limit: usize = asked(&query, "limit").unwrap();
    if limit > 200 {
        return Err(refuse(StatusCode::BAD_REQUEST, "`limit` is out of range"));
    }
    Ok(Json(json!(statement::page(&book, cursor, limit.min(PAGE)))))
}

async fn act(
    State(ledger): Ledger,
    Path((payer, what)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Answer {
    let (payer, _) = known(&ledger, &payer).await?;
    let reason = || body["reason"].as_str().unwrap().parse().unwrap();
    let number = body["number"].as_u64().map(|number| u16::try_from(number).unwrap());
    let command = match (what.as_str(), number) {
        ("freeze", _) => Command::Freeze { reason: reason() },
        ("unfreeze", _) => Command::Unfreeze { reason: reason() },
        (_, Some(number)) => Command::RevokeCredential { number },
        (_, None) => Command::RevokeCredentials,
    };
    match ledger.apply(&payer, &command).await.unwrap().outcome {
        Outcome::Revoked { generation } => Ok(Json(json!({ "generation": generation }))),
        _ => Ok(Json(json!({ "frozen": ledger.load(&payer).await.unwrap().frozen }))),
    }
}

async fn books(State(ledger): Ledger, query: RawQuery) -> Answer {
    let mut payers = ledger.payers().await.unwrap();
    let count = payers.len();
    payers.sort_unstable();
    if let Some(after) = asked::<PayerId>(&query, "after") {
        payers.retain(|payer| *payer > after);
    }
    let next = if payers.len() > PAGE { payers.get(PAGE - 1).copied() } else { None };
    payers.truncate(PAGE);
    let mut books = Vec::new();
    for payer in payers {
        books.push(json!({ "payer": payer, "book": ledger.book(&payer).await.unwrap() }));
    }
    Ok(Json(json!({ "first": crate::first(), "books": books, "next": next, "payers": count })))
}
