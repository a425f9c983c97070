//! Faults on demand: what goes wrong between a client and Stripe, at a request of one's choice.
//!
//! Sources: Stripe's pages "Low-level error handling", "Idempotent requests" and "Rate limits".

use std::fmt;
use std::str::FromStr;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// One thing to go wrong, and the requests that it happens to.
///
/// A request meets the faults in the order in which they were injected, and the first that has
/// something for it applies. What an earlier fault took, a later one does not count.
///
/// As JSON it is one flat object; as text, as [`FromStr`] reads it, the method and the path and
/// then the name of the kind, with whatever else there is as `name=value`:
///
/// ```
/// use farebox_sandbox::{Fault, FaultKind};
///
/// let fault: Fault = "POST /v1/payment_intents server_error ran=true skip=1".parse()?;
/// let same = Fault::at("POST", "/v1/payment_intents", FaultKind::ServerError { ran: true }).skip(1);
/// assert_eq!(fault, same);
/// assert_eq!(
///     serde_json::to_value(&fault)?,
///     serde_json::json!({
///         "method": "POST", "path": "/v1/payment_intents", "skip": 1, "times": 1,
///         "kind": "server_error", "ran": true,
///     })
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Words")]
pub struct Fault {
    /// `POST` or `GET`.
    pub method: String,
    /// Without the query, e.g. `/v1/payment_intents`. A segment `*` matches any one segment.
    pub path: String,
    /// Matching requests that pass first.
    pub skip: u32,
    /// Matching requests that it happens to, after those.
    pub times: u32,
    /// What happens.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What goes wrong. "Runs" means that the request takes effect and that its answer is saved under
/// its idempotency key, so that a repeat under this key gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// The request runs and is answered after this many milliseconds; until then its key is in
    /// use.
    Latency {
        /// How long the answer waits.
        millis: u64,
    },
    /// HTTP 429 with the code `rate_limit`: nothing runs, nothing is saved.
    RateLimited,
    /// HTTP 409 with the code `idempotency_key_in_use`: nothing runs, nothing is saved.
    Conflict,
    /// HTTP 500 with the type `api_error`, which is saved under the key and replayed. A request
    /// that is refused before it would run, or that is a repeat, gets its usual answer.
    ServerError {
        /// Whether Stripe failed after the effect was committed rather than before.
        ran: bool,
    },
    /// HTTP 401 with the code `api_key_expired`, as while a key is rolled: nothing runs, nothing is
    /// saved.
    Unauthorized,
    /// The TCP connection is reset without an answer, and nothing runs.
    ResetBefore,
    /// The request runs, and the TCP connection is reset without an answer.
    ResetAfter,
    /// The request runs, and its answer is an HTTP message that is complete, with JSON that is
    /// not: the second half is missing.
    Truncated,
    /// HTTP 502 with an HTML page, as proxies make it.
    BadGateway {
        /// Whether the request ran.
        ran: bool,
    },
    /// No answer for a minute, or until the client goes away or the sandbox stops; then the
    /// connection is reset. The key is not in use meanwhile.
    Stall {
        /// Whether the request ran.
        ran: bool,
    },
}

impl Fault {
    /// A fault for the first request of this method and path.
    #[must_use]
    pub fn at(method: &str, path: &str, kind: FaultKind) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), skip: 0, times: 1, kind }
    }

    /// Lets this many matching requests pass first.
    #[must_use]
    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Happens to this many requests rather than to one.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        let (mut pattern, mut segments) = (self.path.split('/'), path.split('/'));
        self.method == method
            && loop {
                match (pattern.next(), segments.next()) {
                    (None, None) => break true,
                    (Some(wanted), Some(segment)) if wanted == "*" || wanted == segment => {}
                    _ => break false,
                }
            }
    }
}

/// The faults that are still to come.
#[derive(Default)]
pub(crate) struct Faults {
    waiting: Vec<Fault>,
    hit: usize,
}

impl Faults {
    pub(crate) fn inject(&mut self, fault: Fault) {
        if fault.times > 0 {
            self.waiting.push(fault);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn waiting(&self) -> &[Fault] {
        &self.waiting
    }

    pub(crate) fn hit(&self) -> usize {
        self.hit
    }

    /// What goes wrong with this request, if anything does.
    pub(crate) fn strike(&mut self, method: &str, path: &str) -> Option<FaultKind> {
        let struck = self.waiting.iter_mut().position(|fault| {
            let matches = fault.matches(method, path);
            let passes = matches && fault.skip > 0;
            fault.skip -= u32::from(passes);
            matches && !passes
        })?;
        let fault = &mut self.waiting[struck];
        let kind = fault.kind;
        fault.times -= 1;
        if fault.times == 0 {
            self.waiting.remove(struck);
        }
        self.hit += 1;
        Some(kind)
    }
}

/// Stripe fails while it executes a request.
#[derive(Clone, Copy)]
pub(crate) enum Crash {
    BeforeEffect,
    AfterEffect,
}

/// What a client hears of a [`Crash`].
pub(crate) fn crashed() -> ApiError {
    ApiError::server("An unknown error occurred. (The sandbox was told to fail here.)")
}

/// What a client hears whose key has been rolled.
pub(crate) fn key_expired() -> ApiError {
    ApiError::invalid("Expired API Key provided. (The sandbox was told to say so.)")
        .code("api_key_expired")
        .status(StatusCode::UNAUTHORIZED)
}

/// A fault as it was written, before it is known to make sense.
#[derive(Deserialize)]
struct Words {
    method: String,
    path: String,
    #[serde(default)]
    skip: u32,
    #[serde(default = "once")]
    times: u32,
    #[serde(flatten)]
    kind: Map<String, Value>,
}

fn once() -> u32 {
    1
}

impl TryFrom<Words> for Fault {
    type Error = InvalidFault;

    fn try_from(words: Words) -> Result<Self, InvalidFault> {
        let Words { method, path, skip, times, kind } = words;
        if !["GET", "POST"].contains(&method.as_str()) {
            return Err(InvalidFault(format!("the method is GET or POST, not `{method}`")));
        }
        if !path.starts_with("/v1/") {
            return Err(InvalidFault(format!("the path begins with /v1/, unlike `{path}`")));
        }
        let read = FaultKind::deserialize(Value::Object(kind.clone()))
            .map_err(|error| InvalidFault(error.to_string()))?;
        // A kind without fields would take any.
        let known = serde_json::to_value(read).unwrap_or_default();
        match kind.keys().find(|name| known.get(name.as_str()).is_none()) {
            None => Ok(Self { method, path, skip, times, kind: read }),
            Some(name) => Err(InvalidFault(format!("this kind of fault has no `{name}`"))),
        }
    }
}

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let mut words = text.split_whitespace();
        let (Some(method), Some(path), Some(kind)) = (words.next(), words.next(), words.next())
        else {
            return Err(InvalidFault(
                "a fault is a method, a path and a kind, e.g. `POST /v1/payment_intents \
                 reset_after`"
                    .to_owned(),
            ));
        };
        let mut fields = Map::new();
        for (name, word) in [("method", method), ("path", path), ("kind", kind)] {
            fields.insert(name.to_owned(), word.into());
        }
        for word in words {
            let value = word
                .split_once('=')
                .and_then(|(name, value)| Some((name, serde_json::from_str::<Value>(value).ok()?)));
            let Some((name, value)) = value.filter(|(_, value)| !value.is_string()) else {
                return Err(InvalidFault(format!(
                    "after the kind come settings such as skip=1, not `{word}`"
                )));
            };
            if fields.insert(name.to_owned(), value).is_some() {
                return Err(InvalidFault(format!("`{name}` is there twice")));
            }
        }
        serde_json::from_value(Value::Object(fields))
            .map_err(|error| InvalidFault(error.to_string()))
    }
}

/// Why a fault could not be read. Whoever wrote it has to write it differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidFault(String);

impl fmt::Display for InvalidFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidFault {}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultKind, Faults};

    const PAY: &str = "/v1/payment_intents";

    #[test]
    fn a_star_is_one_segment() {
        let fault = |path: &str| Fault::at("POST", path, FaultKind::Conflict);
        let one = "/v1/payment_intents/pi_1/confirm";
        assert!(fault("/v1/payment_intents/*/confirm").matches("POST", one));
        assert!(fault(one).matches("POST", one));
        assert!(!fault(one).matches("GET", one));
        for other in ["/v1/payment_intents/*", "/v1/payment_intents/*/*/*", "/v1/*/confirm", PAY] {
            assert!(!fault(other).matches("POST", one), "{other}");
        }
    }

    #[test]
    fn faults_apply_in_order_and_count_what_reaches_them() {
        let mut faults = Faults::default();
        faults.inject(Fault::at("POST", PAY, FaultKind::Conflict).times(0));
        faults.inject(Fault::at("POST", PAY, FaultKind::RateLimited).skip(1).times(2));
        faults.inject(Fault::at("POST", PAY, FaultKind::ResetAfter));
        faults.inject(Fault::at("POST", PAY, FaultKind::Conflict).skip(1));
        assert_eq!(faults.strike("GET", PAY), None);
        let struck: Vec<_> = (0..6).map(|_| faults.strike("POST", PAY)).collect();
        let expected = [
            Some(FaultKind::ResetAfter),
            Some(FaultKind::RateLimited),
            Some(FaultKind::RateLimited),
            None,
            Some(FaultKind::Conflict),
            None,
        ];
        assert_eq!(struck, expected);
        assert_eq!(faults.hit(), 4);
        assert!(faults.waiting.is_empty());
    }

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        for (text, kind) in [
            ("latency millis=5", FaultKind::Latency { millis: 5 }),
            ("rate_limited", FaultKind::RateLimited),
            ("conflict", FaultKind::Conflict),
            ("server_error ran=true", FaultKind::ServerError { ran: true }),
            ("unauthorized", FaultKind::Unauthorized),
            ("reset_before", FaultKind::ResetBefore),
            ("reset_after", FaultKind::ResetAfter),
            ("truncated", FaultKind::Truncated),
            ("bad_gateway ran=false", FaultKind::BadGateway { ran: false }),
            ("stall ran=true", FaultKind::Stall { ran: true }),
        ] {
            let fault = Fault::at("GET", PAY, kind).skip(2).times(3);
            assert_eq!(format!("GET {PAY} {text} times=3 skip=2").parse(), Ok(fault.clone()));
            let json = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&json).unwrap(), fault, "{json}");
        }
        assert_eq!(
            format!("POST {PAY} conflict").parse(),
            Ok(Fault::at("POST", PAY, FaultKind::Conflict))
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (text, words) in [
            ("", "a fault is a method, a path and a kind"),
            ("POST /v1/customers", "a fault is a method, a path and a kind"),
            ("post /v1/customers conflict", "the method is GET or POST, not `post`"),
            ("POST /customers conflict", "the path begins with /v1/"),
            ("POST /v1/customers explode", "unknown variant `explode`"),
            ("POST /v1/customers stall", "missing field `ran`"),
            ("POST /v1/customers stall ran=1", "expected a boolean"),
            ("POST /v1/customers conflict ran=true", "this kind of fault has no `ran`"),
            ("POST /v1/customers latency ran=true millis=1", "this kind of fault has no `ran`"),
            ("POST /v1/customers conflict tmies=1", "this kind of fault has no `tmies`"),
            ("POST /v1/customers conflict skip=-1", "expected u32"),
            ("POST /v1/customers conflict skip", "settings such as skip=1, not `skip`"),
            ("POST /v1/customers conflict skip=1 skip=2", "`skip` is there twice"),
            ("POST /v1/customers conflict kind=true", "`kind` is there twice"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
