//! A provider: what it asks, what it took, and what it saw that it should not have seen.
//!
//! Every scenario is one that behaves as here, except for what its function changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::wire::{Answer, Ask, Reply};
use crate::sandbox::Sandbox;

/// Units in a US cent: what the wire counts in.
const UNITS_PER_CENT: i64 = 100;
/// What a request costs: 0.01 usd.
pub(super) const PRICE: i64 = 100;
/// The smallest top-up, and the largest under the reference policy: 5 usd.
pub(super) const TOP_UP: i64 = 50_000;
/// The highest price under the reference policy: 0.05 usd.
const PRICE_MAX: i64 = 5 * PRICE;
/// The publishable key of an account that is not the provider's.
pub(super) const FOREIGN_KEY: &str = "pk_test_somebody_elses_account";
/// Names the scenario in the metadata of its charges.
pub(super) const SCENARIO: &str = "hostile_scenario";

/// How often one PaymentMethod is charged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// Once: a repeated payment joins the first.
    Join,
    /// At every payment that names it, as a server of version 1 does.
    Charge,
}

/// What became of the card that a payment brought.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Card {
    /// There was none.
    None,
    /// It was charged: the id of the charge.
    Charged(String),
    /// It had been charged before.
    Joined(String),
    Declined,
}

/// One provider, with the money of one client.
pub(super) struct Shop {
    name: &'static str,
    sandbox: Arc<Sandbox>,
    /// Where the provider itself listens, and another origin of its owner.
    pub(super) here: String,
    pub(super) elsewhere: String,
    /// Requests so far, this one included.
    pub(super) requests: u64,
    /// Requests so far that brought a payment.
    pub(super) payments: u64,
    pub(super) served: u64,
    /// In units.
    pub(super) credit: i64,
    pub(super) leaks: Vec<String>,
    /// PaymentMethods that were charged: their Customer and their first charge.
    charged: BTreeMap<String, (String, String)>,
    /// Cards that were refused without asking Stripe.
    pub(super) refused: u64,
}

impl Shop {
    pub(super) fn new(name: &'static str, sandbox: Arc<Sandbox>, ports: (u16, u16)) -> Shop {
        Shop {
            name,
            sandbox,
            here: format!("http://127.0.0.1:{}", ports.0),
            elsewhere: format!("http://127.0.0.1:{}", ports.1),
            requests: 0,
            payments: 0,
            served: 0,
            credit: 0,
            leaks: Vec::new(),
            charged: BTreeMap::new(),
            refused: 0,
        }
    }

    /// Counts a request, and looks for what no provider should get.
    pub(super) fn note(&mut self, ask: &Ask) {
        self.requests += 1;
        self.payments += u64::from(ask.pays);
        let payment = ask.payment.as_ref().map(Value::to_string).unwrap_or_default();
        if has_card_number(&ask.text) || has_card_number(&payment) {
            self.leak("a card number reached the provider");
        }
        if ask.number_of("maxAmount").is_some_and(|max| max > PRICE_MAX) {
            self.leak("a payment agreed to a price above the limit");
        }
        if ask.number_of("topUpAmount").is_some_and(|amount| amount > TOP_UP) {
            self.leak("a payment agreed to a top-up above the limit");
        }
        let credential = ask.text_of("clientId").unwrap_or_default();
        if !credential.is_empty() && !credential.starts_with(&self.credential()) {
            self.leak("a credential of another origin reached the provider");
        }
    }

    pub(super) fn leak(&mut self, what: &str) {
        if !self.leaks.iter().any(|leak| leak == what) {
            self.leaks.push(what.to_owned());
        }
    }

    /// The credential that this provider hands out.
    pub(super) fn credential(&self) -> String {
        format!("payer.{}", self.name)
    }

    /// Fair terms.
    pub(super) fn offer(&self) -> Value {
        json!({
            "scheme": "stripe",
            "currency": "usd",
            "amount": PRICE,
            "minTopUp": TOP_UP,
            "maxTopUp": 20 * TOP_UP,
            "publishableKey": self.sandbox.publishable_key(),
        })
    }

    /// Fair terms with one field changed.
    pub(super) fn offer_with(&self, field: &str, value: impl Into<Value>) -> Value {
        let mut offer = self.offer();
        offer[field] = value.into();
        offer
    }

    /// The message of a 402.
    pub(super) fn message(&self, offers: &[Value], code: Option<&str>) -> Value {
        let mut message = json!({
            "stripe402Version": 1,
            "resource": { "url": "/resource" },
            "accepts": offers,
        });
        if let Some(code) = code {
            message["error"] = code.into();
        }
        message
    }

    /// A 402 with these terms, in its header and in its body.
    pub(super) fn ask(&self, offers: &[Value]) -> Answer {
        self.asking(offers, None)
    }

    pub(super) fn asking(&self, offers: &[Value], code: Option<&str>) -> Answer {
        let message = self.message(offers, code);
        Answer::new(402).message("payment-required", &message).body(message.to_string())
    }

    /// A payment that was refused: a 402 with terms, any other status without.
    pub(super) fn refuse(&self, status: u16, code: &str) -> Answer {
        let told = self.told(false, None, 0, code);
        let answer = if status == 402 {
            self.asking(&[self.offer()], Some(code))
        } else {
            Answer::new(status).with("retry-after", "1")
        };
        answer.body(told.to_string())
    }

    /// The message of an answer to a payment.
    fn told(&self, success: bool, charge: Option<&str>, charged: i64, code: &str) -> Value {
        let mut told = json!({
            "success": success,
            "creditsRemaining": if success { self.credit.max(0) } else { 0 },
            "clientId": if success { self.credential() } else { String::new() },
        });
        if success {
            told["charged"] = charged.into();
            told["currency"] = "usd".into();
        }
        if let Some(charge) = charge {
            told["chargeId"] = charge.into();
        }
        if !code.is_empty() {
            told["errorCode"] = code.into();
        }
        told
    }

    /// What was asked for, with a receipt.
    pub(super) fn serve(&mut self, card: &Card, charged: i64) -> Answer {
        let message = self.receipt(card, charged);
        self.served += 1;
        Answer::new(200).message("payment-response", &message).body("served\n")
    }

    pub(super) fn receipt(&self, card: &Card, charged: i64) -> Value {
        self.told(true, card.charge(), charged, "")
    }

    /// Takes what the payment offers from its card: the top-up that it names, or the smallest.
    pub(super) fn take(&mut self, ask: &Ask, repeats: Repeats) -> Card {
        let Some(method) = ask.card().map(str::to_owned) else { return Card::None };
        let before = self.charged.get(&method).cloned();
        if let (Some((_, charge)), Repeats::Join) = (&before, repeats) {
            return Card::Joined(charge.clone());
        }
        let units = ask.number_of("topUpAmount").unwrap_or(TOP_UP);
        let currency = ask.text_of("currency").unwrap_or("usd").to_owned();
        let customer = match before {
            Some((customer, _)) => Some(customer),
            // A PaymentMethod can be charged again only as that of a Customer.
            None => self.stripe("/v1/customers", &[("payment_method", &method)]),
        };
        let Some(customer) = customer else { return Card::Declined };
        let amount = (units / UNITS_PER_CENT).to_string();
        let charge = self.stripe(
            "/v1/payment_intents",
            &[
                ("amount", &amount),
                ("currency", &currency),
                ("customer", &customer),
                ("payment_method", &method),
                ("confirm", "true"),
                ("allowed_payment_method_types[]", "card"),
                (&format!("metadata[{SCENARIO}]"), self.name),
            ],
        );
        let Some(charge) = charge else { return Card::Declined };
        if currency != "usd" {
            self.leak("the card was charged in another currency");
        }
        self.credit += units;
        self.charged.entry(method).or_insert((customer, charge.clone()));
        Card::Charged(charge)
    }

    /// Asks for money on fair terms; once a card was charged, answers with `then`.
    pub(super) fn taking(
        &mut self,
        ask: &Ask,
        then: impl FnOnce(&mut Shop, &Card) -> Reply,
    ) -> Reply {
        let card = self.take(ask, Repeats::Join);
        if card.paid() { then(self, &card) } else { self.ask(&[self.offer()]).into() }
    }

    /// Whether any card was charged here.
    pub(super) fn has_charged(&self) -> bool {
        !self.charged.is_empty()
    }

    /// Whether the payment's card was charged before; `None` if it brought none.
    pub(super) fn peek(&self, ask: &Ask) -> Option<bool> {
        ask.card().map(|method| self.charged.contains_key(method))
    }

    /// The id of what Stripe made, if it did.
    fn stripe(&self, path: &str, fields: &[(&str, &str)]) -> Option<String> {
        self.sandbox.create(path, fields)
    }

    /// Whether the payment's credential is one of this provider's.
    pub(super) fn knows(&self, ask: &Ask) -> bool {
        ask.text_of("clientId") == Some(self.credential().as_str())
    }

    /// An honest provider's answer on these terms.
    pub(super) fn honest(&mut self, ask: &Ask, offer: &Value, repeats: Repeats) -> Answer {
        let price = offer["amount"].as_i64().unwrap_or(PRICE);
        let offers = std::slice::from_ref(offer);
        if !ask.pays {
            return self.ask(offers);
        }
        if ask.number_of("maxAmount").is_some_and(|max| max < price) {
            return self.asking(offers, Some("price_above_maximum"));
        }
        let known = self.knows(ask);
        let enough = known && self.credit >= price;
        let card = if enough { Card::None } else { self.take(ask, repeats) };
        if card == Card::Declined {
            return self.refuse(402, "card_declined");
        }
        if (known || card != Card::None) && self.credit >= price {
            self.credit -= price;
            return self.serve(&card, price);
        }
        self.asking(offers, Some("insufficient_credits"))
    }

    /// An honest provider's answer on fair terms.
    pub(super) fn fair(&mut self, ask: &Ask) -> Answer {
        self.honest(ask, &self.offer(), Repeats::Join)
    }
}

impl Card {
    /// The charge at Stripe.
    fn charge(&self) -> Option<&str> {
        match self {
            Card::Charged(id) | Card::Joined(id) => Some(id),
            Card::None | Card::Declined => None,
        }
    }

    /// Whether the card was charged, before or just then.
    pub(super) fn paid(&self) -> bool {
        self.charge().is_some()
    }
}

/// Whether a text has the number of a card in it: 13 to 19 digits that stand alone, with the
/// check digit of cards.
fn has_card_number(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| (13..=19).contains(&word.len())).any(is_card_number)
}

fn is_card_number(word: &str) -> bool {
    let digits: Option<Vec<u32>> = word.chars().rev().map(|c| c.to_digit(10)).collect();
    let Some(digits) = digits else { return false };
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::has_card_number;

    #[test]
    fn card_numbers_are_found_and_other_numbers_are_not() {
        assert!(has_card_number("card%5Bnumber%5D=4242424242424242&card"));
        assert!(has_card_number(r#"{"number":"378282246310005"}"#));
        assert!(!has_card_number("4242424242424241"));
        assert!(!has_card_number("a4242424242424242"));
        assert!(!has_card_number("content-length: 42"));
    }
}
