//! Card numbers, and what Stripe's test cards do.
//!
//! Source: Stripe's page "Testing" (cards by brand, declined payments, fraud prevention, invalid
//! data, disputes, refunds, 3D Secure). Card numbers that are not on it are refused as Stripe
//! refuses them in test mode, with two exceptions: of numbers that pass the check digit, every one
//! beginning 424242 succeeds and every one beginning 400001 is declined, so that a test can have as
//! many payers, and as many dead cards, as it likes.

use crate::clock::year_and_month;
use crate::error::{ApiError, ApiResult};
use crate::ids::fingerprint;

/// Why an issuer says no.
pub(crate) struct Decline {
    pub(crate) code: &'static str,
    pub(crate) decline_code: Option<&'static str>,
    pub(crate) message: &'static str,
}

/// What happens when a card is used.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    /// Every charge succeeds.
    Succeeds,
    /// Every charge succeeds, and something follows.
    SucceedsThen(Later),
    /// Charges succeed, but a security code that was given does not match.
    FailsCvc,
    /// Can neither be charged nor saved.
    Declines(&'static Decline),
    /// Can be saved, but every charge is declined.
    DeclinesCharges(&'static Decline),
    /// The cardholder must authenticate before anything happens.
    Authenticates,
    /// Set up earlier: only payments with the cardholder present need authentication.
    AuthenticatesOnSession,
}

/// What follows a charge that succeeded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    /// The cardholder disputes it, for this of Stripe's reasons.
    Dispute(&'static str),
    /// The issuer asks about it.
    Inquiry,
    /// The issuer reports it as fraud.
    FraudWarning,
    /// Its refunds are pending until the network settles them.
    RefundsPend,
    /// Its refunds succeed, and then fail.
    RefundsFail,
}

/// What a card is used for.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    PaymentOnSession,
    PaymentOffSession,
    Setup,
    Attach,
}

/// What comes of it.
pub(crate) enum Verdict {
    Approved,
    Declined(&'static Decline),
    /// The cardholder must act.
    AuthenticationNeeded,
}

impl Behaviour {
    pub(crate) fn verdict(self, of: Use) -> Verdict {
        match (self, of) {
            (Self::Declines(decline), _)
            | (Self::DeclinesCharges(decline), Use::PaymentOnSession | Use::PaymentOffSession) => {
                Verdict::Declined(decline)
            }
            (Self::Authenticates, Use::PaymentOffSession) => {
                Verdict::Declined(&AUTHENTICATION_REQUIRED)
            }
            (Self::Authenticates, Use::PaymentOnSession | Use::Setup)
            | (Self::AuthenticatesOnSession, Use::PaymentOnSession) => {
                Verdict::AuthenticationNeeded
            }
            _ => Verdict::Approved,
        }
    }
}

macro_rules! declines {
    ($($name:ident = $code:literal, $decline_code:expr, $message:literal;)*) => {
        $(static $name: Decline =
            Decline { code: $code, decline_code: $decline_code, message: $message };)*
    };
}

declines! {
    GENERIC = "card_declined", Some("generic_decline"), "Your card was declined.";
    INSUFFICIENT_FUNDS = "card_declined", Some("insufficient_funds"), "Your card has insufficient funds.";
    LOST = "card_declined", Some("lost_card"), "Your card was declined.";
    STOLEN = "card_declined", Some("stolen_card"), "Your card was declined.";
    FRAUDULENT = "card_declined", Some("fraudulent"), "Your card was declined.";
    VELOCITY = "card_declined", Some("card_velocity_exceeded"), "Your card was declined for \
         making repeated attempts too frequently or exceeding its amount limit.";
    AUTHENTICATION_REQUIRED = "authentication_required", Some("authentication_required"), "Your \
         card was declined. This transaction requires authentication.";
    EXPIRED = "expired_card", None, "Your card has expired.";
    INCORRECT_CVC = "incorrect_cvc", None, "Your card's security code is incorrect.";
    PROCESSING_ERROR = "processing_error", None, "An error occurred while processing your card. \
         Try again in a little bit.";
}

impl Decline {
    pub(crate) fn error(&self) -> ApiError {
        let error = ApiError::card(self.code, self.message);
        match self.decline_code {
            Some(code) => error.decline_code(code),
            None => error,
        }
    }

    /// Stripe's risk rules stopped the payment; no issuer was asked.
    pub(crate) fn blocked(&self) -> bool {
        self.decline_code == FRAUDULENT.decline_code
    }
}

struct TestCard {
    number: &'static str,
    /// Names after `pm_card_` and `tok_`.
    aliases: &'static [&'static str],
    funding: &'static str,
    behaviour: Behaviour,
}

const fn card(
    number: &'static str,
    aliases: &'static [&'static str],
    funding: &'static str,
    behaviour: Behaviour,
) -> TestCard {
    TestCard { number, aliases, funding, behaviour }
}

/// Stripe spells some aliases with `visa_` and some without; where it once did both, both are here.
#[rustfmt::skip]
static TEST_CARDS: &[TestCard] = &[
    card("4242424242424242", &["visa", "us"], "credit", Behaviour::Succeeds),
    card("4000056655665556", &["visa_debit"], "debit", Behaviour::Succeeds),
    card("5555555555554444", &["mastercard"], "credit", Behaviour::Succeeds),
    card("2223003122003222", &[], "credit", Behaviour::Succeeds),
    card("5200828282828210", &["mastercard_debit"], "debit", Behaviour::Succeeds),
    card("5105105105105100", &["mastercard_prepaid"], "prepaid", Behaviour::Succeeds),
    card("378282246310005", &["amex"], "credit", Behaviour::Succeeds),
    card("371449635398431", &[], "credit", Behaviour::Succeeds),
    card("6011111111111117", &["discover"], "credit", Behaviour::Succeeds),
    card("6011000990139424", &[], "credit", Behaviour::Succeeds),
    card("3056930009020004", &["diners"], "credit", Behaviour::Succeeds),
    card("36227206271667", &[], "credit", Behaviour::Succeeds),
    card("3566002020360505", &["jcb"], "credit", Behaviour::Succeeds),
    card("6200000000000005", &["unionpay"], "credit", Behaviour::Succeeds),
    card("4000000000000101", &["cvcCheckFail"], "credit", Behaviour::FailsCvc),
    card("4000000000000259", &["createDispute"], "credit", Behaviour::SucceedsThen(Later::Dispute("fraudulent"))),
    card("4000000000002685", &["createDisputeProductNotReceived"], "credit", Behaviour::SucceedsThen(Later::Dispute("product_not_received"))),
    card("4000000000001976", &["createDisputeInquiry"], "credit", Behaviour::SucceedsThen(Later::Inquiry)),
    card("4000000000005423", &["createIssuerFraudRecord"], "credit", Behaviour::SucceedsThen(Later::FraudWarning)),
    card("4000000000007726", &["pendingRefund"], "credit", Behaviour::SucceedsThen(Later::RefundsPend)),
    card("4000000000005126", &["refundFail"], "credit", Behaviour::SucceedsThen(Later::RefundsFail)),
    card("4000000000000002", &["visa_chargeDeclined", "chargeDeclined"], "credit", Behaviour::Declines(&GENERIC)),
    card("4000000000009995", &["visa_chargeDeclinedInsufficientFunds", "chargeDeclinedInsufficientFunds"], "credit", Behaviour::Declines(&INSUFFICIENT_FUNDS)),
    card("4000000000009987", &["visa_chargeDeclinedLostCard"], "credit", Behaviour::Declines(&LOST)),
    card("4000000000009979", &["visa_chargeDeclinedStolenCard"], "credit", Behaviour::Declines(&STOLEN)),
    card("4000000000006975", &["visa_chargeDeclinedVelocityLimitExceeded"], "credit", Behaviour::Declines(&VELOCITY)),
    card("4000000000000069", &["chargeDeclinedExpiredCard"], "credit", Behaviour::Declines(&EXPIRED)),
    card("4000000000000127", &["chargeDeclinedIncorrectCvc"], "credit", Behaviour::Declines(&INCORRECT_CVC)),
    card("4000000000000119", &["chargeDeclinedProcessingError"], "credit", Behaviour::Declines(&PROCESSING_ERROR)),
    card("4100000000000019", &["radarBlock", "chargeDeclinedFraudulent"], "credit", Behaviour::Declines(&FRAUDULENT)),
    card("4000000000000341", &["chargeCustomerFail"], "credit", Behaviour::DeclinesCharges(&GENERIC)),
    card("4000002760003184", &["authenticationRequired"], "credit", Behaviour::Authenticates),
    // Authentication cannot be completed here, so "unless set up before" never comes true.
    card("4000002500003155", &["authenticationRequiredOnSetup"], "credit", Behaviour::Authenticates),
    card("4000000000003220", &["threeDSecure2Required"], "credit", Behaviour::Authenticates),
    card("4000003800000446", &["authenticationRequiredSetupForOffSession"], "credit", Behaviour::AuthenticatesOnSession),
];

/// Digits that identify a card. No Debug and no Display: it must not reach a log.
pub(crate) struct CardNumber(String);

/// The digits on the back. Never stored, only that there were any.
pub(crate) struct Cvc(String);

/// What a caller typed.
pub(crate) struct CardInput {
    pub(crate) number: CardNumber,
    pub(crate) exp_month: i64,
    pub(crate) exp_year: i64,
    pub(crate) cvc: Option<Cvc>,
}

/// What is kept of a card.
#[derive(Clone)]
pub(crate) struct Card {
    pub(crate) brand: &'static str,
    pub(crate) funding: &'static str,
    pub(crate) last4: String,
    pub(crate) exp_month: i64,
    pub(crate) exp_year: i64,
    pub(crate) fingerprint: String,
    pub(crate) cvc_given: bool,
    pub(crate) behaviour: Behaviour,
}

impl CardNumber {
    /// Spaces and dashes are how people write card numbers.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.chars().filter(|c| !matches!(c, ' ' | '-')).collect())
    }

    /// The brand that issues this range and the lengths it uses.
    fn brand(&self) -> Option<(&'static str, std::ops::RangeInclusive<usize>)> {
        let prefix = |digits: usize| self.0.get(..digits)?.parse::<u32>().ok();
        match (prefix(2)?, prefix(4)?) {
            (40..=49, _) => Some(("visa", 16..=16)),
            (51..=55, _) | (_, 2221..=2720) => Some(("mastercard", 16..=16)),
            (34 | 37, _) => Some(("amex", 15..=15)),
            (36, _) => Some(("diners", 14..=16)),
            (30 | 38 | 39, _) => Some(("diners", 14..=16)),
            (35, _) => Some(("jcb", 16..=16)),
            (62, _) => Some(("unionpay", 16..=19)),
            (64 | 65, _) | (_, 6011) => Some(("discover", 16..=16)),
            _ => None,
        }
    }

    fn passes_luhn(&self) -> bool {
        let sum: u32 = self
            .0
            .bytes()
            .rev()
            .enumerate()
            .map(|(at, byte)| {
                let digit = u32::from(byte - b'0');
                let doubled = if at % 2 == 1 { digit * 2 } else { digit };
                if doubled > 9 { doubled - 9 } else { doubled }
            })
            .sum();
        sum.is_multiple_of(10)
    }

    /// The brand, or what Stripe says to a number that can be no card.
    fn check(&self) -> ApiResult<&'static str> {
        let not_a_number = || {
            ApiError::card("invalid_number", "The card number is not a valid credit card number.")
                .param("number")
        };
        if self.0.is_empty() || !self.0.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(not_a_number());
        }
        let (brand, lengths) = self.brand().ok_or_else(not_a_number)?;
        if !lengths.contains(&self.0.len()) || !self.passes_luhn() {
            return Err(ApiError::card("incorrect_number", "Your card number is incorrect.")
                .param("number"));
        }
        Ok(brand)
    }

    fn test_card(&self) -> ApiResult<(&'static str, Behaviour)> {
        if let Some(card) = TEST_CARDS.iter().find(|card| card.number == self.0) {
            return Ok((card.funding, card.behaviour));
        }
        if self.0.starts_with("424242") {
            return Ok(("credit", Behaviour::Succeeds));
        }
        if self.0.starts_with("400001") {
            return Ok(("credit", Behaviour::Declines(&GENERIC)));
        }
        let message = "Your card was declined. Your request was in test mode, but used a non test \
             card. For a list of valid test cards, visit: https://stripe.com/docs/testing.";
        Err(ApiError::card("card_declined", message)
            .decline_code("test_mode_live_card")
            .param("number"))
    }
}

impl Card {
    /// What follows a charge of this card.
    pub(crate) fn later(&self) -> Option<Later> {
        match self.behaviour {
            Behaviour::SucceedsThen(later) => Some(later),
            _ => None,
        }
    }

    /// What an issuer that was asked said about the security code; nothing if none was given.
    pub(crate) fn cvc_check(&self) -> Option<&'static str> {
        let wrong = match self.behaviour {
            Behaviour::FailsCvc => true,
            Behaviour::Declines(decline) => decline.code == INCORRECT_CVC.code,
            _ => false,
        };
        self.cvc_given.then_some(if wrong { "fail" } else { "pass" })
    }
}

impl Cvc {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    fn fits(&self, brand: &str) -> bool {
        let length = if brand == "amex" { 4 } else { 3 };
        self.0.len() == length && self.0.bytes().all(|byte| byte.is_ascii_digit())
    }
}

impl CardInput {
    /// Checks what can be checked without asking an issuer.
    pub(crate) fn into_card(self, now: i64) -> ApiResult<Card> {
        let brand = self.number.check()?;
        let exp_year =
            if (0..100).contains(&self.exp_year) { self.exp_year + 2_000 } else { self.exp_year };
        check_expiry(self.exp_month, exp_year, now)?;
        if self.cvc.as_ref().is_some_and(|cvc| !cvc.fits(brand)) {
            return Err(
                ApiError::card("invalid_cvc", "Your card's security code is invalid.").param("cvc")
            );
        }
        let (funding, behaviour) = self.number.test_card()?;
        let digits = self.number.0;
        Ok(Card {
            brand,
            funding,
            last4: digits[digits.len() - 4..].to_owned(),
            exp_month: self.exp_month,
            exp_year,
            fingerprint: fingerprint(&digits),
            cvc_given: self.cvc.is_some(),
            behaviour,
        })
    }
}

fn check_expiry(month: i64, year: i64, now: i64) -> ApiResult<()> {
    let (this_year, this_month) = year_and_month(now);
    let bad_month = || {
        ApiError::card("invalid_expiry_month", "Your card's expiration month is invalid.")
            .param("exp_month")
    };
    if !(1..=12).contains(&month) {
        return Err(bad_month());
    }
    if year < this_year || year > this_year + 50 {
        return Err(ApiError::card(
            "invalid_expiry_year",
            "Your card's expiration year is invalid.",
        )
        .param("exp_year"));
    }
    if year == this_year && month < this_month {
        return Err(bad_month());
    }
    Ok(())
}

/// The card behind `pm_card_visa` or `tok_visa` (without the prefix), valid for five more years
/// and with a security code.
pub(crate) fn by_alias(alias: &str, now: i64) -> Option<ApiResult<Card>> {
    let card = TEST_CARDS.iter().find(|card| card.aliases.contains(&alias))?;
    let number = CardNumber::new(card.number);
    let cvc = if number.0.len() == 15 { "1234" } else { "123" };
    let input = CardInput {
        number,
        exp_month: 12,
        exp_year: year_and_month(now).0 + 5,
        cvc: Some(Cvc::new(cvc.to_owned())),
    };
    Some(input.into_card(now))
}

#[cfg(test)]
mod tests {
    use super::{CardInput, CardNumber, Cvc, TEST_CARDS, by_alias};

    const NOW: i64 = 1_790_000_000; // September 2026

    fn code(number: &str, month: i64, year: i64, cvc: &str) -> Option<String> {
        let input = CardInput {
            number: CardNumber::new(number),
            exp_month: month,
            exp_year: year,
            cvc: Some(Cvc::new(cvc.to_owned())),
        };
        let error = input.into_card(NOW).err()?;
        Some(error.object()["code"].as_str().unwrap().to_owned())
    }

    #[test]
    fn every_test_card_is_a_sound_card_and_every_alias_is_its_own() {
        let mut aliases: Vec<_> = TEST_CARDS.iter().flat_map(|card| card.aliases).collect();
        for alias in &aliases {
            assert!(by_alias(alias, NOW).unwrap().is_ok(), "{alias}");
        }
        let all = aliases.len();
        aliases.sort();
        aliases.dedup();
        assert_eq!(all, aliases.len());
        assert!(TEST_CARDS.iter().all(|card| CardNumber::new(card.number).check().is_ok()));
    }

    #[test]
    fn bad_card_data_has_its_own_code() {
        let cases = [
            ("4242 4242 4242 4241", 12, 2030, "123", "incorrect_number"),
            ("37828224631000", 12, 2030, "1234", "incorrect_number"),
            ("42424242x2424242", 12, 2030, "123", "invalid_number"),
            ("9999999999999995", 12, 2030, "123", "invalid_number"),
            ("4242424242424242", 13, 2030, "123", "invalid_expiry_month"),
            ("4242424242424242", 8, 2026, "123", "invalid_expiry_month"),
            ("4242424242424242", 12, 2025, "123", "invalid_expiry_year"),
            ("4242424242424242", 12, 2077, "123", "invalid_expiry_year"),
            ("4242424242424242", 12, 2030, "12", "invalid_cvc"),
            ("378282246310005", 12, 2030, "123", "invalid_cvc"),
            ("4012888888881881", 12, 2030, "123", "card_declined"),
        ];
        for (number, month, year, cvc, expected) in cases {
            assert_eq!(code(number, month, year, cvc).as_deref(), Some(expected), "{number}");
        }
    }

    #[test]
    fn short_years_spaces_and_the_current_month_are_fine() {
        assert_eq!(code("4242-4242 42424242", 9, 26, "123"), None);
        assert_eq!(code("378282246310005", 12, 2030, "1234"), None);
    }
}
