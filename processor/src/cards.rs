//! The cards that are attached to a customer.

use farebox_protocol::PaymentMethodId;
use serde::Deserialize;
use stripe_client_core::StripeRequest as _;
use stripe_payment::payment_method::{
    DetachPaymentMethod, ListPaymentMethod, ListPaymentMethodType, RetrievePaymentMethod,
};

use crate::answer::{Identified, Reference, lenient};
use crate::call::{Call, IdempotencyKey};
use crate::error::LookUpError;
use crate::list::Listed;
use crate::lookup::{self, Failure, LOOK_UP_BUDGET, SLOW_BUDGET};
use crate::stripe::{Stripe, check_id};

#[derive(Deserialize)]
struct AttachedCard {
    id: PaymentMethodId,
    #[serde(default, deserialize_with = "lenient")]
    livemode: Option<bool>,
}

/// Nothing but the customer's absence says that a card is detached, so it is read strictly.
#[derive(Deserialize)]
struct Holder {
    customer: Option<Reference>,
}

impl Listed for AttachedCard {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

impl Stripe {
    /// Every card that is attached to a customer, newest first
    /// (docs.stripe.com/api/payment_methods/list).
    ///
    /// # Errors
    ///
    /// [`LookUpError`]; `NotFound` when Stripe does not know the customer. A list that could be
    /// read only in part is an error.
    pub async fn cards(&self, customer: &str) -> Result<Vec<PaymentMethodId>, LookUpError> {
        check_id(customer)?;
        let list = ListPaymentMethod::new()
            .customer(customer)
            .type_(ListPaymentMethodType::Card)
            .limit(100);
        let mut cards = Vec::new();
        for card in self.list::<AttachedCard>(list.build(), "payment methods").await? {
            self.same_mode(card.livemode, "payment method")?;
            cards.push(card.id);
        }
        Ok(cards)
    }

    /// Detaches a card from its customer: it can never be charged again
    /// (docs.stripe.com/api/payment_methods/detach). One that is not attached, or that Stripe
    /// does not know, is given up already.
    ///
    /// ```no_run
    /// # async fn forget(stripe: farebox_processor::Stripe) -> Result<(), farebox_processor::LookUpError> {
    /// for card in stripe.cards("cus_1").await? {
    ///     stripe.detach(&card).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LookUpError`]: the card may still be attached.
    pub async fn detach(&self, method: &PaymentMethodId) -> Result<(), LookUpError> {
        let call = Call::encode(DetachPaymentMethod::new(method.as_str()).build());
        let key = IdempotencyKey::new(&format!("detach_{}", method.as_str()));
        let request = self.post(&call, &key.map_err(|_| LookUpError::Operator)?)?;
        let Err(failure) = lookup::fetch::<Identified>(&request, SLOW_BUDGET).await else {
            return Ok(());
        };
        if matches!(failure, Failure::Unavailable) {
            return Err(LookUpError::Unavailable);
        }
        // Stripe has only sentences for a card that was not attached, and repeats what it once
        // said for a day: the card itself decides.
        let request = self.get(&RetrievePaymentMethod::new(method.as_str()).build())?;
        match lookup::fetch::<Holder>(&request, LOOK_UP_BUDGET).await {
            Ok(card) if card.customer.is_none() => Ok(()),
            Ok(_) => Err(failure.into_error("detaching a card")),
            Err(unread) => match unread.into_error("payment method") {
                LookUpError::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }
}
