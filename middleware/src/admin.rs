//! What the operator may ask and change, over HTTP: `farebox account`, `farebox audit` and
//! `farebox backup` speak to these routes while a server has the ledger open.
//!
//! Amounts are micros and times milliseconds since the Unix epoch. Errors are
//! `{"error": "one sentence"}`.
//!
//! | request | answer |
//! |---|---|
//! | `GET ledger` | what the ledger was made for, and how many payers it has |
//! | `GET accounts/{payer}` | a payer's accounts, freezes and credentials |
//! | `GET accounts/{payer}/statement?cursor=&limit=` | a page of its statement |
//! | `POST accounts/{payer}/freeze`, `/unfreeze` `{"reason"}` | the reasons that remain |
//! | `POST accounts/{payer}/revoke` `{}` or `{"number"}` | the generation from now on |
//! | `POST accounts/{payer}/refund` `{"currency"}`, `"amount"`, `"topUp"` if given | what was given back |
//! | `POST reconcile` `{"since", "repair"}` | what Stripe and the ledger did not agree about |
//! | `GET books?after=&limit=` | whole books, in the order of payers |

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use farebox_ledger::book::{FreezeReason, IssuedCredential, Label, Limit};
use farebox_ledger::{Account, Book, Command, FirstRecord, Head, Outcome, Timestamp};
use farebox_protocol::{Currency, ErrorCode, Micros, Money, PayerId, TopUpId, header};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header as names};
use serde::{Deserialize, Serialize};

use crate::endpoint::{self, Answer, Refused};
use crate::payments::Shared;
use crate::reconcile::{ReconcileError, Repair};
use crate::refund::{RefundError, Refundable};

/// A shorter token is refused.
const TOKEN_CHARACTERS_MIN: usize = 32;
/// The books of a page, and the most of them.
const BOOKS: usize = 100;
const BOOKS_MAX: usize = 1_000;

/// Answers the operator. Made by [`Payments::admin_routes`](crate::Payments::admin_routes).
///
/// A request is answered if it brings the token, comes from a loopback address, and names this
/// machine in its `Host`. The peer's address is axum's `ConnectInfo<SocketAddr>` (feature `axum`)
/// or a [`Peer`]; without either, requests are refused. Behind a proxy on this machine every
/// client looks local: keep these routes out of it.
///
/// The paths begin at the root: give it a listener of its own, or mount
/// it where the prefix is taken off, as axum's `nest_service` does.
#[derive(Clone)]
pub struct AdminService {
    shared: Arc<Shared>,
    token: Arc<str>,
    anywhere: bool,
}

/// The address that a request came from, for servers other than axum: put it into the request's
/// extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The token is no secret that could keep anybody out; the operator acts.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the admin token must be at least {TOKEN_CHARACTERS_MIN} characters without spaces: try `openssl rand -hex 32`"
)]
pub struct TokenError;

/// As its Display, so that a `main` that returns it prints a sentence.
impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl AdminService {
    pub(crate) fn new(shared: Arc<Shared>, token: &str) -> Result<AdminService, TokenError> {
        if token.len() < TOKEN_CHARACTERS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(TokenError);
        }
        Ok(AdminService { shared, token: token.into(), anywhere: false })
    }

    /// Also answers requests from other machines, and by other names of this one: the token is all
    /// that protects every payer's account then. Serve it by https only.
    #[must_use]
    pub fn from_anywhere(self) -> Self {
        AdminService { anywhere: true, ..self }
    }

    /// Whether whoever asks is the operator.
    fn admit(&self, parts: &Parts) -> Result<(), Refused> {
        let refuse = |error| Err(Refused::new(StatusCode::FORBIDDEN, error));
        if !self.anywhere && !is_local(parts) {
            return refuse("admin requests are answered on the machine itself only");
        }
        // A page of another site can make a browser send requests here, under that site's name.
        if !self.anywhere && !names_loopback(parts) {
            return refuse("admin requests must be sent to localhost or a loopback address");
        }
        match bearer(&parts.headers) {
            Some(token) if is_same(token.as_bytes(), self.token.as_bytes()) => Ok(()),
            _ => Err(Refused::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong")
                .header(names::WWW_AUTHENTICATE, "Bearer")),
        }
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Answer, Refused>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        self.admit(&parts)?;
        if parts.method == Method::POST {
            let peer = parts.extensions.get::<Peer>().map(|peer| peer.0).or(connected(&parts));
            tracing::info!(?peer, path = parts.uri.path(), "an admin request");
        }
        let (shared, uri) = (&self.shared, &parts.uri);
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let is_change = parts.method == Method::POST;
        let payer = |id: &str| id.parse().map_err(|_| no_book());
        let path: Vec<&str> = uri.path().split('/').collect();
        match path[..] {
            ["", "ledger"] if is_read => about(shared).await,
            ["", "books"] if is_read => books(shared, uri).await,
            ["", "accounts", id] if is_read => account(shared, payer(id)?).await,
            ["", "accounts", id, "statement"] if is_read => {
                statement(shared, payer(id)?, uri).await
            }
            ["", "accounts", id, "freeze"] if is_change => {
                freeze(shared, payer(id)?, true, body).await
            }
            ["", "accounts", id, "unfreeze"] if is_change => {
                freeze(shared, payer(id)?, false, body).await
            }
            ["", "accounts", id, "refund"] if is_change => refund(shared, payer(id)?, body).await,
            ["", "reconcile"] if is_change => reconcile(shared, body).await,
            ["", "accounts", id, "revoke"] if is_change => revoke(shared, payer(id)?, body).await,
            ["", "ledger" | "books"] | ["", "accounts", _] | ["", "accounts", _, "statement"] => {
                Err(Refused::method("GET, HEAD"))
            }
            ["", "accounts", _, "freeze" | "unfreeze" | "refund" | "revoke"]
            | ["", "reconcile"] => Err(Refused::method("POST")),
            _ => Err(Refused::new(StatusCode::NOT_FOUND, "there is nothing here")),
        }
    }
}

endpoint::service!(AdminService);

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService").field("anywhere", &self.anywhere).finish_non_exhaustive()
    }
}

/// Whether every address that is known of the peer is this machine's, and one is known.
fn is_local(parts: &Parts) -> bool {
    let peers = [parts.extensions.get::<Peer>().map(|peer| peer.0), connected(parts)];
    let mut peers = peers.iter().flatten().peekable();
    peers.peek().is_some() && peers.all(|peer| peer.ip().to_canonical().is_loopback())
}

#[cfg(feature = "axum")]
pub(crate) fn connected(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>().map(|peer| peer.0)
}

#[cfg(not(feature = "axum"))]
pub(crate) fn connected(_: &Parts) -> Option<SocketAddr> {
    None
}

/// Whether the request was sent to this machine by a name that no other site can have.
fn names_loopback(parts: &Parts) -> bool {
    let host = match header::single(&parts.headers, &names::HOST) {
        Ok(Some(value)) => match value.to_str().ok().and_then(|host| host.parse().ok()) {
            Some(host) => Some(host),
            None => return false,
        },
        Ok(None) => None,
        Err(_) => return false,
    };
    let is_loopback = |authority: &Authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>().ok();
        let is_address = address.is_some_and(|address| address.to_canonical().is_loopback());
        !authority.as_str().contains('@') && (is_address || host.eq_ignore_ascii_case("localhost"))
    };
    let mut hosts = host.iter().chain(parts.uri.authority()).peekable();
    hosts.peek().is_some() && hosts.all(is_loopback)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = header::single(headers, &names::AUTHORIZATION).ok()??.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    Some(token).filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

/// Compares without telling by its duration where the first difference is.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    a.len() == b.len() && difference == 0
}

fn no_book() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "no payer of this ledger has this id")
}

fn unavailable(_: ErrorCode) -> Refused {
    let error = "the ledger did not answer; what was asked may have been done";
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, error).header(names::RETRY_AFTER, "2")
}

/// The head of a payer that has a book: asking about anybody else must not make one.
async fn head(shared: &Shared, payer: PayerId) -> Result<Head, Refused> {
    let head = shared.load(payer).await.map_err(unavailable)?;
    if head.seq == 0 { Err(no_book()) } else { Ok(head) }
}

#[derive(Serialize)]
struct About {
    /// `null` for a store of somebody else's, which keeps no first record.
    schema: Option<u32>,
    mode: &'static str,
    account: Option<String>,
    payers: usize,
}

async fn about(shared: &Shared) -> Result<Answer, Refused> {
    #[derive(Default, Deserialize)]
    struct First {
        schema: Option<u32>,
        account: Option<String>,
    }
    let first = shared.first.as_ref().and_then(|first| serde_json::to_value(first).ok());
    let First { schema, account } =
        first.and_then(|first| serde_json::from_value(first).ok()).unwrap_or_default();
    let payers = shared.payers().await.map_err(unavailable)?.len();
    let about = About { schema, mode: shared.stripe.mode().as_str(), account, payers };
    Ok(endpoint::answer(StatusCode::OK, &about))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    payer: PayerId,
    generation: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<PayerId>,
    frozen: Vec<&'a FreezeReason>,
    credentials: Vec<Further<'a>>,
    known_cards: usize,
    accounts: Vec<Sums>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Further<'a> {
    number: u16,
    label: &'a Label,
    issued: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    spent: Micros,
    reserved: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<u32>,
}

impl<'a> Further<'a> {
    fn of((&number, credential): (&u16, &'a IssuedCredential)) -> Further<'a> {
        let IssuedCredential { label, issued, limit, spent, reserved, last_used } = credential;
        Further {
            number,
            label,
            issued: *issued,
            limit: *limit,
            spent: *spent,
            reserved: *reserved,
            last_used: *last_used,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    currency: Currency,
    available: Micros,
    reserved: Micros,
    refunding: Micros,
    spent: Micros,
    received: Micros,
    refunded: Micros,
    withdrawn: Micros,
    /// The number of the top-up whose outcome is not known yet.
    open_top_up: Option<u64>,
    /// How many have ended.
    top_ups: u64,
}

impl Sums {
    fn of((&currency, account): (&Currency, &Account)) -> Sums {
        let Account { available, reserved, refunding, spent, .. } = *account;
        let Account { received, refunded, withdrawn, open, ended, .. } = *account;
        Sums {
            currency,
            available,
            reserved,
            refunding,
            spent,
            received,
            refunded,
            withdrawn,
            open_top_up: open,
            top_ups: ended,
        }
    }
}

async fn account(shared: &Shared, payer: PayerId) -> Result<Answer, Refused> {
    let head = head(shared, payer).await?;
    let told = Told {
        payer,
        generation: head.generation,
        owner: head.owner,
        frozen: head.frozen.iter().collect(),
        credentials: head.credentials.iter().map(Further::of).collect(),
        known_cards: head.known.len(),
        accounts: head.accounts.iter().map(Sums::of).collect(),
    };
    Ok(endpoint::answer(StatusCode::OK, &told))
}

async fn statement(shared: &Shared, payer: PayerId, uri: &Uri) -> Result<Answer, Refused> {
    let page = endpoint::page(uri)?;
    head(shared, payer).await?;
    let book = shared.whole_book(&payer).await.map_err(unavailable)?;
    Ok(endpoint::answer(StatusCode::OK, &page(&book)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: FreezeReason,
}

#[derive(Serialize)]
struct Frozen {
    frozen: BTreeSet<FreezeReason>,
}

async fn freeze<B>(
    shared: &Shared,
    payer: PayerId,
    freeze: bool,
    body: B,
) -> Result<Answer, Refused>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Why { reason } = endpoint::read(body).await?;
    head(shared, payer).await?;
    let told = reason.clone();
    let command = match freeze {
        true => Command::Freeze { reason },
        false => Command::Unfreeze { reason },
    };
    if shared.apply(&payer, &command).await.map_err(unavailable)? == Outcome::TooMany {
        let error = "the payer is frozen for as many reasons as a book holds";
        return Err(Refused::new(StatusCode::CONFLICT, error));
    }
    let what = if freeze { "frozen" } else { "unfrozen" };
    tracing::info!(%payer, reason = %told, "the operator has {what} a payer");
    let frozen = head(shared, payer).await?.frozen;
    Ok(endpoint::answer(StatusCode::OK, &Frozen { frozen }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GiveBack {
    currency: Currency,
    /// In micros; without it, all that is unspent.
    #[serde(default)]
    amount: Option<Micros>,
    /// The number of the only charge that is given back.
    #[serde(default)]
    top_up: Option<u64>,
}

async fn refund<B>(shared: &Arc<Shared>, payer: PayerId, body: B) -> Result<Answer, Refused>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let GiveBack { currency, amount, top_up } = endpoint::read(body).await?;
    head(shared, payer).await?;
    let what = match top_up {
        Some(number) => Refundable::TopUp(TopUpId { payer, currency, number }),
        None => Refundable::Account(payer, currency),
    };
    let amount = amount.map(|amount| Money::new(amount, currency));
    let refunded = shared.refund(what, amount).await.map_err(|error| match error {
        RefundError::NotFound => Refused::new(StatusCode::NOT_FOUND, "there is no such charge"),
        RefundError::Ledger(error) => {
            tracing::error!(%error, "a refund was not made");
            unavailable(ErrorCode::LedgerUnavailable)
        }
        RefundError::Amount => Refused::malformed(
            "the amount must be a whole number of the currency's minor units, above zero",
        ),
        RefundError::Insufficient { .. } => {
            Refused::new(StatusCode::CONFLICT, "less than that is unspent and can be given back")
        }
    })?;
    let total = refunded.total();
    tracing::info!(%payer, %total, "the operator has given credit back");
    Ok(endpoint::answer(StatusCode::OK, &refunded))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    /// In seconds since 1970.
    since: i64,
    repair: bool,
}

async fn reconcile<B>(shared: &Arc<Shared>, body: B) -> Result<Answer, Refused>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Since { since, repair } = endpoint::read(body).await?;
    let repair = if repair { Repair::Yes } else { Repair::No };
    match shared.reconcile(since, repair).await {
        Ok(found) => Ok(endpoint::answer(StatusCode::OK, &found)),
        Err(ReconcileError::Ledger(_)) => Err(unavailable(ErrorCode::LedgerUnavailable)),
        Err(ReconcileError::Stripe(error)) => {
            tracing::error!(%error, "Stripe's list cannot be read");
            Err(Refused::new(StatusCode::BAD_GATEWAY, "Stripe's list could not be read; try again"))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    number: Option<u16>,
}

#[derive(Serialize)]
struct Revoked {
    generation: u32,
}

async fn revoke<B>(shared: &Arc<Shared>, payer: PayerId, body: B) -> Result<Answer, Refused>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Which { number } = endpoint::read(body).await?;
    head(shared, payer).await?;
    let command = match number {
        Some(number) => Command::RevokeCredential { number },
        None => Command::RevokeCredentials,
    };
    match shared.apply(&payer, &command).await.map_err(unavailable)? {
        Outcome::Revoked { generation } => {
            tracing::info!(%payer, ?number, generation, "the operator has revoked credentials");
            if number.is_none() {
                shared.forget_cards(payer);
            }
            Ok(endpoint::answer(StatusCode::OK, &Revoked { generation }))
        }
        outcome => {
            tracing::error!(%payer, ?outcome, "credentials are not revoked");
            Err(Refused::new(StatusCode::CONFLICT, "the payer has no generation left"))
        }
    }
}

#[derive(Serialize)]
struct Books<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<&'a FirstRecord>,
    books: Vec<BookOf>,
    next: Option<PayerId>,
    payers: usize,
}

#[derive(Serialize)]
struct BookOf {
    payer: PayerId,
    book: Book,
}

async fn books(shared: &Shared, uri: &Uri) -> Result<Answer, Refused> {
    let [after, most] = endpoint::query(uri, ["after", "limit"])?;
    let after: Option<PayerId> = after
        .map(str::parse)
        .transpose()
        .map_err(|_| Refused::malformed("`after` is no payer's id"))?;
    let most = endpoint::limit(most, BOOKS, BOOKS_MAX)?;
    let mut payers = shared.payers().await.map_err(unavailable)?;
    let count = payers.len();
    payers.retain(|payer| after.is_none_or(|after| *payer > after));
    let more = payers.len() > most;
    if more {
        payers.select_nth_unstable(most); // a page costs no sort of all payers
        payers.truncate(most);
    }
    payers.sort_unstable();
    let next = payers.last().copied().filter(|_| more);
    let mut books = Vec::with_capacity(payers.len());
    for payer in payers {
        books.push(BookOf { payer, book: shared.whole_book(&payer).await.map_err(unavailable)? });
    }
    let page = Books { first: shared.first.as_ref(), books, next, payers: count };
    Ok(endpoint::answer(StatusCode::OK, &page))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_to(target: &str, hosts: &[&str]) -> bool {
        let mut request = Request::get(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        names_loopback(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_a_name_of_this_machine_is_answered() {
        for host in ["localhost", "LOCALHOST:4029", "127.0.0.1:1", "127.9.9.9", "[::1]:80"] {
            assert!(sent_to("/ledger", &[host]), "{host}");
        }
        assert!(sent_to("http://localhost:4029/ledger", &[]), "HTTP/2 has no Host");
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "10.0.0.1",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost, evil.example",
            "2130706433",
        ] {
            assert!(!sent_to("/ledger", &[host]), "{host}");
        }
        assert!(!sent_to("/ledger", &[]), "no name");
        assert!(!sent_to("/ledger", &["localhost", "localhost"]), "two names");
        assert!(!sent_to("http://evil.example/ledger", &["localhost"]));
        assert!(!sent_to("http://localhost/ledger", &["evil.example"]));
    }

    #[test]
    fn a_peer_that_is_not_known_to_be_local_is_not() {
        let local = |peers: &[&str]| {
            let mut parts = Request::new(()).into_parts().0;
            if let [peer, rest @ ..] = peers {
                parts.extensions.insert(Peer(peer.parse().unwrap()));
                #[cfg(feature = "axum")]
                if let [peer] = rest {
                    let peer: SocketAddr = peer.parse().unwrap();
                    parts.extensions.insert(axum::extract::ConnectInfo(peer));
                }
            }
            is_local(&parts)
        };
        assert!(local(&["127.0.0.1:1"]) && local(&["[::1]:1"]) && local(&["[::ffff:127.0.0.1]:1"]));
        assert!(!local(&[]) && !local(&["10.0.0.1:1"]) && !local(&["0.0.0.0:1"]));
        assert!(!local(&["127.0.0.1:1", "10.0.0.1:1"]) && !local(&["10.0.0.1:1", "127.0.0.1:1"]));
    }

    #[test]
    fn tokens_are_the_same_only_if_every_byte_is() {
        assert!(is_same(b"abc", b"abc"));
        assert!(!is_same(b"abc", b"abd") && !is_same(b"abc", b"ab") && !is_same(b"", b"a"));
    }
}
