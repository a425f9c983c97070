//! Prints a conversation as it crosses the wire, with its payment headers decoded.

use std::sync::{Arc, Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use farebox_protocol::{Payment, PaymentRequired, PaymentResponse, header};

use crate::terminal::DIM;

const SENT: Style = AnsiColor::Cyan.on_default();
const ANSWERED: Style = AnsiColor::Green.on_default();
const REFUSED: Style = AnsiColor::Yellow.on_default();

/// The longest string that is shown whole.
const LONG_STRING: usize = 28;

/// What was seen so far.
#[derive(Clone, Default)]
pub(crate) struct Transcript(Arc<Mutex<Seen>>);

#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Requests that reached the server.
    pub(crate) requests: usize,
    /// Requests that carried a payment.
    pub(crate) payments: usize,
    /// The last credential that was given out.
    pub(crate) client_id: Option<String>,
}

impl Transcript {
    pub(crate) fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The outermost layer of the demo's server.
pub(crate) async fn print(
    State(transcript): State<Transcript>,
    request: Request,
    next: Next,
) -> Response {
    anstream::println!("  {SENT}> {} {}{SENT:#}", request.method(), request.uri());
    let payment = request.headers().get(header::PAYMENT);
    if let Some(payment) = payment.and_then(|value| Payment::decode(value.as_bytes()).ok()) {
        print_header("> payment", &payment);
    }
    transcript.note(|seen| {
        seen.requests += 1;
        seen.payments += usize::from(payment.is_some());
    });
    let response = next.run(request).await;
    let style = if response.status().is_success() { ANSWERED } else { REFUSED };
    anstream::println!("  {style}< {}{style:#}", response.status());
    if let Some(value) = response.headers().get(header::PAYMENT_REQUIRED)
        && let Ok(required) = PaymentRequired::decode(value.as_bytes())
    {
        print_header("< payment-required", &required);
    }
    if let Some(value) = response.headers().get(header::PAYMENT_RESPONSE)
        && let Ok(receipt) = PaymentResponse::decode(value.as_bytes())
    {
        print_header("< payment-response", &receipt);
        transcript.note(|seen| seen.client_id = Some(receipt.client_id));
    }
    response
}

/// A header's name and its JSON, in the order of the wire. Long strings are cut: they are for
/// machines, and some of them are secrets.
fn print_header(name: &str, message: &impl serde::Serialize) {
    let json = serde_json::to_string(message).unwrap_or_default();
    // Every other piece between quotation marks is the inside of a string.
    let pieces = json.split('"').enumerate().map(|(at, piece)| match piece.get(..LONG_STRING) {
        Some(start) if at % 2 == 1 && piece.len() > LONG_STRING => format!("{start}..."),
        _ => piece.to_owned(),
    });
    anstream::println!("    {DIM}{name}: {}{DIM:#}", pieces.collect::<Vec<_>>().join("\""));
}
