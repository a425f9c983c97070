use std::io;
use std::sync::{Arc, Mutex};

use farebox_protocol::ErrorCode;
use http::StatusCode;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{
    CARD, CREDENTIAL, PK, Seen, Server, agent, answer, answering, client, honest, offer, policy,
    refused, tokenizer,
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_in_logs_at_any_level_nor_in_errors() {
    let log = Log::default();
    let subscriber = || {
        let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE);
        subscriber.with_writer(log.clone()).finish()
    };
    // For the whole process: every test that runs beside this one is looked at too. Where
    // `scripts/canary` does that already, for this thread, in which all of this test runs.
    let taken = tracing::subscriber::set_global_default(subscriber()).is_err();
    let _own = taken.then(|| tracing::subscriber::set_default(subscriber()));

    let stripe = tokenizer().await;
    let (_, served) = honest(100).await;
    let echo = Server::start(|seen: &Seen| {
        let body = seen.body.replace('"', "");
        let body =
            format!(r#"{{"error":{{"type":"card_error","code":"{body}","message":"{body}"}}}}"#);
        answer(StatusCode::PAYMENT_REQUIRED, &body)
    })
    .await;
    let declined = answering(|_| refused(ErrorCode::CardDeclined)).await;
    let failed = answering(|_| answer(StatusCode::BAD_GATEWAY, "")).await;
    let asked = Server::start(|_: &Seen| offer(100, None)).await;

    let mut told = String::new();
    for (server, stripe) in
        [(&served, &stripe), (&declined, &stripe), (&failed, &stripe), (&asked, &echo)]
    {
        let agent = agent(policy(), stripe);
        told += &format!("{agent:?}");
        let http = client(&agent);
        for _ in 0..2 {
            if let Err(error) = http.get(server.url("/joke")).send().await {
                told += &format!("{error} {error:?}");
            }
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("offer seen") && log.contains("paid by card"), "nothing was logged");
    assert!(told.contains("Stripe refused the card"), "{told}");
    for secret in [&CARD[..16], "4242+4242", PK, CREDENTIAL, "pm_1", "card%5Bcvc%5D=987"] {
        assert!(!log.contains(secret), "{secret} was logged");
        assert!(!told.contains(secret), "{secret} was told");
    }
}

/// Counts payments, and prints requests as a careless layer would.
#[derive(Clone, Default)]
struct Prints(Arc<Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Prints {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        if request.headers().contains_key("payment") {
            self.0.lock().unwrap().push(format!("{request:?}"));
        }
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_printed_request_or_answer_does_not_show_its_payment() {
    let (_, server) = honest(100).await;
    let stripe = tokenizer().await;
    let prints = Prints::default();
    let builder = agent(policy(), &stripe).client(reqwest::Client::builder().no_proxy()).unwrap();
    let http = builder.with(prints.clone()).build();
    for _ in 0..2 {
        let response = http.get(server.url("/joke")).send().await.unwrap();
        assert!(format!("{response:?}").contains(r#""payment-response": Sensitive"#));
    }
    let printed = prints.0.lock().unwrap().clone();
    assert_eq!(printed.len(), 2, "one by card, one from credit");
    assert!(printed.iter().all(|text| text.contains(r#""payment": Sensitive"#)), "{printed:?}");
}
