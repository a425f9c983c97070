//! [`Stripe`]: everything that Farebox asks of Stripe, in order of how often.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farebox_protocol::{PayerId, PaymentMethodId, TopUpId};
use secrecy::SecretString;
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest as _};
use stripe_core::customer::CreateCustomer;
use stripe_core::payment_intent::{CancelPaymentIntent, ListPaymentIntent, RetrievePaymentIntent};
use stripe_core::setup_intent::{
    CreateSetupIntent, CreateSetupIntentAutomaticPaymentMethods,
    CreateSetupIntentAutomaticPaymentMethodsAllowRedirects as AllowRedirects,
    CreateSetupIntentUsage,
};
use stripe_payment::payment_method::RetrievePaymentMethod;
use stripe_types::RangeQueryTs;

use crate::answer::{
    AccountObject, CvcCheck, Identified, Intent, IntentObject, IntentStatus, PaymentMethodObject,
    Reference, SetupIntentObject,
};
use crate::call::{Call, IdempotencyKey, TopUp, metadata};
use crate::charge::{self, Charge, Rejection, Step, Unknown};
use crate::config::{self, ConfigError, Mode};
use crate::error::LookUpError;
use crate::lookup::{self, Failure, LOOK_UP_BUDGET, SLOW_BUDGET};
use crate::retry::{self, Deadline, Next};
use crate::transport::{Attempt, Ready, Transport};
use crate::verdict::Before;

/// Stripe's ids have at most 255 characters (docs.stripe.com/upgrades).
const ID_BYTES_MAX: usize = 255;
/// How many keys are tried to make one customer.
const CUSTOMER_KEYS_MAX: usize = 3;

/// Stripe, with one provider's keys. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Stripe(Arc<Inner>);

struct Inner {
    transport: Transport,
    publishable_key: String,
    mode: Mode,
}

/// A card at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentMethod {
    /// `pm_...`
    pub id: PaymentMethodId,
    /// The same for every PaymentMethod of one card number within one Stripe account.
    pub fingerprint: String,
    /// Whether the card's verification code was right.
    pub cvc_check: CvcCheck,
    /// The customer that it is attached to.
    pub customer: Option<String>,
}

/// Our own account at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `acct_...`
    pub id: String,
    /// Whether Stripe lets it charge cards; `None` where a stand-in does not say.
    pub charges_enabled: Option<bool>,
}

/// Whether somebody proved to hold a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verification {
    /// The bank accepted the card and its verification code.
    Passed,
    /// Nothing was proved; a charge still can be.
    Unproven,
}

impl Stripe {
    /// Stripe with these keys: `sk_` or `rk_`, and `pk_`, both for test or both for live mode.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for keys of another form or of two modes.
    pub fn new(secret_key: &str, publishable_key: &str) -> Result<Stripe, ConfigError> {
        let live = config::keys_are_live(secret_key, publishable_key)?;
        let secret = SecretString::from(secret_key);
        Stripe::build(config::STRIPE, live, secret, publishable_key.to_owned())
    }

    /// Stripe with the keys in `STRIPE_SECRET_KEY` and `STRIPE_PUBLISHABLE_KEY`, at the base URL
    /// in `STRIPE_API_BASE` if it is set.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a key is missing, or a value is refused.
    pub fn from_env() -> Result<Stripe, ConfigError> {
        Stripe::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Stripe, ConfigError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let required = |name| variable(name).ok_or(ConfigError::Missing(name));
        let stripe =
            Stripe::new(&required("STRIPE_SECRET_KEY")?, &required("STRIPE_PUBLISHABLE_KEY")?)?;
        match variable("STRIPE_API_BASE") {
            Some(url) => stripe.base_url(&url),
            None => Ok(stripe),
        }
    }

    /// A stand-in for Stripe at `url`, which may have a path.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] unless it is https, or http on loopback; live keys go to
    /// `https://api.stripe.com` only.
    pub fn base_url(self, url: &str) -> Result<Stripe, ConfigError> {
        let Inner { transport, publishable_key, mode } = &*self.0;
        let secret = transport.secret().clone();
        Stripe::build(url, mode.is_live(), secret, publishable_key.clone())
    }

    fn build(
        url: &str,
        live: bool,
        secret: SecretString,
        publishable_key: String,
    ) -> Result<Stripe, ConfigError> {
        let (base, mode) = config::base_url(url, live)?;
        let transport = Transport::new(base, secret)?;
        Ok(Stripe(Arc::new(Inner { transport, publishable_key, mode })))
    }

    /// The key with which clients turn a card into a PaymentMethod. It is not a secret.
    pub fn publishable_key(&self) -> &str {
        &self.0.publishable_key
    }

    /// What kind of money moves.
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// Our own account. `None` where a stand-in does not know the endpoint
    /// or a restricted key may not read it.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]; `Operator` when Stripe refuses the key.
    pub async fn account(&self) -> Result<Option<Account>, LookUpError> {
        let request = self.get(&RequestBuilder::new(StripeMethod::Get, "/account"))?;
        // A stand-in may say 404 in words of its own, so these statuses count without them.
        let judge = |attempt: &Attempt| match attempt {
            Attempt::Answered(answer) if matches!(answer.status, 403 | 404) => Next::Done(Ok(None)),
            attempt => lookup::judge::<AccountObject>(attempt).map(|account| account.map(Some)),
        };
        let account = retry::until(&request, Deadline::after(LOOK_UP_BUDGET), judge).await;
        let account = account.unwrap_or(Err(Failure::Unavailable));
        let account = account.map_err(|failure| failure.into_error("account"))?;
        Ok(account.map(|AccountObject { id, charges_enabled }| Account { id, charges_enabled }))
    }

    /// The card behind a PaymentMethod (docs.stripe.com/api/payment_methods/retrieve).
    ///
    /// # Errors
    ///
    /// `NotFound` when Stripe does not know it; `Refused` when it is no card, has no fingerprint
    /// or belongs to the other mode; otherwise see [`LookUpError`].
    pub async fn payment_method(&self, id: &PaymentMethodId) -> Result<PaymentMethod, LookUpError> {
        let request = self.get(&RetrievePaymentMethod::new(id.as_str()).build())?;
        let object: PaymentMethodObject = fetch(&request, LOOK_UP_BUDGET, "payment method").await?;
        let other_mode = object.livemode.is_some_and(|live| live != self.mode().is_live());
        let card = object.card.filter(|_| !other_mode).ok_or(LookUpError::Refused)?;
        let cvc_check = card.checks.and_then(|checks| checks.cvc_check);
        // All cards without a fingerprint would be one payer.
        let fingerprint = card.fingerprint.filter(|text| !text.is_empty());
        Ok(PaymentMethod {
            id: id.clone(),
            fingerprint: fingerprint.ok_or(LookUpError::Refused)?,
            cvc_check: CvcCheck::parse(cvc_check.as_deref()),
            customer: object.customer.map(Reference::into_id),
        })
    }

    /// The payer's customer at Stripe, made if need be: the same one for every process that asks
    /// within a day. Keep the id. `replaces` is a known one that Stripe does not know any more.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]; nothing about it is the payer's fault.
    pub async fn customer(
        &self,
        payer: &PayerId,
        replaces: Option<&str>,
    ) -> Result<String, LookUpError> {
        let request = CreateCustomer::new()
            .description("Farebox payer")
            .metadata(metadata([("payer", payer.to_string())]));
        let call = Call::encode(request.build());
        let base = match replaces {
            Some(known) => format!("cust_{payer}_{known}"),
            None => format!("cust_{payer}"),
        };
        // Stripe would replay a crash for a day, and nobody could top up. A customer that is
        // made twice costs nothing, so the next key is tried; the last one was never tried before,
        // for an outage may have spent all others.
        for number in 1..=CUSTOMER_KEYS_MAX {
            let key = match number {
                1 => base.clone(),
                CUSTOMER_KEYS_MAX => format!("{base}_{}", fresh()),
                _ => format!("{base}_{number}"),
            };
            let key = IdempotencyKey::new(&key).map_err(|_| LookUpError::Operator)?;
            let request = self.post(&call, &key)?;
            match lookup::fetch::<Identified>(&request, SLOW_BUDGET).await {
                Ok(customer) => return Ok(customer.id),
                Err(Failure::Spent) => {}
                Err(failure) => {
                    return Err(match failure.into_error("customer") {
                        LookUpError::Unavailable => LookUpError::Unavailable,
                        _ => LookUpError::Operator,
                    });
                }
            }
        }
        Err(LookUpError::Unavailable)
    }

    /// The call that charges a card for a top-up. It is encoded and not sent: store it first.
    pub fn top_up(&self, top_up: &TopUp<'_>) -> Call {
        top_up.encode()
    }

    /// Sends a call for the first time, and again under the same key, until its outcome is
    /// definite or `budget` is spent.
    ///
    /// Only for a call of which the caller knows that it was never sent before, for then
    /// [`Charge::NotSent`] and a refused key prove that nothing was taken. Otherwise, and always
    /// after a restart: [`Stripe::repeat`].
    pub async fn charge(&self, call: &Call, key: &IdempotencyKey, budget: Duration) -> Charge {
        self.send(call, key, budget, Before::Nothing).await
    }

    /// Sends a call that may have been sent before. It answers as [`Stripe::charge`] does, but
    /// for [`Charge::NotSent`] and a refused key it says [`Unknown::Repeat`]: they tell nothing
    /// about the earlier attempt.
    pub async fn repeat(&self, call: &Call, key: &IdempotencyKey, budget: Duration) -> Charge {
        self.send(call, key, budget, Before::Perhaps).await
    }

    async fn send(
        &self,
        call: &Call,
        key: &IdempotencyKey,
        budget: Duration,
        mut before: Before,
    ) -> Charge {
        let deadline = Deadline::after(budget);
        let live = self.mode().is_live();
        let Ok(request) = self.0.transport.post(call, key) else {
            return Charge::turned_away(before);
        };
        let judge = |attempt: &Attempt| charge::judge(attempt, &mut before, live);
        let charge = match retry::until(&request, deadline, judge).await {
            Some(Step::Ended(charge)) => charge,
            Some(Step::Cancel(intent)) => self.cancel(&intent, deadline).await,
            Some(Step::Read(intent)) => self.read(&intent, deadline).await,
            None => Charge::unfinished(before),
        };
        match charge {
            Charge::Rejected(Rejection::Operator) => {
                tracing::error!("Stripe refuses to charge: the provider must act");
            }
            Charge::Unknown(_) => tracing::warn!("the outcome of a charge is unknown"),
            _ => {}
        }
        charge
    }

    /// Ends an intent that waits for a human. Somebody may have finished it meanwhile, so not the
    /// cancellation decides but what the intent says afterwards.
    async fn cancel(&self, intent: &str, deadline: Deadline) -> Charge {
        let live = self.mode().is_live();
        let call = Call::encode(CancelPaymentIntent::new(intent).build());
        // A second cancellation changes nothing, but a crash would be replayed under its key.
        if let Ok(key) = IdempotencyKey::new(&format!("cancel_{intent}_{}", fresh()))
            && let Ok(request) = self.0.transport.post(&call, &key)
        {
            let judge = lookup::judge::<Identified>;
            if retry::until(&request, deadline, judge).await.is_none() {
                tracing::warn!(intent, "an intent could not be cancelled");
            }
        }
        match self.now(intent, deadline).await.map(|now| charge::settled(&now, live)) {
            Some(Charge::Declined) => Charge::AuthenticationRequired,
            Some(charge) => charge,
            None => Charge::Unknown(Unknown::Repeat),
        }
    }

    /// Reads an intent that was not finished when Stripe answered.
    async fn read(&self, intent: &str, deadline: Deadline) -> Charge {
        match self.now(intent, deadline).await {
            Some(now) if now.status() == IntentStatus::RequiresAction => {
                self.cancel(intent, deadline).await
            }
            Some(now) => charge::settled(&now, self.mode().is_live()),
            None => Charge::Unknown(Unknown::Repeat),
        }
    }

    /// Ends an intent that may still wait for a human, as [`Stripe::charge`] does, and answers what
    /// became of it. For one that was found in a list: no answer may name it.
    pub async fn end_intent(&self, intent: &str, budget: Duration) -> Charge {
        self.read(intent, Deadline::after(budget)).await
    }

    /// An intent as it is now, if Stripe says so in time.
    async fn now(&self, intent: &str, deadline: Deadline) -> Option<IntentObject> {
        let request = RetrievePaymentIntent::new(intent).build();
        let request = self.0.transport.get(&request).ok()?;
        retry::until(&request, deadline, lookup::judge).await?.ok()
    }

    /// Asks the card's bank whether the card and its verification code are right, and attaches
    /// the card to `customer` (docs.stripe.com/api/setup_intents/create). Nothing is charged.
    ///
    /// # Errors
    ///
    /// `NotFound` when Stripe does not know the customer; `Refused` when the card cannot be used
    /// here; otherwise see [`LookUpError`].
    pub async fn verify(
        &self,
        method: &PaymentMethodId,
        customer: &str,
    ) -> Result<Verification, LookUpError> {
        let methods = CreateSetupIntentAutomaticPaymentMethods {
            allow_redirects: Some(AllowRedirects::Never),
            enabled: true,
        };
        let request = CreateSetupIntent::new()
            .customer(customer)
            .payment_method(method.as_str())
            .confirm(true)
            .usage(CreateSetupIntentUsage::OffSession)
            .automatic_payment_methods(methods)
            .metadata(metadata([]));
        let call = Call::encode(request.build());
        let key = IdempotencyKey::new(&format!("verify_{}_{customer}", method.as_str()));
        let key = key.map_err(|_| LookUpError::Operator)?;
        let request = self.post(&call, &key)?;
        let setup = match lookup::fetch::<SetupIntentObject>(&request, SLOW_BUDGET).await {
            Ok(setup) => setup,
            Err(Failure::Refused(_, error)) if error.is_card() => {
                return Ok(Verification::Unproven);
            }
            Err(Failure::Refused(_, error)) if error.is_about_card() => {
                return Err(LookUpError::Refused);
            }
            // It stays so for a day; the charge itself can still be the proof.
            Err(Failure::Spent) => return Ok(Verification::Unproven),
            Err(failure) => return Err(failure.into_error("setup intent")),
        };
        if setup.status != "succeeded" {
            return Ok(Verification::Unproven);
        }
        let card = self.payment_method(method).await?;
        let passed = card.cvc_check == CvcCheck::Pass;
        Ok(if passed { Verification::Passed } else { Verification::Unproven })
    }

    /// A PaymentIntent (docs.stripe.com/api/payment_intents/retrieve).
    ///
    /// # Errors
    ///
    /// [`LookUpError`].
    pub async fn intent(&self, id: &str) -> Result<Intent, LookUpError> {
        check_id(id)?;
        let request = self.get(&RetrievePaymentIntent::new(id).build())?;
        let object: IntentObject = fetch(&request, LOOK_UP_BUDGET, "payment intent").await?;
        object.read(self.mode().is_live()).ok_or_else(|| {
            tracing::error!(intent = id, "Stripe's intent cannot be read");
            LookUpError::Unavailable
        })
    }

    /// The top-up that a PaymentIntent was made for; `None` if it was not made by Farebox, whatever
    /// else it is.
    ///
    /// # Errors
    ///
    /// [`LookUpError`].
    pub async fn top_up_of(&self, intent: &str) -> Result<Option<TopUpId>, LookUpError> {
        check_id(intent)?;
        let request = self.get(&RetrievePaymentIntent::new(intent).build())?;
        let object: IntentObject = fetch(&request, LOOK_UP_BUDGET, "payment intent").await?;
        Ok(object.names_top_up().and_then(|id| id.parse().ok()))
    }

    /// Every PaymentIntent of a customer, or with `None` of the whole account, that was created at
    /// `created` (Unix seconds) or later (docs.stripe.com/api/payment_intents/list). Intents in currencies that Farebox does not
    /// charge in are left out; a top-up's never is.
    ///
    /// # Errors
    ///
    /// [`LookUpError`]. A list that could be read only in part is an error: what is missing must
    /// not look as if it had never been charged.
    pub async fn intents_since(
        &self,
        customer: Option<&str>,
        created: i64,
    ) -> Result<Vec<Intent>, LookUpError> {
        let mut list = ListPaymentIntent::new().created(RangeQueryTs::gte(created)).limit(100);
        if let Some(customer) = customer {
            list = list.customer(customer);
        }
        let mut intents = Vec::new();
        for object in self.list::<IntentObject>(list.build(), "payment intents").await? {
            let (id, ours) = (object.id.clone(), object.names_top_up().is_some());
            match object.read(self.mode().is_live()) {
                Some(intent) => intents.push(intent),
                None if ours => {
                    tracing::error!(intent = id, "Stripe's intent cannot be read");
                    return Err(LookUpError::Unavailable);
                }
                None => {}
            }
        }
        Ok(intents)
    }

    /// Refuses an object of the other mode than our keys. A stand-in that does not say is
    /// believed to be in our mode.
    pub(crate) fn same_mode(&self, livemode: Option<bool>, id: &str) -> Result<(), LookUpError> {
        if livemode.is_some_and(|live| live != self.mode().is_live()) {
            tracing::error!(id, "Stripe's object is of the other mode than our keys");
            return Err(LookUpError::Operator);
        }
        Ok(())
    }

    pub(crate) fn get(&self, request: &RequestBuilder) -> Result<Ready<'_>, LookUpError> {
        self.0.transport.get(request).map_err(|_| LookUpError::NotFound)
    }

    pub(crate) fn post(&self, call: &Call, key: &IdempotencyKey) -> Result<Ready<'_>, LookUpError> {
        self.0.transport.post(call, key).map_err(|_| LookUpError::Operator)
    }
}

/// A part of a key that nobody used before.
fn fresh() -> String {
    format!("{:016x}", getrandom::u64().unwrap_or_default())
}

/// An id from outside cannot lead to another endpoint.
pub(crate) fn check_id(id: &str) -> Result<(), LookUpError> {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if (1..=ID_BYTES_MAX).contains(&id.len()) && plain {
        Ok(())
    } else {
        Err(LookUpError::NotFound)
    }
}

pub(crate) async fn fetch<T: serde::de::DeserializeOwned>(
    request: &Ready<'_>,
    budget: Duration,
    what: &'static str,
) -> Result<T, LookUpError> {
    lookup::fetch(request, budget).await.map_err(|failure| failure.into_error(what))
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripe")
            .field("mode", &self.0.mode)
            .field("transport", &self.0.transport)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Stripe, ConfigError> {
        let find = |name| variables.iter().find(|(known, _)| *known == name);
        Stripe::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_names_both_keys_and_perhaps_a_stand_in() {
        let keys = [("STRIPE_SECRET_KEY", "rk_live_1"), ("STRIPE_PUBLISHABLE_KEY", "pk_live_1")];
        assert_eq!(from(&keys).unwrap().mode(), Mode::Live);
        let test = [
            ("STRIPE_SECRET_KEY", "sk_test_1"),
            ("STRIPE_PUBLISHABLE_KEY", "pk_test_1"),
            ("STRIPE_API_BASE", "http://localhost:4242"),
        ];
        assert_eq!(from(&test).unwrap().mode(), Mode::Sandbox);
        assert_eq!(from(&test[..2]).unwrap().mode(), Mode::Test);
    }

    #[test]
    fn a_missing_or_empty_key_is_named() {
        let missing = ConfigError::Missing("STRIPE_SECRET_KEY");
        assert_eq!(from(&[]).unwrap_err(), missing);
        assert_eq!(from(&[("STRIPE_SECRET_KEY", "")]).unwrap_err(), missing);
        let half = from(&[("STRIPE_SECRET_KEY", "sk_test_1")]);
        assert_eq!(half.unwrap_err(), ConfigError::Missing("STRIPE_PUBLISHABLE_KEY"));
    }

    #[test]
    fn live_keys_from_the_environment_stay_with_stripe() {
        let elsewhere = from(&[
            ("STRIPE_SECRET_KEY", "sk_live_1"),
            ("STRIPE_PUBLISHABLE_KEY", "pk_live_1"),
            ("STRIPE_API_BASE", "http://localhost:4242"),
        ]);
        assert_eq!(elsewhere.unwrap_err(), ConfigError::LiveElsewhere);
    }
}
