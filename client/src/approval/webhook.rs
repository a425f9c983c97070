//! An owner's service, asked over HTTP.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::approval::{Answer, ApprovalId, Approver, ApproverError, Question};
use crate::error::ConfigError;
use crate::service;

/// How long the service is asked to keep a look open while there is no answer.
const WAIT_SECONDS: u64 = 55;
const PUT_TIMEOUT: Duration = Duration::from_secs(15);
const GET_TIMEOUT: Duration = Duration::from_secs(WAIT_SECONDS + 15);
/// The most that is read of an answer.
const BODY_BYTES_MAX: usize = 4 * 1_024;

/// An [`Approver`] that puts questions to a service of the owner, which asks a human by whatever
/// means it likes. `spec/approvals.md` says what the service does.
///
/// It follows no redirect, and takes an answer for an approval only if it is well-formed and
/// names this question and its fingerprint. It keeps nothing: a question is put again before each
/// look, so another process can go on with it.
///
/// ```
/// use farebox_client::Webhook;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let approver = Webhook::new("https://approvals.example.com/farebox")?.token("a secret".into())?;
/// assert!(Webhook::new("http://approvals.example.com/farebox").is_err(), "only on loopback");
/// # Ok(())
/// # }
/// ```
#[expect(missing_debug_implementations, reason = "it holds a token")]
pub struct Webhook {
    base: Url,
    token: Option<SecretString>,
    client: Client,
}

/// What the service says.
#[derive(Deserialize)]
struct Told {
    id: ApprovalId,
    fingerprint: String,
    // Not an enum: serde_json would read one from an object, too.
    status: String,
}

impl Webhook {
    /// The service at `base`; questions are put below it, each under its id.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Approver`] for anything but https, or http on loopback, and for an address
    /// with a user, a query or a fragment. [`ConfigError::Client`] when the system's TLS cannot be
    /// set up.
    pub fn new(base: &str) -> Result<Webhook, ConfigError> {
        let base = service::base(base).ok_or(ConfigError::Approver)?;
        let client = service::client(&base, GET_TIMEOUT).map_err(ConfigError::Client)?;
        Ok(Webhook { base, token: None, client })
    }

    /// What the service knows this agent by; it is sent as a bearer token.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Approver`] when the token cannot be sent in a header.
    pub fn token(mut self, token: SecretString) -> Result<Webhook, ConfigError> {
        bearer(&token).ok_or(ConfigError::Approver)?;
        self.token = Some(token);
        Ok(self)
    }

    /// Sends `request` and reads the answer to `question`.
    async fn look(
        &self,
        request: RequestBuilder,
        question: &Question,
    ) -> Result<Answer, ApproverError> {
        let bearer = self.token.as_ref().and_then(bearer);
        let request = match bearer {
            Some(bearer) => request.header(AUTHORIZATION, bearer),
            None => request,
        };
        // The error is dropped here: it could name an address, and says nothing to a caller.
        let response = request.send().await.map_err(|_| ApproverError::Unavailable)?;
        let status = response.status().as_u16();
        if !matches!(status, 200 | 202) {
            return Err(ApproverError::Status(status));
        }
        read(&body(response).await?, question)
    }
}

impl Approver for Webhook {
    async fn ask(&self, question: &Question) -> Result<Answer, ApproverError> {
        let url = service::below(&self.base, &question.id.to_string());
        let json = serde_json::to_vec(question).map_err(|_| ApproverError::Malformed)?;
        let put = self.client.put(&url).header(CONTENT_TYPE, "application/json").body(json);
        let answer = self.look(put.timeout(PUT_TIMEOUT), question).await?;
        if answer != Answer::Pending {
            return Ok(answer);
        }
        let get = self.client.get(format!("{url}?wait={WAIT_SECONDS}"));
        self.look(get, question).await
    }
}

fn bearer(token: &SecretString) -> Option<HeaderValue> {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).ok()?;
    bearer.set_sensitive(true);
    Some(bearer)
}

/// A body to its end: half of one could be a whole answer.
async fn body(mut response: Response) -> Result<Vec<u8>, ApproverError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| ApproverError::Unavailable)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(ApproverError::Malformed);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The answer to `question` in `body`.
fn read(body: &[u8], question: &Question) -> Result<Answer, ApproverError> {
    // serde would take an array for an object.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApproverError::Malformed);
    }
    let told: Told = serde_json::from_slice(body).map_err(|_| ApproverError::Malformed)?;
    let answer = match told.status.as_str() {
        "approved" => Answer::Approved,
        "denied" => Answer::Denied,
        "pending" => Answer::Pending,
        _ => return Err(ApproverError::Malformed),
    };
    if told.id != question.id || told.fingerprint != question.fingerprint().to_string() {
        return Err(ApproverError::OtherQuestion);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use farebox_protocol::usd;
    use http::Method;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::Value;

    use super::*;

    fn question() -> Question {
        let url = "https://api.example.com/joke".parse().unwrap();
        let id = ApprovalId::from_bytes([0xab; 16]);
        Question::new(id, 1_700_000_000, &Method::GET, &url, usd!("0.02"))
    }

    fn approval() -> String {
        let (id, fingerprint) = (question().id, question().fingerprint());
        format!(r#"{{"id":"{id}","fingerprint":"{fingerprint}","status":"approved"}}"#)
    }

    #[test]
    fn a_token_is_not_printed_with_its_request() {
        let bearer = bearer(&"hush".into()).unwrap();
        assert_eq!(bearer.as_bytes(), b"Bearer hush");
        assert_eq!(format!("{bearer:?}"), "Sensitive");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_altered_answer_approves_another_question(
            edits in vec((any::<Index>(), any::<u8>(), 0_u8..3), 0..4),
        ) {
            let mut body = approval().into_bytes();
            for (at, byte, how) in edits {
                let at = at.index(body.len());
                match how {
                    0 => body[at] = byte,
                    1 => body.insert(at, byte),
                    _ => drop(body.remove(at)),
                }
            }
            let good: Value = serde_json::from_str(&approval()).unwrap();
            let approves = serde_json::from_slice(&body).is_ok_and(|told: Value| {
                ["id", "fingerprint", "status"].iter().all(|name| told[name] == good[name])
            });
            let approved = matches!(read(&body, &question()), Ok(Answer::Approved));
            prop_assert_eq!(approved, approves, "{:?}", String::from_utf8_lossy(&body));
        }
    }
}
