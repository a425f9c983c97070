//! Early fraud warnings: a bank suspects that a charge is not its card holder's.

use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::answer::{Reference, lenient};
use crate::error::LookUpError;
use crate::list::{self, Listed};
use crate::lookup::LOOK_UP_BUDGET;
use crate::stripe::{Stripe, check_id, fetch};

const PATH: &str = "/radar/early_fraud_warnings";

/// An early fraud warning (docs.stripe.com/api/radar/early_fraud_warnings/object). It moves no
/// money; a dispute often follows.
///
/// # Example
///
/// ```no_run
/// # async fn look(stripe: farebox_processor::Stripe) -> Result<(), farebox_processor::LookUpError> {
/// let warning = stripe.warning("issfr_1").await?;
/// if warning.actionable {
///     println!("giving {:?} back prevents a dispute", warning.intent);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `issfr_...`
    pub id: String,
    /// The PaymentIntent that it is about.
    pub intent: Option<String>,
    /// Whether giving the money back can still prevent a dispute.
    pub actionable: bool,
}

#[derive(Deserialize)]
struct WarningObject {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    payment_intent: Option<Reference>,
    #[serde(default, deserialize_with = "lenient")]
    actionable: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    livemode: Option<bool>,
}

impl Listed for WarningObject {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Stripe {
    /// An early fraud warning (docs.stripe.com/api/radar/early_fraud_warnings/retrieve).
    ///
    /// # Errors
    ///
    /// [`LookUpError`].
    pub async fn warning(&self, id: &str) -> Result<Warning, LookUpError> {
        check_id(id)?;
        let request = self.get(&RequestBuilder::new(StripeMethod::Get, format!("{PATH}/{id}")))?;
        self.read_warning(fetch(&request, LOOK_UP_BUDGET, "fraud warning").await?)
    }

    /// Every early fraud warning of the account that was given at `created` (Unix seconds) or
    /// later, newest first.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]; `NotFound` where a stand-in has no warnings. A list that could be read
    /// only in part is an error.
    pub async fn warnings_since(&self, created: i64) -> Result<Vec<Warning>, LookUpError> {
        let request = list::created_since(PATH, created);
        let warnings = self.list_if_known::<WarningObject>(request, "fraud warnings").await?;
        let warnings = warnings.ok_or(LookUpError::NotFound)?;
        warnings.into_iter().map(|warning| self.read_warning(warning)).collect()
    }

    fn read_warning(&self, object: WarningObject) -> Result<Warning, LookUpError> {
        self.same_mode(object.livemode, &object.id)?;
        Ok(Warning {
            id: object.id,
            intent: object.payment_intent.map(Reference::into_id),
            actionable: object.actionable.unwrap_or_default(),
        })
    }
}
