//! The answer to a call: its body untouched, or all of it as JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_client::{Money, Notice, Receipt};
use reqwest::{Response, StatusCode};
use serde::Serialize;

use super::watch::{Watch, shown};
use super::{Options, ending};
use crate::Fault;
use crate::terminal::{self, DIM};

/// What `--json` prints of an answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: u16,
    headers: BTreeMap<String, Vec<String>>,
    /// The body, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    receipt: Option<Paid>,
    events: Vec<Notice>,
}

/// What a request cost.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Paid {
    charged: Option<Money>,
    remaining: Money,
    top_up: Option<Money>,
    charge_id: Option<String>,
}

impl Paid {
    fn of(receipt: &Receipt) -> Paid {
        let Receipt { charged, remaining, top_up, charge_id, .. } = receipt.clone();
        Paid { charged, remaining, top_up, charge_id }
    }
}

pub(super) async fn answer(
    mut response: Response,
    origin: &str,
    watch: &Watch,
    options: &Options,
) -> Result<ExitCode, Fault> {
    watch.answered(&response);
    let status = response.status();
    let receipt = response.extensions().get::<Receipt>().cloned();
    if options.json {
        let mut headers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, value) in shown(response.headers()) {
            headers.entry(name.to_owned()).or_default().push(value);
        }
        let body = response.bytes().await.map_err(ended_early)?;
        let (body, body_base64) = match String::from_utf8(body.into()) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        let (receipt, events) = (receipt.as_ref().map(Paid::of), watch.notices());
        let status = status.as_u16();
        terminal::print_json(&Answer { status, headers, body, body_base64, receipt, events })?;
    } else {
        let out: &mut dyn Write = match &options.output {
            Some(path) => &mut File::create(path)
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?,
            None => &mut io::stdout().lock(),
        };
        // The receipt is told also if the body ends early: it was paid.
        let copied = copy(&mut response, out).await;
        if let Some(receipt) = &receipt {
            anstream::eprintln!("{DIM}{}{DIM:#}", words(receipt, origin));
        }
        copied?;
    }
    Ok(match status {
        status if status.is_client_error() || status.is_server_error() => {
            if !options.json && !options.verbose {
                anstream::eprintln!("farebox: the server answered {}", of(status));
            }
            ExitCode::from(ending::STATUS)
        }
        _ => ExitCode::SUCCESS,
    })
}

fn of(status: StatusCode) -> String {
    status.to_string()
}

/// Chunk by chunk, so that a long body needs no memory. A reader that has enough is no error.
async fn copy(response: &mut Response, out: &mut dyn Write) -> Result<(), Fault> {
    while let Some(chunk) = response.chunk().await.map_err(ended_early)? {
        match out.write_all(&chunk).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

fn ended_early(error: reqwest::Error) -> Fault {
    format!("the answer ended early: {}", error.without_url()).into()
}

fn words(receipt: &Receipt, origin: &str) -> String {
    let cost = match receipt.charged {
        Some(charged) => format!("cost {charged}, "),
        None => "its server does not say what it cost; ".to_owned(),
    };
    let card = receipt.top_up.map_or_else(String::new, |amount| format!("; card charged {amount}"));
    format!("{cost}{} left at {origin}{card}", receipt.remaining)
}
