//! What the card network does after a payment: disputes, fraud warnings, refunds that fail. Stripe
//! has no endpoints for it, so it is done from the outside, in process or over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;

use crate::Sandbox;
use crate::api::Context;
use crate::auth::KeyKind;
use crate::cards::Later;
use crate::disputes::{self, Dispute, End, Kind};
use crate::error::{ApiError, ApiResult};
use crate::form::{Form, Params};
use crate::fraud_warnings;
use crate::payment_intents::charges::Charge;
use crate::refunds::{self, Refund};
use crate::server::App;

const MAX_BODY_BYTES: usize = 4 * 1024;
/// The reason of a dispute that gives no other one.
const FRAUDULENT: &str = "fraudulent";

/// Why the card network could not do it. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Impossible {
    /// The sandbox has no payment, dispute or refund of this id.
    NotFound,
    /// No money was taken: the payment was declined, canceled, not captured, or is under way.
    NotPaid,
    /// The dispute or refund has this status, from which no way leads there.
    WrongStatus(&'static str),
    /// The amount is not positive, or more than the account still has of this payment.
    Amount {
        /// What it still has, in minor units.
        left: i64,
    },
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("the sandbox has nothing of this id"),
            Self::NotPaid => f.write_str("this payment has taken no money"),
            Self::WrongStatus(status) => write!(f, "this cannot follow the status {status}"),
            Self::Amount { left } => {
                write!(f, "the amount must be between 1 and the {left} left of the payment")
            }
        }
    }
}

impl std::error::Error for Impossible {}

impl From<Impossible> for ApiError {
    fn from(why: Impossible) -> Self {
        let error = Self::invalid(why.to_string());
        match why {
            Impossible::NotFound => error.code("resource_missing").status(StatusCode::NOT_FOUND),
            _ => error,
        }
    }
}

/// One refund of money that had been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefundRecord {
    /// Id of the refund.
    pub id: String,
    /// Id of the PaymentIntent.
    pub payment_intent: String,
    /// In the currency's minor unit (cents).
    pub amount: i64,
    /// Three letters, lower case.
    pub currency: String,
    /// `pending`, `succeeded` or `failed`.
    pub status: &'static str,
    /// `duplicate`, `fraudulent` or `requested_by_customer`, if a reason was given.
    pub reason: Option<&'static str>,
    /// Metadata of the refund.
    pub metadata: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// What the card network and the cardholder do. Every change sends its events, as with Stripe.
impl Sandbox {
    /// The cardholder charges back everything that is left of a payment: the money is withdrawn,
    /// with a fee of 1500 minor units. Answers with the id of the dispute (`dp_...`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use farebox_sandbox::{Impossible, Sandbox};
    ///
    /// let sandbox = Sandbox::builder().start("127.0.0.1:0".parse()?).await?;
    /// reqwest::Client::new()
    ///     .post(format!("{}/v1/payment_intents", sandbox.url()))
    ///     .bearer_auth(sandbox.secret_key())
    ///     .header("content-type", "application/x-www-form-urlencoded")
    ///     .body(
    ///         "amount=500&currency=usd&confirm=true&payment_method=pm_card_visa\
    ///          &allowed_payment_method_types[]=card",
    ///     )
    ///     .send()
    ///     .await?;
    /// let payment = &sandbox.charges()[0].id;
    /// let dispute = sandbox.dispute(payment)?;
    /// assert_eq!(sandbox.dispute(payment), Err(Impossible::Amount { left: 0 }));
    /// sandbox.win(&dispute)?;
    /// assert_eq!(sandbox.lose(&dispute), Err(Impossible::WrongStatus("won")));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Impossible`] says why there is nothing to charge back.
    pub fn dispute(&self, intent: &str) -> Result<String, Impossible> {
        self.open(intent, Kind::Chargeback, None)
    }

    /// The same with a part of a payment, in minor units.
    ///
    /// # Errors
    ///
    /// [`Impossible::Amount`] also if more is disputed than is left.
    pub fn dispute_part(&self, intent: &str, amount: i64) -> Result<String, Impossible> {
        self.open(intent, Kind::Chargeback, Some(amount))
    }

    /// The cardholder's bank asks about a payment; no money moves. Answers with the id of the
    /// dispute, whose status is `warning_needs_response`.
    ///
    /// # Errors
    ///
    /// As [`dispute`](Self::dispute).
    pub fn inquire(&self, intent: &str) -> Result<String, Impossible> {
        self.open(intent, Kind::Inquiry, None)
    }

    /// An inquiry becomes a chargeback of what is left of its amount.
    ///
    /// # Errors
    ///
    /// [`Impossible::WrongStatus`] if it is no open inquiry, [`Impossible::Amount`] if everything
    /// was refunded or charged back meanwhile.
    pub fn escalate(&self, dispute: &str) -> Result<(), Impossible> {
        self.go_on(dispute, End::Escalated)
    }

    /// An inquiry comes to nothing.
    ///
    /// # Errors
    ///
    /// [`Impossible::WrongStatus`] if it is no open inquiry.
    pub fn close_inquiry(&self, dispute: &str) -> Result<(), Impossible> {
        self.go_on(dispute, End::WarningClosed)
    }

    /// A chargeback is won: the money is reinstated, without the fee.
    ///
    /// # Errors
    ///
    /// [`Impossible::WrongStatus`] if it is no open chargeback.
    pub fn win(&self, dispute: &str) -> Result<(), Impossible> {
        self.go_on(dispute, End::Won)
    }

    /// A chargeback is lost: the money stays withdrawn.
    ///
    /// # Errors
    ///
    /// [`Impossible::WrongStatus`] if it is no open chargeback.
    pub fn lose(&self, dispute: &str) -> Result<(), Impossible> {
        self.go_on(dispute, End::Lost)
    }

    /// The issuer reports a payment as fraud. Answers with the id of the warning (`issfr_...`).
    ///
    /// # Errors
    ///
    /// [`Impossible::NotFound`] and [`Impossible::NotPaid`].
    pub fn warn_of_fraud(&self, intent: &str) -> Result<String, Impossible> {
        act(&self.app, |context| {
            let charge = paid_charge(context, intent)?;
            Ok(fraud_warnings::warn(context, &charge).id)
        })
    }

    /// A pending refund reaches the card.
    ///
    /// # Errors
    ///
    /// [`Impossible::WrongStatus`] if it is not pending.
    pub fn succeed_refund(&self, refund: &str) -> Result<(), Impossible> {
        act(&self.app, |context| refunds::succeed(context, refund).map(drop))
    }

    /// A refund does not reach the card, even if it seemed to: its money is back on the account,
    /// and the charge's `amount_refunded` is lower again.
    ///
    /// # Errors
    ///
    /// [`Impossible::WrongStatus`] if it has failed already, [`Impossible::NotPaid`] if it only
    /// released money that was held.
    pub fn fail_refund(&self, refund: &str) -> Result<(), Impossible> {
        act(&self.app, |context| refunds::fail(context, refund).map(drop))
    }

    /// Every refund of money that had been taken, oldest first, with its status of this moment.
    #[must_use]
    pub fn refunds(&self) -> Vec<RefundRecord> {
        let state = self.app.lock();
        let refunds = state.refunds.newest_first().rev();
        refunds.filter(|refund| refund.balance_transaction.is_some()).map(record).collect()
    }

    fn open(&self, intent: &str, kind: Kind, amount: Option<i64>) -> Result<String, Impossible> {
        act(&self.app, |context| Ok(open(context, intent, kind, amount)?.id))
    }

    fn go_on(&self, dispute: &str, end: End) -> Result<(), Impossible> {
        act(&self.app, |context| disputes::go_on(context, dispute, end).map(drop))
    }
}

fn record(refund: &Refund) -> RefundRecord {
    RefundRecord {
        id: refund.id.clone(),
        payment_intent: refund.intent.clone(),
        amount: refund.amount,
        currency: refund.currency.code().to_owned(),
        status: refund.status.name(),
        reason: refund.reason,
        metadata: refund.metadata.clone(),
        created: refund.created,
    }
}

/// What the test card promises for the time after a payment happens at once.
pub(crate) fn follow_up(context: &mut Context<'_>, charge: &str) {
    let Some(charge) = context.state.charges.get(charge) else { return };
    // The charge was paid a moment ago and nothing was given back: it can be disputed.
    let _opened = match charge.card().later() {
        Some(Later::Dispute(reason)) => {
            disputes::open(context, charge, Kind::Chargeback, (reason, None)).map(drop)
        }
        Some(Later::Inquiry) => {
            disputes::open(context, charge, Kind::Inquiry, (FRAUDULENT, None)).map(drop)
        }
        Some(Later::FraudWarning) => {
            fraud_warnings::warn(context, &charge);
            Ok(())
        }
        Some(Later::RefundsPend | Later::RefundsFail) | None => Ok(()),
    };
}

fn open(
    context: &mut Context<'_>,
    intent: &str,
    kind: Kind,
    amount: Option<i64>,
) -> Result<Dispute, Impossible> {
    let charge = paid_charge(context, intent)?;
    disputes::open(context, charge, kind, (FRAUDULENT, amount))
}

fn paid_charge(context: &Context<'_>, intent: &str) -> Result<Charge, Impossible> {
    let intent = context.state.payment_intents.get(intent).ok_or(Impossible::NotFound)?;
    intent.paid_charge(context.state).ok_or(Impossible::NotPaid)
}

fn act<T>(
    app: &App,
    act: impl FnOnce(&mut Context<'_>) -> Result<T, Impossible>,
) -> Result<T, Impossible> {
    let (config, mut state) = (&app.config, app.lock());
    let now = config.clock.now();
    act(&mut Context { state: &mut state, config, key: KeyKind::Secret, now })
}

/// The same actions for tests in other languages.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/disputes", post(post_dispute))
        .route("/disputes/{id}", post(post_dispute_end))
        .route("/refunds/{id}/succeed", post(post_refund_success))
        .route("/refunds/{id}/fail", post(post_refund_failure))
        .route("/early_fraud_warnings", post(post_fraud_warning))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

async fn post_dispute(Shared(app): Shared<Arc<App>>, body: Bytes) -> Response {
    respond(&app, &body, |params| {
        let intent = params.required_text("payment_intent")?;
        let kind = match params.choice("kind", &["chargeback", "inquiry"])? {
            Some("inquiry") => Kind::Inquiry,
            _ => Kind::Chargeback,
        };
        let amount = params.amount("amount")?;
        Ok(Box::new(move |context| Ok(disputes::show(&open(context, &intent, kind, amount)?))))
    })
}

async fn post_dispute_end(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    respond(&app, &body, |params| {
        let end = match params.choice("end", &["won", "lost", "warning_closed", "escalate"])? {
            Some("won") => End::Won,
            Some("lost") => End::Lost,
            Some("warning_closed") => End::WarningClosed,
            Some(_) => End::Escalated,
            None => return Err(crate::form::missing("end")),
        };
        Ok(Box::new(move |context| Ok(disputes::show(&disputes::go_on(context, &id, end)?))))
    })
}

async fn post_refund_success(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    respond(&app, &body, |_| {
        Ok(Box::new(move |context| Ok(refunds::show(&refunds::succeed(context, &id)?))))
    })
}

async fn post_refund_failure(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    respond(&app, &body, |_| {
        Ok(Box::new(move |context| Ok(refunds::show(&refunds::fail(context, &id)?))))
    })
}

async fn post_fraud_warning(Shared(app): Shared<Arc<App>>, body: Bytes) -> Response {
    respond(&app, &body, |params| {
        let intent = params.required_text("payment_intent")?;
        Ok(Box::new(move |context| {
            let charge = paid_charge(context, &intent)?;
            let warning = fraud_warnings::warn(context, &charge);
            Ok(fraud_warnings::show(context.state, &warning))
        }))
    })
}

type Act = Box<dyn FnOnce(&mut Context<'_>) -> Result<Value, Impossible>>;

fn respond(
    app: &App,
    body: &[u8],
    prepare: impl FnOnce(&mut Params) -> ApiResult<Act>,
) -> Response {
    let outcome = Form::from_json(body).and_then(Form::into_params).and_then(|mut params| {
        let job = prepare(&mut params)?;
        params.finish()?;
        Ok(act(app, job)?)
    });
    let (status, body) = match outcome {
        Ok(object) => (StatusCode::OK, object),
        Err(error) => error.into_parts(),
    };
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
