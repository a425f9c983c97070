//! What a payer may ask about its account, and its further credentials, for nothing.

use std::error::Error;
use std::sync::Arc;

use dashmap::DashMap;
use farebox_ledger::book::{IssuedCredential, Label};
use farebox_ledger::statement::Page;
use farebox_ledger::{Command, Head, Outcome, Proof, Timestamp};
use farebox_protocol::{
    ClientId, Credential, Currency, ErrorCode, Micros, PayerId, Payment, Units, header,
};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::endpoint::{self, Answer, Refused};
use crate::payments::Shared;
use crate::refund::RefundError;
use crate::refusal::Refusal;

/// Answers `GET balance` and `GET statement`, gives unspent credit back at `POST refund` if the
/// provider allows it, and issues, lists and revokes credentials, one per agent, at `credentials`: `spec/protocol.md` section 9 has the messages. Made by
/// [`Payments::account_routes`](crate::Payments::account_routes); on axum, mounted with
/// `nest_service("/account", ..)`.
#[derive(Clone, Debug)]
pub struct AccountService {
    pub(crate) shared: Arc<Shared>,
}

/// What is asked for, by the end of the path: the rest is where the provider mounted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Balance,
    Statement,
    Refund,
    Credentials,
    Credential(u16),
}

impl Ask {
    fn of(path: &str) -> Option<Ask> {
        let mut tail = path.rsplit('/');
        match (tail.next()?, tail.next()) {
            ("balance", _) => Some(Ask::Balance),
            ("statement", _) => Some(Ask::Statement),
            ("refund", _) => Some(Ask::Refund),
            ("credentials", _) => Some(Ask::Credentials),
            (number, Some("credentials")) => endpoint::number(number).map(Ask::Credential),
            _ => None,
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Ask::Balance | Ask::Statement => "GET, HEAD",
            Ask::Refund => "POST",
            Ask::Credentials => "GET, HEAD, POST",
            Ask::Credential(_) => "POST, DELETE",
        }
    }
}

#[derive(Serialize)]
struct Balance {
    accounts: Vec<Account>,
    /// Of a further credential that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Left>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    currency: Currency,
    credits_remaining: Units,
}

#[derive(Serialize)]
struct Left {
    currency: Currency,
    amount: Units,
    left: Units,
}

#[derive(Serialize)]
struct Credentials {
    credentials: Vec<Listed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    number: u16,
    label: Label,
    issued: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
    spent: Units,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    currency: Currency,
    amount: Units,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    label: Label,
    #[serde(default)]
    limit: Option<Limit>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued {
    client_id: ClientId,
    number: u16,
    label: Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit>,
}

/// Whose credentials are being issued. One at a time for each payer: the ledger takes a second
/// request with the same label for a repeat, and two agents must not share a credential.
#[derive(Debug, Default)]
pub(crate) struct Issuing(DashMap<PayerId, Arc<Mutex<()>>>);

impl Issuing {
    async fn alone<T>(&self, payer: PayerId, issue: impl Future<Output = T>) -> T {
        let turn = self.0.entry(payer).or_default().clone();
        let issued = {
            let _turn = turn.lock().await;
            issue.await
        };
        drop(turn);
        self.0.remove_if(&payer, |_, turn| Arc::strong_count(turn) == 1);
        issued
    }
}

/// How often a number is tried: other processes may issue to the same payer.
const ROUNDS_MAX: usize = 8;

endpoint::service!(AccountService);

impl AccountService {
    async fn answer<B>(&self, request: Request<B>) -> Result<Answer, No>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let shared = &self.shared;
        let (parts, body) = request.into_parts();
        let nothing = || Refused::new(StatusCode::NOT_FOUND, "there is nothing here");
        let ask = Ask::of(parts.uri.path()).ok_or_else(nothing)?;
        let (method, allow) = (parts.method.as_str(), ask.allow());
        if !allow.split(", ").any(|allowed| allowed == method) {
            return Err(Refused::method(allow).into());
        }
        let credential = shared.credentials.check(&client_id(&parts.headers)?);
        let holder = Holder::find(shared, credential).await?;
        match (ask, method) {
            (Ask::Balance, _) => Ok(endpoint::answer(StatusCode::OK, &balance(&holder))),
            (Ask::Statement, _) => statement(shared, &holder, &parts.uri).await,
            (Ask::Refund, _) => refund(shared, &holder, body).await,
            (Ask::Credentials, "POST") => issue(shared, holder.own()?, body).await,
            (Ask::Credentials, _) => Ok(list(&holder)?),
            (Ask::Credential(number), _) => revoke(shared, holder.own()?, number).await,
        }
    }
}

/// Why a request is not answered as it wishes.
enum No {
    /// As the account endpoint says it.
    Refused(Refused),
    /// As a payment is refused.
    Code(ErrorCode),
}

impl From<Refused> for No {
    fn from(refused: Refused) -> No {
        No::Refused(refused)
    }
}

impl From<ErrorCode> for No {
    fn from(code: ErrorCode) -> No {
        No::Code(code)
    }
}

impl From<No> for Answer {
    fn from(no: No) -> Answer {
        match no {
            No::Refused(refused) => refused.into(),
            No::Code(code) => {
                let mut response = Refusal::from(code).response(None, "");
                if code == ErrorCode::InvalidPayment {
                    *response.status_mut() = StatusCode::BAD_REQUEST; // there is nothing to pay for
                }
                response
            }
        }
    }
}

/// The credential that the request brings, which may be nobody's.
fn client_id(headers: &HeaderMap) -> Result<ClientId, ErrorCode> {
    let payment = match header::single(headers, &header::PAYMENT) {
        Ok(Some(value)) => Payment::decode(value.as_bytes()).ok(),
        _ => None,
    };
    payment.and_then(|payment| payment.client_id).ok_or(ErrorCode::InvalidPayment)
}

/// Who asks.
enum Holder {
    /// Nobody: the credential is unknown or revoked, which looks like an empty account.
    Nobody,
    /// The payer, by its own credential.
    Own(Credential, Head),
    /// An agent, by a further credential: it learns what it can spend and nothing else.
    Further(IssuedCredential, Head),
}

impl Holder {
    async fn find(shared: &Shared, credential: Option<Credential>) -> Result<Holder, No> {
        let Some(credential) = credential else { return Ok(Holder::Nobody) };
        let head = shared.load(credential.payer).await?;
        let Credential { generation, number, .. } = credential;
        if !head.accepts(&Proof::Credential { generation, number }) {
            return Ok(Holder::Nobody);
        }
        Ok(match number.and_then(|number| head.credentials.get(&number).cloned()) {
            Some(issued) => Holder::Further(issued, head),
            None => Holder::Own(credential, head),
        })
    }

    /// The payer's own credential, which alone may change something.
    fn own(&self) -> Result<Credential, Refused> {
        match self {
            Holder::Own(credential, _) => Ok(*credential),
            Holder::Nobody | Holder::Further(..) => Err(not_own()),
        }
    }
}

fn not_own() -> Refused {
    Refused::new(StatusCode::FORBIDDEN, "only the payer's own credential may do this")
        .code("own_credential_required")
}

fn balance(holder: &Holder) -> Balance {
    let (head, issued) = match holder {
        Holder::Nobody => return Balance { accounts: Vec::new(), limit: None },
        Holder::Own(_, head) => (head, None),
        Holder::Further(issued, head) => (head, Some(issued)),
    };
    let account = |(&currency, account): (_, &farebox_ledger::Account)| Account {
        currency,
        credits_remaining: account.available.units_floor(),
    };
    let limit = issued.and_then(|issued| {
        let limit = issued.limit?;
        let left = issued.left(limit.currency)?.units_floor();
        Some(Left { currency: limit.currency, amount: limit.amount.units_floor(), left })
    });
    Balance { accounts: head.accounts.iter().map(account).collect(), limit }
}

async fn statement(shared: &Shared, holder: &Holder, uri: &Uri) -> Result<Answer, No> {
    let page = endpoint::page(uri)?;
    let page = match holder {
        Holder::Nobody => Page { lines: Vec::new(), next: None },
        Holder::Own(credential, _) => page(&shared.whole_book(&credential.payer).await?),
        Holder::Further(..) => return Err(not_own().into()),
    };
    Ok(endpoint::answer(StatusCode::OK, &page))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    currency: Currency,
}

#[derive(Serialize)]
struct GivenBack {
    currency: Currency,
    /// What goes back to the payer's cards.
    refunded: Units,
    /// What may: it is not known yet, and the server goes on with it.
    pending: Units,
}

/// Gives all unspent credit back: in parts, each would cost the provider a fee.
async fn refund<B>(shared: &Arc<Shared>, holder: &Holder, body: B) -> Result<Answer, No>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Back { currency } = endpoint::read(body).await?;
    if !shared.settings.payer_refunds {
        let error = "this provider does not give credit back on request";
        return Err(Refused::new(StatusCode::FORBIDDEN, error).code("refunds_not_offered").into());
    }
    let Holder::Own(Credential { payer, .. }, head) = holder else { return Err(not_own().into()) };
    if !head.frozen.is_empty() {
        return Err(ErrorCode::AccountFrozen.into());
    }
    let (refunded, pending) = match shared.refund((*payer, currency).into(), None).await {
        Ok(refunded) => (refunded.total().micros(), refunded.pending().micros()),
        Err(RefundError::Ledger(error)) => {
            tracing::error!(%error, "a refund was not made");
            return Err(ErrorCode::LedgerUnavailable.into());
        }
        Err(_) => (Micros::ZERO, Micros::ZERO), // there is nothing to give back
    };
    let (refunded, pending) = (refunded.units_floor(), pending.units_floor());
    Ok(endpoint::answer(StatusCode::OK, &GivenBack { currency, refunded, pending }))
}

fn list(holder: &Holder) -> Result<Answer, Refused> {
    let listed = |(&number, issued): (&u16, &IssuedCredential)| Listed {
        number,
        label: issued.label.clone(),
        issued: issued.issued,
        limit: issued
            .limit
            .map(|limit| Limit { currency: limit.currency, amount: limit.amount.units_floor() }),
        spent: issued.spent.units_ceil(),
        last_used: issued.last_used,
    };
    let credentials = match holder {
        Holder::Nobody => Vec::new(),
        Holder::Own(_, head) => head.credentials.iter().map(listed).collect(),
        Holder::Further(..) => return Err(not_own()),
    };
    Ok(endpoint::answer(StatusCode::OK, &Credentials { credentials }))
}

async fn issue<B>(shared: &Shared, own: Credential, body: B) -> Result<Answer, No>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Wanted { label, limit } = endpoint::read(body).await?;
    let number = shared.issuing.alone(own.payer, new_number(shared, own, &label, limit)).await?;
    tracing::info!(payer = %own.payer, number, "a credential was issued");
    let client_id = shared.credentials.issue_further(own.payer, own.generation, number);
    let issued = Issued { client_id, number, label, limit };
    Ok(endpoint::answer(StatusCode::CREATED, &issued))
}

/// The number of a new credential.
async fn new_number(
    shared: &Shared,
    own: Credential,
    label: &Label,
    limit: Option<Limit>,
) -> Result<u16, No> {
    let Credential { payer, generation, .. } = own;
    let too_many = || {
        Refused::new(StatusCode::CONFLICT, "there are 64 further credentials; revoke one first")
            .code("too_many_credentials")
    };
    let limit = limit.map(|limit| farebox_ledger::book::Limit {
        currency: limit.currency,
        amount: limit.amount.micros(),
    });
    for _ in 0..ROUNDS_MAX {
        let head = shared.load(payer).await?;
        let number = head.issued.checked_add(1).ok_or_else(too_many)?;
        let command = Command::IssueCredential { number, label: label.clone(), limit };
        match shared.apply(&payer, &command).await? {
            Outcome::Issued { generation: now } if now == generation => return Ok(number),
            Outcome::Issued { .. } => {
                // The caller's own credential was revoked meanwhile: it gets no new one.
                let revoke = Command::RevokeCredential { number };
                shared.apply(&payer, &revoke).await?;
                return Err(not_own().into());
            }
            Outcome::TooMany => return Err(too_many().into()),
            _ => {} // another process took the number
        }
    }
    Err(ErrorCode::RateLimited.into())
}

async fn revoke(shared: &Shared, own: Credential, number: u16) -> Result<Answer, No> {
    let command = Command::RevokeCredential { number };
    shared.apply(&own.payer, &command).await?;
    tracing::info!(payer = %own.payer, number, "a credential was revoked");
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let no_store = http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(http::header::CACHE_CONTROL, no_store);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use farebox_ledger::store::{Memory, fund};
    use farebox_ledger::{Applied, Book, Due, Store, StoreError, TopUp};
    use farebox_processor::Stripe;
    use farebox_protocol::{TopUpId, usd};
    use http_body_util::{BodyExt as _, Full};
    use tower_service::Service as _;

    use super::*;
    use crate::payments::Payments;

    /// A store that lets others go first, as one behind a network does.
    struct Slow(Memory);

    impl Store for Slow {
        async fn apply(&self, payer: &PayerId, command: &Command) -> Result<Applied, StoreError> {
            tokio::task::yield_now().await;
            self.0.apply(payer, command).await
        }
        async fn load(&self, payer: &PayerId) -> Result<Head, StoreError> {
            self.0.load(payer).await
        }
        async fn top_up(&self, id: &TopUpId) -> Result<Option<TopUp>, StoreError> {
            self.0.top_up(id).await
        }
        async fn book(&self, payer: &PayerId) -> Result<Book, StoreError> {
            self.0.book(payer).await
        }
        async fn payers(&self) -> Result<Vec<PayerId>, StoreError> {
            self.0.payers().await
        }
        async fn due(&self) -> Result<Vec<Due>, StoreError> {
            self.0.due().await
        }
    }

    #[tokio::test]
    async fn requests_at_the_same_time_get_a_credential_each() {
        let payer = PayerId::from_bytes([7; 32]);
        let store = Slow(Memory::default());
        fund(&store, &payer, usd!("5")).await.unwrap();
        let stripe = Stripe::new("sk_test_1", "pk_test_1").unwrap();
        let stripe = stripe.base_url("http://127.0.0.1:1").unwrap();
        let payments = Payments::builder(stripe).store(store).secret(&[7; 32]).open().await;
        let payments = payments.unwrap();
        let own = Some(payments.shared.credentials.issue(payer, 1));
        let payment = Payment { client_id: own, ..Payment::default() }.encode();
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let request = Request::post("/account/credentials").header("payment", &payment);
            let body = Full::new(&br#"{"label":"agent"}"#[..]);
            asked.spawn(payments.account_routes().call(request.body(body).unwrap()));
        }
        let mut numbers = std::collections::BTreeSet::new();
        for answer in asked.join_all().await {
            let body = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            numbers.insert(json["number"].as_u64().unwrap());
        }
        assert_eq!(numbers, (1..=10).collect());
        assert!(payments.shared.issuing.0.is_empty(), "no turn is left behind");
    }
}
