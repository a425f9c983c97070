//! `farebox get`: a request that is paid for, if the policy allows it.

mod dry_run;
mod ending;
mod show;
mod watch;

use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Extensions;
use farebox_client::{Agent, MaxPrice, Money, PaymentError, PaymentErrorExt as _, PaymentKey};
use farebox_protocol::Currency;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Request, Response, StatusCode, Url};
use reqwest_middleware::ClientWithMiddleware;

use crate::Fault;
use crate::settings::{Home, Ready};
pub(crate) use ending::{ASKED, REFUSED};
use watch::Watch;

/// How long a call waits for a charge, and for its owner, if nothing is said.
const WAIT_FOR_CHARGE: Duration = Duration::from_secs(60);
const WAIT_FOR_OWNER: Duration = Duration::from_secs(10 * 60);
/// How often it is asked what became of a charge: at first, and at last.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[command(after_help = ending::HELP)]
pub(crate) struct Options {
    /// What to fetch.
    url: Url,
    /// The method; GET, or POST if there is data.
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<Method>,
    /// A header, such as 'accept: text/plain'. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The body: this text, `@FILE`, or `-` for standard input.
    #[arg(short = 'd', long = "data", value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,
    /// Write the body of the answer to this file.
    #[arg(short = 'o', long = "output", value_name = "FILE", conflicts_with_all = ["json", "dry_run"])]
    output: Option<PathBuf>,
    /// The most that this request may cost, such as 0.02 or '2 jpy'; dollars if not said.
    #[arg(long, value_name = "AMOUNT", value_parser = money)]
    max_price: Option<Money>,
    /// A name for this call: run again under the same name, it is paid once, and its owner is
    /// asked once.
    #[arg(long, value_name = "NAME", value_parser = key)]
    key: Option<PaymentKey>,
    /// Show what it would cost and what the policy says; pay nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for the owner's answer [default: 600], and for a charge whose outcome is
    /// not known or a server that asks to come back [default: 60].
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Print one line of JSON: status, headers, body, receipt and events.
    #[arg(long)]
    json: bool,
    /// Say on standard error what is sent, answered and paid.
    #[arg(short, long)]
    verbose: bool,
}

/// Reads an amount; in dollars unless it says otherwise.
pub(crate) fn money(text: &str) -> Result<Money, String> {
    let money = match text.contains(' ') {
        true => text.parse(),
        false => Money::parse(text, Currency::USD),
    };
    money.map_err(|error| error.to_string())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    const WRONG: &str = "a header is a name, a colon and a value";
    let (name, value) = text.split_once(':').ok_or(WRONG)?;
    let name = name.trim().parse().map_err(|_| WRONG)?;
    Ok((name, value.trim().parse().map_err(|_| WRONG)?))
}

fn key(text: &str) -> Result<PaymentKey, &'static str> {
    PaymentKey::new(text).ok_or("a name is 1 to 256 bytes")
}

pub(crate) async fn run(mut options: Options) -> Result<ExitCode, Fault> {
    let request = request(&mut options)?;
    let home = Home::find()?;
    let Ready { agent, policy, asks_here } = home.paying().await?;
    if options.dry_run {
        return dry_run::run(&home, &agent, policy.is_some(), request, &options).await;
    }
    let watch = Arc::new(Watch::new(asks_here, options.verbose));
    let (listener, wait) = (Arc::clone(&watch), options.wait.map(Duration::from_secs));
    let agent = agent
        .on_event(move |notice| listener.hear(notice))
        .approval_timeout(wait.unwrap_or(WAIT_FOR_OWNER));
    let call = Call { http: client(&agent)?, watch: &watch, options: &options };
    let origin = request.url().origin().ascii_serialization();
    let answered = call.make(request, wait.unwrap_or(WAIT_FOR_CHARGE)).await;
    watch.rest();
    let shown = match answered {
        Ok(response) => show::answer(response, &origin, &watch, &options).await,
        Err(error) => {
            ending::failure(&error, &home, policy.is_some(), &origin, &watch, options.json)
        }
    };
    if let Err(error) = agent.flush().await {
        anstream::eprintln!("farebox: what was spent was not written down: {error}");
    }
    shown
}

fn client(agent: &Agent) -> Result<ClientWithMiddleware, Fault> {
    Ok(agent.client(builder())?.build())
}

fn builder() -> reqwest::ClientBuilder {
    let agent = concat!("farebox/", env!("CARGO_PKG_VERSION"));
    reqwest::Client::builder().user_agent(agent).connect_timeout(Duration::from_secs(30))
}

fn request(options: &mut Options) -> Result<Request, Fault> {
    let data = options.data.take().map(|data| body(&data)).transpose()?;
    let method = match (&options.method, &data) {
        (Some(method), _) => method.clone(),
        (None, Some(_)) => Method::POST,
        (None, None) => Method::GET,
    };
    let mut request = Request::new(method, options.url.clone());
    let mut headers = HeaderMap::new();
    for (name, value) in options.headers.drain(..) {
        headers.append(name, value);
    }
    if let Some(data) = data {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.entry(CONTENT_TYPE).or_insert(form);
        *request.body_mut() = Some(data.into());
    }
    *request.headers_mut() = headers;
    Ok(request)
}

fn body(data: &str) -> Result<Vec<u8>, Fault> {
    let no = |name: &str, error: io::Error| format!("{name} cannot be read: {error}");
    match data.strip_prefix('@') {
        None if data != "-" => Ok(data.as_bytes().to_vec()),
        None | Some("-") => {
            let mut body = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut body);
            read.map_err(|error| no("standard input", error))?;
            Ok(body)
        }
        Some(path) => Ok(fs::read(path).map_err(|error| no(path, error))?),
    }
}

/// One call, made until it is answered.
struct Call<'a> {
    http: ClientWithMiddleware,
    watch: &'a Watch,
    options: &'a Options,
}

impl Call<'_> {
    /// Sends the request, and again while the outcome of its charge is not known or the server
    /// asks to come back, for at most `wait`.
    async fn make(
        &self,
        request: Request,
        wait: Duration,
    ) -> Result<Response, reqwest_middleware::Error> {
        let until = Instant::now() + wait;
        // The attempts are one call: it is paid once.
        let mut extensions = Extensions::new();
        if let Some(max) = self.options.max_price {
            extensions.insert(MaxPrice(max));
        }
        if let Some(key) = &self.options.key {
            extensions.insert(key.clone());
        }
        let mut pause = PAUSE;
        loop {
            // The body is bytes, so a copy can be made of it.
            let Some(copy) = request.try_clone() else {
                return self.http.execute_with_extensions(request, &mut extensions).await;
            };
            self.watch.sent(&copy);
            let answered = self.http.execute_with_extensions(copy, &mut extensions).await;
            let asked = match &answered {
                Ok(response) => again_after(&request, response),
                Err(error) if matches!(error.payment(), Some(PaymentError::Unknown)) => Some(pause),
                Err(_) => None,
            };
            let Some(asked) = asked.filter(|asked| Instant::now() + *asked <= until) else {
                return answered;
            };
            self.watch.wait(match answered {
                Ok(_) => "the server asks to come back",
                Err(_) => "the outcome of the charge is not known yet",
            });
            tokio::time::sleep(asked).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// When the server wants to be asked again, if asking again changes nothing by itself.
fn again_after(request: &Request, response: &Response) -> Option<Duration> {
    let busy = matches!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    (busy && request.method().is_safe()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_in_dollars_unless_it_says_otherwise() {
        assert_eq!(money("0.02").unwrap().to_string(), "0.02 usd");
        assert_eq!(money("2 jpy").unwrap().to_string(), "2 jpy");
        assert!(money("-1").is_err() && money("1 us").is_err() && money("").is_err());
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        let (name, value) = header("Accept:  text/plain ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("accept", "text/plain"));
        assert!(header("accept").is_err() && header("a b: c").is_err());
    }
}
