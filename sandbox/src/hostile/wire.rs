//! HTTP by hand: a library would refuse to send half of what is sent here.
//!
//! One connection carries one request. Whatever a client does, and whatever an answer is made of,
//! the connection ends within [`PATIENCE`].

use std::time::Duration;

use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest that a connection lasts once its request was read.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Before a connection is taken again, when none could be.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
const READ_PATIENCE: Duration = Duration::from_secs(5);
const REQUEST_BYTES_MAX: usize = 256 * 1024;
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A request, as it came.
pub(super) struct Ask {
    /// Everything that was sent, for whoever looks for what should not be in it.
    pub(super) text: String,
    /// What the `payment` header says, if it is there and can be read.
    pub(super) payment: Option<Value>,
    /// Whether there is a `payment` header, readable or not.
    pub(super) pays: bool,
}

impl Ask {
    pub(super) async fn read(stream: &mut TcpStream) -> Option<Ask> {
        let read = tokio::time::timeout(READ_PATIENCE, read_request(stream)).await;
        read.ok().flatten().as_deref().and_then(Ask::parse)
    }

    fn parse(bytes: &[u8]) -> Option<Ask> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let head = text.split("\r\n\r\n").next()?;
        let header = header(head, "payment").map(str::to_owned);
        let payment = header.as_deref().and_then(decode);
        Some(Ask { pays: header.is_some(), payment, text })
    }

    /// A field of the payment that is text.
    pub(super) fn text_of(&self, field: &str) -> Option<&str> {
        self.payment.as_ref()?.get(field)?.as_str()
    }

    /// A field of the payment that is a number.
    pub(super) fn number_of(&self, field: &str) -> Option<i64> {
        self.payment.as_ref()?.get(field)?.as_i64()
    }

    /// The PaymentMethod, if one was brought.
    pub(super) fn card(&self) -> Option<&str> {
        self.text_of("paymentMethodId")
    }
}

/// The value of a header in a request's head.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Reads every dialect of base64: it is not the client's form that is judged here.
fn decode(value: &str) -> Option<Value> {
    let alphabet = if value.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let json = Engine::decode(&GeneralPurpose::new(alphabet, LENIENT), value).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The head, and of the body what its length or its last chunk says.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !is_whole(&bytes) {
        if bytes.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(bytes)
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let body = &bytes[end + 4..];
    match header(&head, "content-length").and_then(|length| length.parse().ok()) {
        Some(length) => body.len() >= length,
        None => header(&head, "transfer-encoding").is_none() || body.ends_with(b"0\r\n\r\n"),
    }
}

/// What happens on the connection after a request.
pub(super) struct Reply {
    /// Sent at once.
    pub(super) start: Vec<u8>,
    /// Sent again and again after it, with this pause.
    pub(super) again: Option<(Vec<u8>, Duration)>,
    /// Whether the connection then stays open for as long as it may.
    pub(super) lingers: bool,
}

impl Reply {
    /// The connection is cut: there is no answer.
    pub(super) fn nothing() -> Reply {
        Reply::raw(Vec::new())
    }

    /// The connection stays open: there is no answer.
    pub(super) fn silence() -> Reply {
        Reply { lingers: true, ..Reply::nothing() }
    }

    pub(super) fn raw(start: impl Into<Vec<u8>>) -> Reply {
        Reply { start: start.into(), again: None, lingers: false }
    }

    /// `start`, and then `piece` without an end.
    pub(super) fn endless(start: impl Into<Vec<u8>>, piece: &[u8], pause_millis: u64) -> Reply {
        let again = Some((piece.to_vec(), Duration::from_millis(pause_millis)));
        Reply { again, ..Reply::raw(start) }
    }

    /// Sends it, until it is sent or the client has gone.
    pub(super) async fn send(self, stream: &mut TcpStream) {
        let _out_of_patience = tokio::time::timeout(PATIENCE, self.write(stream)).await;
    }

    async fn write(self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(&self.start).await?;
        if let Some((piece, pause)) = self.again {
            loop {
                stream.write_all(&piece).await?;
                tokio::time::sleep(pause).await;
            }
        }
        if self.lingers {
            // Until the client hangs up.
            while stream.read(&mut [0; 64]).await? > 0 {}
        }
        stream.shutdown().await
    }
}

/// An answer of the usual form.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    /// With a header more.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }

    /// Without a header.
    pub(super) fn without(mut self, name: &str) -> Answer {
        self.headers.retain(|(header, _)| *header != name);
        self
    }

    pub(super) fn body(self, body: impl Into<Vec<u8>>) -> Answer {
        Answer { body: body.into(), ..self }
    }

    /// A header with a message of the protocol.
    pub(super) fn message(self, name: &'static str, message: &Value) -> Answer {
        self.with(name, base64::engine::general_purpose::STANDARD.encode(message.to_string()))
    }

    /// The status line and the headers, without the blank line that ends them.
    pub(super) fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Answer\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head
    }

    /// Everything, with the length of the body.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let head = format!("{}content-length: {}\r\n\r\n", self.head(), self.body.len());
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        Reply::raw(answer.bytes())
    }
}
