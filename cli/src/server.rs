//! The admin routes of a running server.

use std::time::Duration;

use farebox_ledger::book::FreezeReason;
use farebox_ledger::statement::{Cursor, Page};
use farebox_ledger::{Book, FirstRecord};
use farebox_middleware::Reconciliation;
use farebox_protocol::PayerId;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Fault;
use crate::refund::{Ask, Given};
use crate::sheet::Sheet;
use crate::source::unknown;
use crate::terminal::tame;

/// How long an answer may take that needs the ledger only.
const QUICK: Duration = Duration::from_secs(60);
/// How long one may take that needs Stripe: it lists a hundred charges a second, or fewer.
const SLOW: Duration = Duration::from_secs(6 * 3_600);
/// What to do if a question, or a change, was not answered.
const AGAIN: &str = "try again";
const LOOK_FIRST: &str = "it may have done what was asked, so look before you try again";
/// How many books are asked for at once.
const BOOKS: usize = 500;
/// The most lines of a statement that the routes give at once; more are refused.
const LINES_MAX: usize = 200;

pub(crate) struct Server {
    base: Url,
    token: HeaderValue,
    http: Client,
}

#[derive(Deserialize)]
pub(crate) struct BooksPage {
    /// A store of somebody else's has none.
    #[serde(default)]
    pub(crate) first: Option<FirstRecord>,
    pub(crate) books: Vec<BookRow>,
    #[serde(default)]
    pub(crate) next: Option<PayerId>,
    pub(crate) payers: usize,
}

#[derive(Deserialize)]
pub(crate) struct BookRow {
    pub(crate) payer: PayerId,
    pub(crate) book: Book,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

#[derive(Deserialize)]
struct Frozen {
    frozen: Vec<String>,
}

#[derive(Deserialize)]
struct Revoked {
    generation: u32,
}

impl Server {
    pub(crate) fn new(url: &str, token: &str) -> Result<Server, Fault> {
        let no =
            || format!("{} is not the address of a server: use http://127.0.0.1:PORT", tame(url));
        // A path below which the routes are: joining must not cut its last part.
        let base = Url::parse(&format!("{}/", url.trim_end_matches('/'))).map_err(|_| no())?;
        let loopback = match base.host_str() {
            Some(host) => {
                let host = host.trim_matches(['[', ']']);
                host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            None => return Err(no().into()),
        };
        match base.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err("the admin token would cross the network in the clear: use https, or a tunnel to loopback".into()),
            _ => return Err(no().into()),
        }
        let token = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut token = token.map_err(|_| "the admin token has characters that no token has")?;
        token.set_sensitive(true);
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5));
        let http = if loopback { http.no_proxy() } else { http };
        Ok(Server { base, token, http: http.build()? })
    }

    pub(crate) async fn sheet(&self, payer: PayerId) -> Result<Sheet, Fault> {
        self.get(&format!("accounts/{payer}"), Some(payer)).await
    }

    /// Whether the ledger has a book of this payer.
    pub(crate) async fn knows(&self, payer: PayerId) -> Result<bool, Fault> {
        let request = self.http.get(self.base.join(&format!("accounts/{payer}"))?).timeout(QUICK);
        let (status, body) = self.exchange(request, AGAIN).await?;
        match status {
            StatusCode::NOT_FOUND if refusal(&body).is_some() => Ok(false),
            status => self.read::<Sheet>(status, &body, None).map(|_| true),
        }
    }

    pub(crate) async fn reconcile(
        &self,
        since: i64,
        repair: bool,
    ) -> Result<Reconciliation, Fault> {
        let body = serde_json::json!({ "since": since, "repair": repair });
        self.post("reconcile", &body, None, SLOW).await
    }

    pub(crate) async fn refund(&self, payer: PayerId, ask: &Ask) -> Result<Given, Fault> {
        let path = format!("accounts/{payer}/refund");
        self.post(&path, &serde_json::to_value(ask)?, None, SLOW).await
    }

    pub(crate) async fn statement(
        &self,
        payer: PayerId,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Fault> {
        let from = from.map_or_else(String::new, |from| format!("&cursor={from}"));
        let path = format!("accounts/{payer}/statement?limit={}{from}", limit.min(LINES_MAX));
        self.get(&path, Some(payer)).await
    }

    pub(crate) async fn freeze(
        &self,
        payer: PayerId,
        reason: &FreezeReason,
        freeze: bool,
    ) -> Result<Vec<String>, Fault> {
        let path = format!("accounts/{payer}/{}", if freeze { "freeze" } else { "unfreeze" });
        let body = serde_json::json!({ "reason": reason });
        let Frozen { frozen } = self.post(&path, &body, Some(payer), QUICK).await?;
        Ok(frozen)
    }

    pub(crate) async fn revoke(&self, payer: PayerId, number: Option<u16>) -> Result<u32, Fault> {
        let body = match number {
            Some(number) => serde_json::json!({ "number": number }),
            None => serde_json::json!({}),
        };
        let path = format!("accounts/{payer}/revoke");
        let Revoked { generation } = self.post(&path, &body, Some(payer), QUICK).await?;
        Ok(generation)
    }

    pub(crate) async fn books(&self, after: Option<PayerId>) -> Result<BooksPage, Fault> {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        self.get(&format!("books?limit={BOOKS}{after}"), None).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, of: Option<PayerId>) -> Result<T, Fault> {
        let request = self.http.get(self.base.join(path)?).timeout(QUICK);
        let (status, body) = self.exchange(request, AGAIN).await?;
        self.read(status, &body, of)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
        of: Option<PayerId>,
        within: Duration,
    ) -> Result<T, Fault> {
        let request = self.http.post(self.base.join(path)?).timeout(within);
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        let (status, body) = self.exchange(request, LOOK_FIRST).await?;
        self.read(status, &body, of)
    }

    /// Asks, and says what to do if no answer comes.
    async fn exchange(
        &self,
        request: RequestBuilder,
        advice: &str,
    ) -> Result<(StatusCode, Vec<u8>), Fault> {
        let at = &self.base;
        let response = request.header(AUTHORIZATION, self.token.clone()).send().await;
        let response = response.map_err(|error| match error.is_connect() {
            true => format!("no server answers at {at}: start it, or say --ledger"),
            false => format!("the server at {at} did not answer: {advice} ({error})"),
        })?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| {
            format!("the answer of the server at {at} ended early: {advice} ({error})")
        })?;
        Ok((status, body.into()))
    }

    fn read<T: DeserializeOwned>(
        &self,
        status: StatusCode,
        body: &[u8],
        of: Option<PayerId>,
    ) -> Result<T, Fault> {
        let at = &self.base;
        match (status, of, refusal(body)) {
            (StatusCode::OK, ..) => serde_json::from_slice(body).map_err(|error| {
                format!("{at} does not answer as admin routes do: check --url ({error})").into()
            }),
            (StatusCode::UNAUTHORIZED, ..) => {
                Err("the server refuses the token: set FAREBOX_ADMIN_TOKEN to its admin token"
                    .into())
            }
            (StatusCode::NOT_FOUND, Some(payer), Some(_)) => {
                Err(unknown(payer, &format!("at {at}")))
            }
            (_, _, Some(Refusal { error })) => {
                Err(format!("the server refuses ({}): {}", status.as_u16(), tame(&error)).into())
            }
            (_, _, None) => {
                let status = status.as_u16();
                Err(format!("there are no admin routes at {at} ({status}): check --url").into())
            }
        }
    }
}

fn refusal(body: &[u8]) -> Option<Refusal> {
    serde_json::from_slice(body).ok()
}
