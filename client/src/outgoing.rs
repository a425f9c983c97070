//! A request that may be sent more than once: as its caller made it, and with a payment.

use std::mem;
use std::time::Duration;

use farebox_protocol::Payment;
use farebox_protocol::header::{PAYMENT, PAYMENT_RESPONSE};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Version};
use reqwest::{Request, Response, Url};
use reqwest_middleware::Next;

use crate::body::{self, AskFirst};
use crate::error::{PaymentError, Reason};
use crate::redirect;
use crate::visit::Failure;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(crate) struct Outgoing<'a> {
    /// Without its body once one that cannot be sent again was sent.
    request: Request,
    can_send: bool,
    extensions: &'a mut Extensions,
    next: Next<'a>,
}

/// What a GET or HEAD without a body is made of, besides its URL, which its answer knows: a copy of
/// the whole request would cost every call more than all else that is done for it.
pub(crate) struct Template {
    method: Method,
    headers: HeaderMap,
    version: Version,
    timeout: Option<Duration>,
}

impl Template {
    pub(crate) fn suffices(request: &Request) -> bool {
        request.body().is_none() && matches!(*request.method(), Method::GET | Method::HEAD)
    }

    pub(crate) fn of(request: &Request) -> Template {
        Template {
            method: request.method().clone(),
            headers: request.headers().clone(),
            version: request.version(),
            timeout: request.timeout().copied(),
        }
    }

    /// The request once more, at `url`.
    pub(crate) fn at(self, url: Url) -> Request {
        let mut request = Request::new(self.method, url);
        *request.headers_mut() = self.headers;
        *request.version_mut() = self.version;
        *request.timeout_mut() = self.timeout;
        request
    }
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(
        request: Request,
        extensions: &'a mut Extensions,
        next: Next<'a>,
    ) -> Outgoing<'a> {
        Outgoing { request, can_send: true, extensions, next }
    }

    pub(crate) fn method(&self) -> &Method {
        self.request.method()
    }

    pub(crate) fn url(&self) -> &Url {
        self.request.url()
    }

    /// What its caller said of it, and what earlier attempts left.
    pub(crate) fn extensions(&mut self) -> &mut Extensions {
        self.extensions
    }

    /// Gives it this `Idempotency-Key`, unless its caller gave it one.
    pub(crate) fn key(&mut self, key: HeaderValue) {
        self.request.headers_mut().entry(IDEMPOTENCY_KEY).or_insert(key);
    }

    /// Whether repeating it by itself changes nothing at the server.
    pub(crate) fn is_safe(&self) -> bool {
        self.request.method().is_safe()
    }

    /// Keeps a streamed body of at most `limit` bytes in memory, so that it can be sent again.
    pub(crate) async fn keep_body(&mut self, limit: usize) -> Result<(), Failure> {
        let empty = body::without_body(&self.request);
        let request = mem::replace(&mut self.request, empty);
        let kept = body::replayable(request, limit).await;
        self.request = kept.map_err(|error| Failure::Http(error.into()))?;
        Ok(())
    }

    /// Whether the price is to be asked with an empty body: the real one can be sent only once.
    pub(crate) fn asks_first(&self) -> bool {
        self.is_streamed() && self.extensions.get::<AskFirst>().is_some()
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.request.body().is_some_and(|body| body.as_bytes().is_none())
    }

    /// Sends it without its body, which stays.
    pub(crate) async fn ask(&mut self) -> Result<Response, Failure> {
        let mut empty = body::without_body(&self.request);
        empty.headers_mut().remove(IDEMPOTENCY_KEY);
        let sent = self.next.clone().run(empty, self.extensions);
        redirect::scope(true, sent).await.map_err(Failure::Http)
    }

    /// Whether it can be sent (again).
    pub(crate) fn can_send(&self) -> bool {
        self.can_send
    }

    pub(crate) async fn send(&mut self, payment: Option<&Payment>) -> Result<Response, Failure> {
        if !self.can_send {
            return Err(PaymentError::BodyNotReplayable.into());
        }
        let copy = self.request.try_clone();
        self.can_send = copy.is_some();
        let copy = copy.unwrap_or_else(|| body::without_body(&self.request));
        let mut request = mem::replace(&mut self.request, copy);
        if let Some(payment) = payment {
            request.headers_mut().insert(PAYMENT, header(payment));
        }
        let sent = self.next.clone().run(request, self.extensions);
        let mut response = redirect::scope(payment.is_none(), sent).await.map_err(Failure::Http)?;
        // It repeats the credential, and callers print responses.
        if payment.is_some()
            && let Some(value) = response.headers_mut().get_mut(PAYMENT_RESPONSE)
        {
            value.set_sensitive(true);
        }
        Ok(response)
    }

    /// Goes on at `url`, where redirects led before the price was asked. Only a GET or HEAD that
    /// was redirected is the same request there.
    pub(crate) fn go_on_at(&mut self, url: &Url) -> Result<(), Reason> {
        let here = self.request.url();
        if !self.can_send || (here.path() == url.path() && here.query() == url.query()) {
            return Ok(());
        }
        if !matches!(*self.request.method(), Method::GET | Method::HEAD) {
            return Err(Reason::Redirected);
        }
        *self.request.url_mut() = url.clone();
        Ok(())
    }
}

#[expect(clippy::expect_used, reason = "base64 is made of visible characters")]
fn header(payment: &Payment) -> HeaderValue {
    let mut value = HeaderValue::try_from(payment.encode()).expect("base64 is a header value");
    value.set_sensitive(true);
    value
}
