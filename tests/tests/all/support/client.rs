//! A client that sends exactly what a test says, and reads answers as the specification does.

use std::future::Future;

use farebox_protocol::{ErrorCode, Payment, PaymentRequired, PaymentResponse, Units};
use futures_util::future::join_all;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn is_served(&self) -> bool {
        self.status == 200
    }

    /// What a served request cost, and the credential that paid for it.
    pub(crate) fn receipt(&self) -> PaymentResponse {
        let value = self.headers.get("payment-response");
        let value = value.unwrap_or_else(|| panic!("no receipt: {self:?}"));
        PaymentResponse::decode(value.as_bytes()).unwrap()
    }

    pub(crate) fn charged(&self) -> i64 {
        self.receipt().charged.unwrap().get()
    }

    pub(crate) fn remaining(&self) -> i64 {
        self.receipt().credits_remaining.get()
    }

    pub(crate) fn credential(&self) -> String {
        self.receipt().client_id
    }

    pub(crate) fn offer(&self) -> Option<PaymentRequired> {
        let value = self.headers.get("payment-required")?;
        Some(PaymentRequired::decode(value.as_bytes()).unwrap())
    }

    /// Why it was refused; the body and the header never disagree.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        let refusal = PaymentResponse::from_json(self.body.as_bytes()).ok();
        let told = refusal.and_then(|refusal| refusal.error_code);
        let offered = self.offer().and_then(|offer| offer.error);
        assert!(told.is_none() || offered.is_none() || told == offered, "{self:?}");
        told.or(offered)
    }

    /// The body of a refused payment.
    pub(crate) fn refusal(&self) -> PaymentResponse {
        PaymentResponse::from_json(self.body.as_bytes()).unwrap()
    }
}

/// A first payment: a card, and 5 dollars to take from it.
pub(crate) fn by_card(method: &str) -> Payment {
    let payment_method_id = Some(method.parse().unwrap());
    Payment { payment_method_id, top_up_amount: Units::new(50_000), ..Payment::default() }
}

/// A payment from credit.
pub(crate) fn by_credential(credential: &str) -> Payment {
    Payment { client_id: Some(credential.parse().unwrap()), ..Payment::default() }
}

/// GET with a payment. An error is a request that was not answered.
pub(crate) async fn get(
    http: &reqwest::Client,
    url: &str,
    payment: &Payment,
) -> reqwest::Result<Answer> {
    send(http, Method::GET, url, &[&payment.encode()]).await
}

/// Any method, and any number of `payment` headers with any values.
pub(crate) async fn send(
    http: &reqwest::Client,
    method: Method,
    url: &str,
    payments: &[&str],
) -> reqwest::Result<Answer> {
    let mut request = http.request(method, url);
    for payment in payments {
        request = request.header("payment", *payment);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}

/// Writes a request byte for byte: URLs are not normalised on the way. Answers the status.
pub(crate) async fn raw(address: &str, target: &str, payment: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nhost: api\r\npayment: {payment}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap()
}

/// Many clients at once, over few connections: each carries up to 125 requests at a time.
pub(crate) struct Crowd(Vec<reqwest::Client>);

impl Crowd {
    pub(crate) fn gather() -> Crowd {
        let client = || reqwest::Client::builder().no_proxy().http2_prior_knowledge().build();
        Crowd((0..8).map(|_| client().unwrap()).collect())
    }

    /// Runs `one` for each of `count` clients, all at the same time.
    pub(crate) async fn all<F, T>(
        &self,
        count: usize,
        one: impl Fn(reqwest::Client, usize) -> F,
    ) -> Vec<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let client = |n: usize| self.0[n % self.0.len()].clone();
        let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(one(client(n), n))).collect();
        join_all(tasks).await.into_iter().map(Result::unwrap).collect()
    }
}
