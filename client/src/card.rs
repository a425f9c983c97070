//! The card that pays.
//!
//! ```
//! use farebox_client::Card;
//!
//! assert!("4242424242424242:12:34:123".parse::<Card>().is_ok());
//! assert!("4242 4242 4242 4242:12:34".parse::<Card>().is_ok());
//! assert!("4242424242424242".parse::<Card>().is_err());
//! ```

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// A card: it goes to Stripe's tokenizer and nowhere else.
///
/// It has no `Debug` and no `Serialize`, it is never written to the state file, and it is wiped
/// from memory when the last agent that uses it is dropped.
#[expect(missing_debug_implementations, reason = "a card must not be printable")]
pub struct Card {
    number: SecretString,
    month: SecretString,
    year: SecretString,
    cvc: Option<SecretString>,
}

/// Why a text is not a card. It never repeats the text.
///
/// Its Debug is its Display, so that a `main` that returns it prints a sentence.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// The environment variable is not set, or not text.
    #[error("the environment variable {0} does not hold a card: number:mm:yy:cvc")]
    Variable(String),
    /// Not `number:mm:yy` or `number:mm:yy:cvc`.
    #[error("a card is number:mm:yy:cvc, the cvc may be left out")]
    Form,
    /// The number is not 12 to 19 digits.
    #[error("a card number is 12 to 19 digits")]
    Number,
    /// The month is not 1 to 12, or the year is not two or four digits.
    #[error("an expiry is a month of 1 to 12 and a year of two or four digits")]
    Expiry,
    /// The code is not three or four digits.
    #[error("a cvc is three or four digits")]
    Cvc,
}

impl fmt::Debug for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Card {
    /// Reads `number:mm:yy:cvc` from an environment variable.
    ///
    /// # Errors
    ///
    /// [`CardError`] when the variable is not set or holds something else.
    pub fn from_env(variable: &str) -> Result<Card, CardError> {
        let text = std::env::var(variable).map(Zeroizing::new);
        text.map_err(|_| CardError::Variable(variable.to_owned()))?.parse()
    }

    /// The fields as Stripe's API names them.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fixed = [
            ("card[number]", &self.number),
            ("card[exp_month]", &self.month),
            ("card[exp_year]", &self.year),
        ];
        let cvc = self.cvc.as_ref().map(|cvc| ("card[cvc]", cvc));
        fixed.into_iter().chain(cvc).map(|(name, value)| (name, value.expose_secret()))
    }
}

impl FromStr for Card {
    type Err = CardError;

    /// Reads `number:mm:yy` or `number:mm:yy:cvc`; spaces and hyphens in the number are dropped.
    fn from_str(text: &str) -> Result<Card, CardError> {
        let mut parts = text.trim().split(':');
        let (Some(number), Some(month), Some(year), cvc, None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CardError::Form);
        };
        // Room for every character at once: a growing buffer would leave copies behind.
        let mut digits = Zeroizing::new(String::with_capacity(number.len()));
        digits.extend(number.chars().filter(|c| !matches!(c, ' ' | '-')));
        if !is_digits(&digits, 12, 19) {
            return Err(CardError::Number);
        }
        let month_exists = month.parse::<u8>().is_ok_and(|month| (1..=12).contains(&month));
        let years = is_digits(year, 2, 2) || is_digits(year, 4, 4);
        if !is_digits(month, 1, 2) || !month_exists || !years {
            return Err(CardError::Expiry);
        }
        if cvc.is_some_and(|cvc| !is_digits(cvc, 3, 4)) {
            return Err(CardError::Cvc);
        }
        let secret = |text: &str| SecretString::from(text.to_owned());
        let (month, year) = (secret(month), secret(year));
        Ok(Card { number: secret(&digits), month, year, cvc: cvc.map(secret) })
    }
}

fn is_digits(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
