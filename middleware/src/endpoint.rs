//! What the account and the admin routes share: how they read queries and bodies, and answer.

use std::error::Error;

use bytes::Bytes;
use farebox_ledger::Book;
use farebox_ledger::statement::{self, Page};
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::refusal;

/// Makes a tower service of a type that has `async fn answer(&self, Request<B>)`, whose answer and
/// whose error are both answers.
macro_rules! service {
    ($service:ty) => {
        impl<B> tower_service::Service<http::Request<B>> for $service
        where
            B: http_body::Body + Send + 'static,
            B::Data: Send,
            B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        {
            type Response = crate::endpoint::Answer;
            type Error = std::convert::Infallible;
            type Future =
                std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

            fn poll_ready(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                let service = self.clone();
                Box::pin(async move {
                    Ok(service.answer(request).await.unwrap_or_else(Self::Response::from))
                })
            }
        }
    };
}

pub(crate) use service;

/// The longest body that is read.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// The lines of a statement's page, and the most of them.
const LINES: usize = 50;
const LINES_MAX: usize = 200;

pub(crate) type Answer = Response<Full<Bytes>>;

/// Why a request is not answered as it wishes, in words for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Refused {
    #[serde(skip)]
    status: StatusCode,
    error: &'static str,
    #[serde(rename = "errorCode", skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip)]
    header: Option<(HeaderName, &'static str)>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, error: &'static str) -> Refused {
        Refused { status, error, code: None, header: None }
    }

    pub(crate) fn malformed(error: &'static str) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, error).code("invalid_request")
    }

    /// `allow` are the methods that would be answered.
    pub(crate) fn method(allow: &'static str) -> Refused {
        Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not answered here")
            .header(header::ALLOW, allow)
    }

    /// For programs.
    pub(crate) fn code(self, code: &'static str) -> Refused {
        Refused { code: Some(code), ..self }
    }

    pub(crate) fn header(self, name: HeaderName, value: &'static str) -> Refused {
        Refused { header: Some((name, value)), ..self }
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Answer {
        let mut response = answer(refused.status, &refused);
        if let Some((name, value)) = refused.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// An answer that is never cached.
pub(crate) fn answer<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => refusal::json(status, body),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            refusal::json(StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    }
}

/// The JSON object that a body holds.
pub(crate) async fn read<T, B>(body: B) -> Result<T, Refused>
where
    T: DeserializeOwned,
    B: http_body::Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let bytes = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let (status, error) = (StatusCode::PAYLOAD_TOO_LARGE, "the body is above 4,096 bytes");
            return Err(Refused::new(status, error).code("invalid_request"));
        }
        Err(_) => return Err(Refused::malformed("the body did not arrive")),
    };
    // serde would also read a struct from an array of its fields.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    let read = is_object.then(|| serde_json::from_slice(&bytes).ok()).flatten();
    read.ok_or(Refused::malformed("the body is not the expected JSON object"))
}

/// The parameters of a query: these names only, each once at most. None of them needs escapes.
pub(crate) fn query<'a, const N: usize>(
    uri: &'a Uri,
    names: [&str; N],
) -> Result<[Option<&'a str>; N], Refused> {
    let unknown = Refused::malformed("the query has an unknown or a repeated parameter");
    let mut found = [None; N];
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(unknown.clone())?;
        let at = names.iter().position(|known| *known == name).ok_or(unknown.clone())?;
        if found[at].replace(value).is_some() {
            return Err(unknown);
        }
    }
    Ok(found.map(|value| value.filter(|value| !value.is_empty())))
}

/// How many are asked for: from 1 to `most`.
pub(crate) fn limit(text: Option<&str>, default: usize, most: usize) -> Result<usize, Refused> {
    let limit = match text {
        None => Some(default),
        Some(text) => text.parse().ok().filter(|limit| (1..=most).contains(limit)),
    };
    limit.ok_or(Refused::malformed("`limit` is out of range"))
}

/// The page of a statement that a query with `cursor` and `limit` asks for.
pub(crate) fn page(uri: &Uri) -> Result<impl FnOnce(&Book) -> Page, Refused> {
    let [cursor, lines] = query(uri, ["cursor", "limit"])?;
    let cursor = cursor.map(str::parse).transpose();
    let cursor = cursor.map_err(|_| Refused::malformed("`cursor` is none of ours"))?;
    let lines = limit(lines, LINES, LINES_MAX)?;
    Ok(move |book: &Book| statement::page(book, cursor, lines))
}

/// A number as it is written in a path: 1 to 65535, in one spelling.
pub(crate) fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_each_known_parameter_once() {
        let read = |text: &str| {
            query(&text.parse().unwrap(), ["a", "b"])
                .ok()
                .map(|[a, b]| (a.map(str::to_owned), b.map(str::to_owned)))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("/x"), Some((None, None)));
        assert_eq!(read("/x?"), Some((None, None)));
        assert_eq!(read("/x?b=2&a=1"), Some((some("1"), some("2"))));
        assert_eq!(read("/x?a=&b=2"), Some((None, some("2"))));
        for wrong in ["/x?a=1&a=1", "/x?c=1", "/x?a", "/x?%61=1", "/x?A=1", "/x?a=&a=1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!((number("1"), number("65535")), (Some(1), Some(65_535)));
        for wrong in ["", "0", "01", "+1", "65536", "-1", "1 ", "%31"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
