//! A sandbox and a client that speaks to it.

use std::time::Duration;

use farebox_sandbox::{Builder, ManualClock, Sandbox};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

/// 2026-09-21, so that "12/30" is a valid card.
pub(crate) const NOW: i64 = 1_790_000_000;

pub(crate) struct Api {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: ManualClock,
    pub(crate) http: reqwest::Client,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

pub(crate) struct Request<'a> {
    api: &'a Api,
    builder: reqwest::RequestBuilder,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(change: impl FnOnce(Builder) -> Builder) -> Self {
        farebox_canary::watch();
        let clock = ManualClock::at(NOW);
        let builder = change(Sandbox::builder().seed(7).clock(clock.clone()));
        let sandbox = builder.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self { sandbox, clock, http: reqwest::Client::new() }
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Request<'_> {
        let url = format!("{}{path}", self.sandbox.url());
        Request { api: self, builder: self.http.request(method, url) }
    }

    /// What the card network does, told to the sandbox over HTTP.
    pub(crate) async fn network(&self, path: &str, json: &str) -> Answer {
        let mut request = self.request(Method::POST, &format!("/sandbox/{path}"));
        request.builder = request.builder.body(json.to_owned());
        request.send().await
    }

    /// The id of a new payment of 5 dollars that succeeded.
    pub(crate) async fn paid(&self, card: &str) -> String {
        self.pay(card, "").await.ok().text("id")
    }

    /// The charge that belongs to a payment.
    pub(crate) async fn charge(&self, intent: &str) -> Answer {
        let intent = self.get(&format!("/v1/payment_intents/{intent}")).await.ok();
        self.get(&format!("/v1/charges/{}", intent.text("latest_charge"))).await.ok()
    }

    /// The kinds of all events so far, oldest first, without the first `skip`.
    pub(crate) async fn events(&self, skip: usize) -> Vec<String> {
        let events = self.get("/v1/events?limit=100").await.ok().at("data");
        let kinds = events.as_array().unwrap().iter().rev();
        kinds.skip(skip).map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// A GET with the secret key.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).secret().send().await
    }

    /// A POST with the secret key.
    pub(crate) async fn post(&self, path: &str, form: &str) -> Answer {
        self.request(Method::POST, path).secret().form(form).send().await
    }

    pub(crate) async fn post_keyed(&self, path: &str, form: &str, key: &str) -> Answer {
        let request = self.request(Method::POST, path).secret().form(form);
        request.header("idempotency-key", key).send().await
    }

    /// A card typed in and tokenized with the publishable key.
    pub(crate) async fn tokenize(&self, number: &str) -> Answer {
        let cvc = if number.len() == 15 { "1234" } else { "123" };
        let form = format!(
            "type=card&card[number]={number}&card[exp_month]=12&card[exp_year]=2030&card[cvc]={cvc}"
        );
        let request = self.request(Method::POST, "/v1/payment_methods").publishable();
        request.form(&form).send().await
    }

    /// The id of a new PaymentMethod.
    pub(crate) async fn card(&self, number: &str) -> String {
        self.tokenize(number).await.ok().text("id")
    }

    pub(crate) async fn customer(&self) -> String {
        self.post("/v1/customers", "").await.ok().text("id")
    }

    /// A payment of 5 dollars, confirmed at once; `more` begins with `&`.
    pub(crate) async fn pay(&self, card: &str, more: &str) -> Answer {
        let form = format!("{PAYMENT}&confirm=true&payment_method={card}{more}");
        self.post("/v1/payment_intents", &form).await
    }
}

pub(crate) const PAYMENT: &str = "amount=500&currency=usd&automatic_payment_methods[enabled]=true\
     &automatic_payment_methods[allow_redirects]=never";

impl Request<'_> {
    pub(crate) fn secret(self) -> Self {
        let key = self.api.sandbox.secret_key().to_owned();
        self.bearer(&key)
    }

    pub(crate) fn publishable(self) -> Self {
        let key = self.api.sandbox.publishable_key().to_owned();
        self.bearer(&key)
    }

    pub(crate) fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub(crate) fn form(mut self, form: &str) -> Self {
        self.builder = self
            .builder
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned());
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let answer = self.builder.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The value at `a.b.c`, or null.
    pub(crate) fn at(&self, path: &str) -> serde_json::Value {
        self.json().pointer(&format!("/{}", path.replace('.', "/"))).cloned().unwrap_or_default()
    }

    pub(crate) fn text(&self, path: &str) -> String {
        let value = self.at(path);
        value.as_str().unwrap_or_else(|| panic!("no text at {path} in {}", self.text)).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status, type and code of an error.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, kind: &str, code: &str) {
        let found = (self.status.as_u16(), self.at("error.type"), self.at("error.code"));
        let code = if code.is_empty() { serde_json::Value::Null } else { code.into() };
        assert_eq!(found, (status, kind.into(), code), "{}", self.text);
    }

    #[track_caller]
    pub(crate) fn is_invalid(&self, code: &str, param: &str) {
        self.is_error(400, "invalid_request_error", code);
        assert_eq!(self.at("error.param"), param, "{}", self.text);
    }
}
