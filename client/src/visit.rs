//! One pass of a request through the middleware: what is sent, and with what.

use std::mem;
use std::sync::Arc;

use farebox_protocol::header::{PAYMENT, PAYMENT_RESPONSE};
use farebox_protocol::{ClientId, Money, Payment};
use http::{Extensions, HeaderName, HeaderValue, Method};
use reqwest::{Request, Response, Url};
use reqwest_middleware::Next;

use crate::approval::{ApprovalId, Question};
use crate::body::{self, AskFirst};
use crate::call::Call;
use crate::error::{PaymentError, Reason};
use crate::origin::{Origin, route};
use crate::receipt::MaxPrice;
use crate::redirect;
use crate::state::{Gate, State};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Sends that are no payment by card and that one pass may add: credit after an unpaid send, a
/// price that rose, a top-up that another call made, a redirect.
const DETOURS_MAX: u8 = 4;

pub(crate) struct Visit<'a> {
    pub(crate) origin: Origin,
    pub(crate) route: String,
    pub(crate) call: Call,
    pub(crate) max_price: Option<Money>,
    /// Whether the policy lets payments go to this origin.
    pub(crate) may_pay: bool,
    pub(crate) gate: Arc<Gate>,
    /// How many payments the gate had seen before the last send.
    pub(crate) seen: u64,
    /// The credential that was last sent, and how many payments by card there were before.
    pub(crate) tried: Option<(ClientId, u64)>,
    pub(crate) detours: u8,
    /// Without its body once one that cannot be sent again was sent.
    request: Request,
    can_send: bool,
    extensions: &'a mut Extensions,
    next: Next<'a>,
}

/// Why a pass failed.
pub(crate) enum Failure {
    Payment(PaymentError),
    Http(reqwest_middleware::Error),
}

impl From<PaymentError> for Failure {
    fn from(error: PaymentError) -> Failure {
        Failure::Payment(error)
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        Failure::Payment(PaymentError::Refused(reason))
    }
}

impl<'a> Visit<'a> {
    pub(crate) fn new(
        origin: Origin,
        state: &State,
        request: Request,
        extensions: &'a mut Extensions,
        next: Next<'a>,
    ) -> Visit<'a> {
        let gate = state.gate(&origin);
        Visit {
            route: route(request.method(), request.url()),
            call: Call::of(extensions),
            max_price: extensions.get().map(|MaxPrice(max)| *max),
            seen: gate.sent(),
            gate,
            tried: None,
            detours: DETOURS_MAX,
            may_pay: false,
            request,
            can_send: true,
            origin,
            extensions,
            next,
        }
    }

    /// Gives the request its call's `Idempotency-Key`, unless its caller gave it one.
    pub(crate) fn key(&mut self) -> Result<(), PaymentError> {
        let key = self.call.key()?;
        self.request.headers_mut().entry(IDEMPOTENCY_KEY).or_insert(key);
        Ok(())
    }

    /// Whether repeating the request by itself changes nothing at the server.
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

    /// Sends the request without its body, which stays.
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

    /// What the owner would be asked about this request.
    pub(crate) fn question(
        &self,
        id: ApprovalId,
        asked_at: i64,
        price: Money,
        top_up: Option<Money>,
    ) -> Question {
        let question =
            Question::new(id, asked_at, self.request.method(), self.request.url(), price);
        match top_up {
            Some(amount) => question.top_up(amount),
            None => question,
        }
    }

    /// Uses up a detour, if one is left.
    pub(crate) fn detour(&mut self) -> bool {
        let left = self.detours > 0;
        self.detours = self.detours.saturating_sub(1);
        left
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
        if let Some(value) = response.headers_mut().get_mut(PAYMENT_RESPONSE) {
            value.set_sensitive(true);
        }
        Ok(response)
    }

    /// Goes on at `url`, where redirects led before the price was asked. A price elsewhere is
    /// nobody's to accept: the policy and the credential are for the origin that was asked.
    pub(crate) fn arrive(&mut self, url: &Url) -> Result<(), Reason> {
        if Origin::of(url).as_ref() != Some(&self.origin) {
            return Err(Reason::Redirected);
        }
        let request = &mut self.request;
        if !self.can_send {
            return Ok(());
        }
        if request.url().path() == url.path() && request.url().query() == url.query() {
            return Ok(());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Reason::Redirected);
        }
        *request.url_mut() = url.clone();
        self.route = route(request.method(), url);
        Ok(())
    }
}

#[expect(clippy::expect_used, reason = "base64 is made of visible characters")]
fn header(payment: &Payment) -> HeaderValue {
    let mut value = HeaderValue::try_from(payment.encode()).expect("base64 is a header value");
    value.set_sensitive(true);
    value
}
