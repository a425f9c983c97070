//! One pass of a request through the middleware, from the moment on when money is at stake.

use std::sync::Arc;

use farebox_protocol::{ClientId, Money};
use reqwest::Url;

use crate::approval::{ApprovalId, Question};
use crate::call::Call;
use crate::error::{PaymentError, Reason};
use crate::origin::{Origin, route};
use crate::outgoing::Outgoing;
use crate::receipt::MaxPrice;
use crate::state::{Gate, State};

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
    /// How many payments this process had sent before the last send.
    pub(crate) seen: u64,
    /// The credential that was last sent, and how many payments by card there were before.
    pub(crate) tried: Option<(ClientId, u64)>,
    pub(crate) detours: u8,
    pub(crate) request: Outgoing<'a>,
}

/// Why a pass failed.
pub(crate) enum Failure {
    Payment(PaymentError),
    Http(reqwest_middleware::Error),
}

impl From<Failure> for reqwest_middleware::Error {
    fn from(failure: Failure) -> reqwest_middleware::Error {
        match failure {
            Failure::Http(error) => error,
            Failure::Payment(error) => reqwest_middleware::Error::middleware(error),
        }
    }
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
        may_pay: bool,
        state: &State,
        mut request: Outgoing<'a>,
    ) -> Visit<'a> {
        Visit {
            route: route(request.method(), request.url()),
            call: Call::of(request.extensions()),
            max_price: request.extensions().get().map(|MaxPrice(max)| *max),
            seen: state.sent(),
            gate: state.gate(&origin),
            tried: None,
            detours: DETOURS_MAX,
            may_pay,
            origin,
            request,
        }
    }

    /// Gives the request its call's `Idempotency-Key`, unless its caller gave it one.
    pub(crate) fn key(&mut self) -> Result<(), PaymentError> {
        self.request.key(self.call.key()?);
        Ok(())
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

    /// Goes on at `url`, where redirects led before the price was asked. A price elsewhere is
    /// nobody's to accept: the policy and the credential are for the origin that was asked.
    pub(crate) fn arrive(&mut self, url: &Url) -> Result<(), Reason> {
        if Origin::of(url).as_ref() != Some(&self.origin) {
            return Err(Reason::Redirected);
        }
        self.request.go_on_at(url)?;
        self.route = route(self.request.method(), self.request.url());
        Ok(())
    }
}
