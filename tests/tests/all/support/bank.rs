//! Stripe on loopback, and the cards that it knows.

use std::sync::OnceLock;
use std::time::Duration;

use farebox_middleware::Stripe;
use farebox_sandbox::{Builder, ChargeRecord, Fault, Sandbox};

/// A sandbox of Stripe, with what tests ask of it.
pub(crate) struct Bank {
    sandbox: Sandbox,
    http: reqwest::Client,
}

/// The number of a card that is known and never pays.
pub(crate) const DECLINED_CARD: &str = "4000000000000341";

/// The number of a card whose bank wants the holder at every payment.
pub(crate) const HOLDER_CARD: &str = "4000002760003184";

/// The number of the n-th card that always pays.
pub(crate) fn card(n: u32) -> String {
    numbered("424242", n)
}

/// The number of the n-th card that never pays.
pub(crate) fn dead_card(n: u32) -> String {
    numbered("400001", n)
}

fn numbered(prefix: &str, n: u32) -> String {
    let digits = format!("{prefix}{n:09}");
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = u32::from(byte - b'0');
            let doubled = if at % 2 == 0 { digit * 2 } else { digit };
            if doubled > 9 { doubled - 9 } else { doubled }
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

impl Bank {
    pub(crate) async fn open() -> Bank {
        Bank::slow(Duration::ZERO).await
    }

    /// A bank whose answers come this much later than their effect.
    pub(crate) async fn slow(latency: Duration) -> Bank {
        Bank::start(Sandbox::builder().latency(latency)).await
    }

    pub(crate) async fn start(sandbox: Builder) -> Bank {
        farebox_canary::watch();
        let sandbox = sandbox.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        // Without the system's certificates, which take longer to read than a test of one call.
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Bank { sandbox, http }
    }

    /// What the card network and the merchant's dashboard do.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    pub(crate) fn url(&self) -> &str {
        self.sandbox.url()
    }

    /// What makes a program use this bank.
    pub(crate) fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("STRIPE_SECRET_KEY", self.sandbox.secret_key().to_owned()),
            ("STRIPE_PUBLISHABLE_KEY", self.sandbox.publishable_key().to_owned()),
            ("STRIPE_API_BASE", self.url().to_owned()),
        ]
    }

    pub(crate) fn stripe(&self) -> Stripe {
        self.stripe_at(self.url())
    }

    /// Stripe as it is reached through something at `url`.
    pub(crate) fn stripe_at(&self, url: &str) -> Stripe {
        // All sandboxes have the same keys.
        static STRIPE: OnceLock<Stripe> = OnceLock::new();
        let (secret, publishable) = (self.sandbox.secret_key(), self.sandbox.publishable_key());
        let stripe = STRIPE.get_or_init(|| Stripe::new(secret, publishable).unwrap());
        stripe.clone().base_url(url).unwrap()
    }

    /// A new PaymentMethod of a card, whose owner typed the security code.
    pub(crate) async fn method(&self, number: &str) -> String {
        tokenize(&self.http, self.url(), self.sandbox.publishable_key(), number, true).await
    }

    /// As [`Bank::method`], for many at one time.
    pub(crate) async fn method_of(&self, number: String) -> String {
        self.method(&number).await
    }

    /// A new PaymentMethod of a card, made by somebody who knows its number only.
    pub(crate) async fn method_without_code(&self, number: &str) -> String {
        tokenize(&self.http, self.url(), self.sandbox.publishable_key(), number, false).await
    }

    /// A new PaymentMethod, made at any bank.
    pub(crate) async fn method_at(url: &str, publishable_key: &str, number: &str) -> String {
        tokenize(&reqwest::Client::new(), url, publishable_key, number, true).await
    }

    /// What the merchant does at Stripe by hand.
    pub(crate) async fn post(&self, path: &str, form: &str) -> serde_json::Value {
        let request = self.http.post(format!("{}{path}", self.url()));
        let request = request.bearer_auth(self.sandbox.secret_key());
        let form = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned());
        serde_json::from_str(&form.send().await.unwrap().text().await.unwrap()).unwrap()
    }

    pub(crate) fn charges(&self) -> Vec<ChargeRecord> {
        self.sandbox.charges()
    }

    /// All that was taken from cards, in units.
    pub(crate) fn charged(&self) -> i64 {
        self.charges().iter().map(|charge| charge.amount * 100).sum()
    }

    /// Lets something go wrong with requests to come.
    pub(crate) fn inject(&self, fault: Fault) {
        self.sandbox.inject(fault);
    }

    pub(crate) fn clear_faults(&self) {
        self.sandbox.clear_faults();
    }

    /// How many requests met a fault.
    pub(crate) fn faults_hit(&self) -> usize {
        self.sandbox.faults_hit()
    }

    /// The intents that may still take money, each with how it stands.
    pub(crate) async fn unfinished_intents(&self) -> Vec<String> {
        let url = format!("{}/v1/payment_intents?limit=100", self.url());
        let answer = self.http.get(url).bearer_auth(self.sandbox.secret_key()).send().await;
        let text = answer.unwrap().text().await.unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let intents = json["data"].as_array().unwrap().iter();
        let intents = intents.map(|intent| (intent["id"].as_str().unwrap(), &intent["status"]));
        let ended = ["succeeded", "canceled", "requires_payment_method"];
        let open = intents.filter(|(_, status)| !ended.contains(&status.as_str().unwrap()));
        open.map(|(id, status)| format!("{id}: {status}")).collect()
    }

    /// How often somebody asked for a charge.
    pub(crate) fn charge_calls(&self) -> usize {
        self.calls("POST", "/v1/payment_intents")
    }

    pub(crate) fn calls(&self, method: &str, path: &str) -> usize {
        self.count(|call, at| call == method && at == path)
    }

    /// How often somebody looked at a PaymentMethod.
    pub(crate) fn look_ups(&self) -> usize {
        self.count(|method, path| method == "GET" && path.starts_with("/v1/payment_methods/"))
    }

    fn count(&self, wanted: impl Fn(&str, &str) -> bool) -> usize {
        self.sandbox.calls().iter().filter(|call| wanted(&call.method, &call.path)).count()
    }
}

async fn tokenize(
    http: &reqwest::Client,
    url: &str,
    key: &str,
    number: &str,
    with_code: bool,
) -> String {
    let code = if with_code { "&card[cvc]=123" } else { "" };
    let form =
        format!("type=card&card[number]={number}&card[exp_month]=12&card[exp_year]=34{code}");
    let answer = http
        .post(format!("{url}/v1/payment_methods"))
        .bearer_auth(key)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    json["id"].as_str().unwrap_or_else(|| panic!("no card: {json}")).to_owned()
}
