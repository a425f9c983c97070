//! Where the money of a top-up comes from.
//!
//! The agent asks a [`PaymentSource`] for a PaymentMethod once the policy has allowed a top-up
//! and holds its amount. Three ways are here: [`TokenizedCard`], a card that Stripe turns into a
//! PaymentMethod of the provider's account; [`StoredMethods`], PaymentMethods that exist there
//! already; and [`source_fn`], a function. A wallet is another implementation.
//!
//! An error of a source returns the hold, since nothing was sent to the provider.
//!
//! ```
//! use farebox_client::{PaymentError, PaymentSource as _, StoredMethods, TopUp, usd};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = StoredMethods::new().with("pk_live_1", "pm_1abc".parse()?);
//! let top_up = TopUp::new("https://api.example.com", "pk_live_1", usd!("5"));
//! assert_eq!(source.payment_method(&top_up).await?.as_str(), "pm_1abc");
//!
//! let elsewhere = TopUp::new("https://other.example.com", "pk_live_2", usd!("5"));
//! let error = source.payment_method(&elsewhere).await;
//! assert!(matches!(error, Err(PaymentError::NoPaymentMethod { .. })));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use farebox_protocol::{Money, PaymentMethodId};

use crate::card::Card;
use crate::error::{ConfigError, PaymentError};
use crate::service;
use crate::tokenizer::Tokenizer;

/// What a PaymentMethod is wanted for.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "publishable keys stay out of logs")]
pub struct TopUp {
    /// Who is to be paid: `scheme://host:port`, without the port where it is the scheme's own.
    pub origin: String,
    /// The Stripe account that the PaymentMethod must belong to, by its publishable key. It is
    /// `pk_test_...` or `pk_live_...`, and the one that the origin was first paid under.
    pub publishable_key: String,
    /// What the policy holds for it: the card is to be charged this amount.
    pub amount: Money,
}

impl TopUp {
    /// A top-up of `amount` at `origin`, whose Stripe account has `publishable_key`.
    pub fn new(
        origin: impl Into<String>,
        publishable_key: impl Into<String>,
        amount: Money,
    ) -> TopUp {
        TopUp { origin: origin.into(), publishable_key: publishable_key.into(), amount }
    }
}

/// A way to pay.
pub trait PaymentSource: Send + Sync + 'static {
    /// A PaymentMethod for this top-up, in the account of its publishable key. It is asked for
    /// once per payment; a payment that is repeated takes the same PaymentMethod.
    ///
    /// The provider can charge what is returned here for other sums than the top-up. A source
    /// that can limit a PaymentMethod to the amount should do so.
    ///
    /// # Errors
    ///
    /// [`PaymentError::SourceRefused`] when only its owner can change the answer,
    /// [`PaymentError::SourceUnavailable`] when asking again later may help.
    fn payment_method(
        &self,
        top_up: &TopUp,
    ) -> impl Future<Output = Result<PaymentMethodId, PaymentError>> + Send;
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`PaymentSource`] as an object.
pub(crate) trait DynPaymentSource: Send + Sync {
    fn payment_method_boxed<'a>(
        &'a self,
        top_up: &'a TopUp,
    ) -> BoxFuture<'a, Result<PaymentMethodId, PaymentError>>;
}

impl<S: PaymentSource> DynPaymentSource for S {
    fn payment_method_boxed<'a>(
        &'a self,
        top_up: &'a TopUp,
    ) -> BoxFuture<'a, Result<PaymentMethodId, PaymentError>> {
        Box::pin(self.payment_method(top_up))
    }
}

/// A card that becomes a new PaymentMethod for every top-up, at Stripe. It goes nowhere else.
///
/// Stripe makes a PaymentMethod of a card number only for accounts that have enabled it for their
/// publishable key; elsewhere this source answers [`PaymentError::CardTokenizationDisabled`].
#[expect(missing_debug_implementations, reason = "a card must not be printable")]
pub struct TokenizedCard {
    pub(crate) card: Arc<Card>,
    pub(crate) tokenizer: Tokenizer,
}

impl TokenizedCard {
    /// `card`, tokenized at `https://api.stripe.com`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Client`] when the system's TLS cannot be set up.
    pub fn new(card: Card) -> Result<TokenizedCard, ConfigError> {
        let tokenizer = Tokenizer::new(Tokenizer::stripe()).map_err(ConfigError::Client)?;
        Ok(TokenizedCard { card: Arc::new(card), tokenizer })
    }

    /// Tokenizes at another address: a sandbox.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Tokenizer`] for anything but https, or http on loopback.
    pub fn tokenizer(mut self, base: &str) -> Result<TokenizedCard, ConfigError> {
        let base = service::base(base).ok_or(ConfigError::Tokenizer)?;
        self.tokenizer = Tokenizer::new(base).map_err(ConfigError::Client)?;
        Ok(self)
    }
}

impl PaymentSource for TokenizedCard {
    async fn payment_method(&self, top_up: &TopUp) -> Result<PaymentMethodId, PaymentError> {
        self.tokenizer.payment_method(&self.card, &top_up.publishable_key).await
    }
}

/// PaymentMethods that exist at the providers' Stripe accounts, one per publishable key.
///
/// A PaymentMethod can be used again and again only while it is attached to a Customer of that
/// account, which the provider does with its secret key. One that is attached to none can be
/// used once: Stripe refuses the next charge. Sources: [PaymentMethods] and [attaching one].
///
/// [PaymentMethods]: https://docs.stripe.com/payments/payment-methods
/// [attaching one]: https://docs.stripe.com/api/payment_methods/attach
#[derive(Clone, Default)]
#[expect(missing_debug_implementations, reason = "a PaymentMethod can be charged")]
pub struct StoredMethods(BTreeMap<String, PaymentMethodId>);

impl StoredMethods {
    /// None.
    pub fn new() -> StoredMethods {
        StoredMethods::default()
    }

    /// Pays with `method` at the account of `publishable_key`, instead of what was given before.
    #[must_use]
    pub fn with(mut self, publishable_key: impl Into<String>, method: PaymentMethodId) -> Self {
        self.0.insert(publishable_key.into(), method);
        self
    }
}

impl PaymentSource for StoredMethods {
    async fn payment_method(&self, top_up: &TopUp) -> Result<PaymentMethodId, PaymentError> {
        let stored = self.0.get(&top_up.publishable_key).cloned();
        stored.ok_or_else(|| PaymentError::NoPaymentMethod { origin: top_up.origin.clone() })
    }
}

/// A function that is a [`PaymentSource`]; see [`source_fn`].
#[expect(missing_debug_implementations, reason = "a function has none")]
pub struct SourceFn<F>(F);

/// A source that calls `make`.
///
/// ```
/// use farebox_client::{PaymentError, PaymentMethodId, PaymentSource as _, TopUp, source_fn, usd};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id: PaymentMethodId = "pm_1abc".parse()?;
/// let source = source_fn(move |top_up| {
///     let id = id.clone();
///     async move {
///         let small = top_up.amount.micros() <= usd!("50").micros();
///         small.then_some(id).ok_or(PaymentError::SourceRefused { reason: "too much".to_owned() })
///     }
/// });
/// let five = TopUp::new("https://api.example.com", "pk_live_1", usd!("5"));
/// assert!(source.payment_method(&five).await.is_ok());
/// let sixty = TopUp::new("https://api.example.com", "pk_live_1", usd!("60"));
/// assert!(source.payment_method(&sixty).await.is_err());
/// # Ok(())
/// # }
/// ```
pub fn source_fn<F, Fut>(make: F) -> SourceFn<F>
where
    F: Fn(TopUp) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<PaymentMethodId, PaymentError>> + Send,
{
    SourceFn(make)
}

impl<F, Fut> PaymentSource for SourceFn<F>
where
    F: Fn(TopUp) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<PaymentMethodId, PaymentError>> + Send,
{
    fn payment_method(
        &self,
        top_up: &TopUp,
    ) -> impl Future<Output = Result<PaymentMethodId, PaymentError>> + Send {
        (self.0)(top_up.clone())
    }
}
