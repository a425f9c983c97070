//! Money: integers in newtypes, and the only file that knows exponents and decimals.
//!
//! Amounts are kept in [`Micros`] (1/1,000,000 of a major unit), travel in [`Units`]
//! (1/10,000, the number stripe402 counts in) and reach a card in minor units (cents). A
//! [`Money`] is micros of one [`Currency`]; amounts of two currencies never meet.
//!
//! ```
//! use farebox_protocol::{Currency, Micros, usd};
//!
//! let price = usd!("0.0123");
//! assert_eq!(price.micros().get(), 12_300);
//! assert_eq!(price.to_string(), "0.0123 usd");
//! // A card is charged in whole cents, rounded up.
//! assert_eq!(Currency::USD.minor_ceil(price.micros()), Some(2));
//! assert_eq!(Currency::USD.from_minor(2).map(Micros::get), Some(20_000));
//! ```

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The largest amount in micros: 2^53-1, so that every reader of JSON sees the same number.
const MICROS_MAX: i64 = 9_007_199_254_740_991;
const MICROS_PER_UNIT: i64 = 100;
const MICRO_DIGITS: u32 = 6;

/// An amount in micros: 1/1,000,000 of a currency's major unit, between -(2^53-1) and 2^53-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(i64);

impl Micros {
    /// No money.
    pub const ZERO: Micros = Micros(0);
    /// The largest amount that can be stored.
    pub const MAX: Micros = Micros(MICROS_MAX);

    /// An amount of `micros`, unless it is out of range.
    pub const fn new(micros: i64) -> Option<Micros> {
        if micros >= -MICROS_MAX && micros <= MICROS_MAX { Some(Micros(micros)) } else { None }
    }

    /// The number of micros.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, unless it is out of range.
    pub const fn checked_add(self, other: Micros) -> Option<Micros> {
        Micros::new(self.0 + other.0) // two 54-bit numbers cannot overflow an i64
    }

    /// The difference, unless it is out of range.
    pub const fn checked_sub(self, other: Micros) -> Option<Micros> {
        Micros::new(self.0 - other.0)
    }

    /// Whole units in this amount, rounded down and never below zero: how balances are shown.
    pub const fn units_floor(self) -> Units {
        Units(if self.0 < 0 { 0 } else { self.0 / MICROS_PER_UNIT })
    }

    /// Units that cover this amount, rounded up and never below zero: how prices are shown. An
    /// amount above [`Units::MAX`] is shown as that.
    pub const fn units_ceil(self) -> Units {
        if self.0 >= Units::MAX.0 * MICROS_PER_UNIT {
            return Units::MAX;
        }
        let micros = if self.0 < 0 { 0 } else { self.0 };
        Units(micros / MICROS_PER_UNIT + (micros % MICROS_PER_UNIT != 0) as i64)
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let micros = i64::deserialize(deserializer)?;
        Micros::new(micros).ok_or_else(|| de::Error::custom("amount out of range"))
    }
}

/// An amount in units of 1/10,000 of a major unit: what the stripe402 wire counts in. Never
/// negative, and small enough to be [`Micros`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(i64);

impl Units {
    /// The largest amount on the wire.
    pub const MAX: Units = Micros::MAX.units_floor();

    /// An amount of `units`, unless it is negative or out of range.
    pub const fn new(units: i64) -> Option<Units> {
        if units >= 0 && units <= Units::MAX.0 { Some(Units(units)) } else { None }
    }

    /// The number of units.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The same amount in micros.
    pub const fn micros(self) -> Micros {
        Micros(self.0 * MICROS_PER_UNIT)
    }
}

impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units = i64::deserialize(deserializer)?; // refuses 1.0, 1e3 and "5"
        Units::new(units).ok_or_else(|| de::Error::custom("amount out of range"))
    }
}

struct Row {
    code: &'static str,
    /// Decimal digits of the minor unit in Stripe's API (docs.stripe.com/currencies).
    exponent: u32,
    /// Minor units must be a multiple of this.
    step: i64,
    /// Stripe's smallest charge in minor units; 0 where Stripe publishes none.
    minimum: i64,
}

const fn row(code: &'static str, exponent: u32, step: i64, minimum: i64) -> Row {
    Row { code, exponent, step, minimum }
}

/// Currencies with a published minimum, or with an exponent or a step of their own.
const CURRENCIES: &[Row] = &[
    row("usd", 2, 1, 50),
    row("aed", 2, 1, 200),
    row("aud", 2, 1, 50),
    row("bgn", 2, 1, 100),
    row("brl", 2, 1, 50),
    row("cad", 2, 1, 50),
    row("chf", 2, 1, 50),
    row("czk", 2, 1, 1500),
    row("dkk", 2, 1, 250),
    row("eur", 2, 1, 50),
    row("gbp", 2, 1, 30),
    row("hkd", 2, 1, 400),
    row("huf", 2, 1, 17500),
    row("inr", 2, 1, 50),
    row("mxn", 2, 1, 1000),
    row("myr", 2, 1, 200),
    row("nok", 2, 1, 300),
    row("nzd", 2, 1, 50),
    row("pln", 2, 1, 200),
    row("ron", 2, 1, 200),
    row("sek", 2, 1, 300),
    row("sgd", 2, 1, 50),
    row("thb", 2, 1, 1000),
    row("jpy", 0, 1, 50),
    row("bif", 0, 1, 0),
    row("clp", 0, 1, 0),
    row("djf", 0, 1, 0),
    row("gnf", 0, 1, 0),
    row("kmf", 0, 1, 0),
    row("krw", 0, 1, 0),
    row("mga", 0, 1, 0),
    row("pyg", 0, 1, 0),
    row("rwf", 0, 1, 0),
    row("vnd", 0, 1, 0),
    row("vuv", 0, 1, 0),
    row("xaf", 0, 1, 0),
    row("xof", 0, 1, 0),
    row("xpf", 0, 1, 0),
    row("bhd", 3, 10, 0),
    row("jod", 3, 10, 0),
    row("kwd", 3, 10, 0),
    row("omr", 3, 10, 0),
    row("tnd", 3, 10, 0),
    row("isk", 2, 100, 0),
    row("ugx", 2, 100, 0),
    row("ars", 2, 1, 0),
    row("cny", 2, 1, 0),
    row("cop", 2, 1, 0),
    row("egp", 2, 1, 0),
    row("idr", 2, 1, 0),
    row("ils", 2, 1, 0),
    row("kes", 2, 1, 0),
    row("mad", 2, 1, 0),
    row("ngn", 2, 1, 0),
    row("pen", 2, 1, 0),
    row("php", 2, 1, 0),
    row("qar", 2, 1, 0),
    row("sar", 2, 1, 0),
    row("try", 2, 1, 0),
    row("twd", 2, 1, 0),
    row("uah", 2, 1, 0),
    row("zar", 2, 1, 0),
];

/// A currency that Farebox can charge in: a lower-case ISO 4217 code with Stripe's rules for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(u8);

impl Currency {
    /// United States dollar.
    pub const USD: Currency = Currency(0);

    /// The code, as Stripe and the wire spell it: three lower-case letters.
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// Decimal digits of the minor unit: 2 for cents, 0 for yen, 3 for dinars.
    pub const fn exponent(self) -> u32 {
        self.row().exponent
    }

    /// Stripe's smallest charge, where Stripe publishes one for the currency.
    pub const fn minimum_charge(self) -> Option<Micros> {
        if self.row().minimum == 0 { None } else { self.from_minor(self.row().minimum) }
    }

    /// Minor units (cents) as micros, unless the amount is out of range.
    pub const fn from_minor(self, minor: i64) -> Option<Micros> {
        match minor.checked_mul(self.micros_per_minor()) {
            Some(micros) => Micros::new(micros),
            None => None,
        }
    }

    /// The smallest number of minor units that Stripe accepts and that covers `micros`. `None`
    /// for a negative amount.
    pub const fn minor_ceil(self, micros: Micros) -> Option<i64> {
        if micros.0 < 0 {
            return None;
        }
        let step = self.micros_per_minor() * self.row().step;
        Some((micros.0 / step + (micros.0 % step != 0) as i64) * self.row().step)
    }

    /// `micros` rounded up to what a card can be charged, unless it is negative or out of range.
    pub const fn chargeable(self, micros: Micros) -> Option<Micros> {
        match self.minor_ceil(micros) {
            Some(minor) => self.from_minor(minor),
            None => None,
        }
    }

    /// `micros` rounded down to what a card can be given back; zero if it is negative.
    pub const fn refundable(self, micros: Micros) -> Micros {
        let step = self.micros_per_minor() * self.row().step;
        if micros.0 < 0 { Micros::ZERO } else { Micros(micros.0 - micros.0 % step) }
    }

    const fn micros_per_minor(self) -> i64 {
        10_i64.pow(MICRO_DIGITS - self.row().exponent)
    }

    const fn row(self) -> &'static Row {
        &CURRENCIES[self.0 as usize]
    }
}

impl FromStr for Currency {
    type Err = AmountError;

    /// Reads a lower-case code.
    ///
    /// # Errors
    ///
    /// [`AmountError::UnknownCurrency`] for anything that is not in the table.
    fn from_str(code: &str) -> Result<Self, AmountError> {
        let index = CURRENCIES.iter().position(|row| row.code == code);
        index.and_then(|i| u8::try_from(i).ok()).map(Currency).ok_or(AmountError::UnknownCurrency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        code.parse().map_err(de::Error::custom)
    }
}

/// An amount of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    micros: Micros,
    currency: Currency,
}

impl Money {
    /// `micros` of `currency`.
    pub const fn new(micros: Micros, currency: Currency) -> Money {
        Money { micros, currency }
    }

    /// Reads a decimal number of major units, such as `"0.01"`: digits, at most one point, at
    /// most six decimals, no sign and no exponent. Usable in a `const`; see [`usd!`](crate::usd).
    ///
    /// # Errors
    ///
    /// [`AmountError::Malformed`], [`AmountError::TooPrecise`] or [`AmountError::OutOfRange`].
    pub const fn parse(amount: &str, currency: Currency) -> Result<Money, AmountError> {
        let text = amount.as_bytes();
        let (mut micros, mut digits, mut decimals, mut point) = (0_i64, 0_u32, 0_u32, false);
        let mut i = 0;
        while i < text.len() {
            match text[i] {
                b'.' if !point && digits > 0 => point = true,
                digit @ b'0'..=b'9' => {
                    if point {
                        decimals += 1;
                    }
                    digits += 1;
                    micros = micros * 10 + (digit - b'0') as i64;
                }
                _ => return Err(AmountError::Malformed),
            }
            if decimals > MICRO_DIGITS {
                return Err(AmountError::TooPrecise);
            }
            if micros > MICROS_MAX {
                return Err(AmountError::OutOfRange);
            }
            i += 1;
        }
        if digits == 0 || (point && decimals == 0) {
            return Err(AmountError::Malformed);
        }
        match micros.checked_mul(10_i64.pow(MICRO_DIGITS - decimals)) {
            Some(micros) if micros <= MICROS_MAX => Ok(Money::new(Micros(micros), currency)),
            _ => Err(AmountError::OutOfRange),
        }
    }

    /// The amount in micros.
    pub const fn micros(self) -> Micros {
        self.micros
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The amount in major units, exactly.
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.micros.0, MICRO_DIGITS).normalize()
    }

    /// An amount of major units.
    ///
    /// # Errors
    ///
    /// [`AmountError::TooPrecise`] beyond six decimals, [`AmountError::OutOfRange`] beyond
    /// 2^53-1 micros. Nothing is rounded.
    pub fn from_decimal(amount: Decimal, currency: Currency) -> Result<Money, AmountError> {
        let mut exact = amount.normalize();
        if exact.scale() > MICRO_DIGITS {
            return Err(AmountError::TooPrecise);
        }
        exact.rescale(MICRO_DIGITS);
        if exact.scale() != MICRO_DIGITS {
            return Err(AmountError::OutOfRange);
        }
        let micros = i64::try_from(exact.mantissa()).map_err(|_| AmountError::OutOfRange)?;
        let micros = Micros::new(micros).ok_or(AmountError::OutOfRange)?;
        Ok(Money::new(micros, currency))
    }
}

impl fmt::Display for Money {
    /// Major units with at least the currency's own decimals, and the code: `5.00 usd`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut amount = self.to_decimal();
        if amount.scale() < self.currency.exponent() {
            amount.rescale(self.currency.exponent());
        }
        write!(f, "{amount} {}", self.currency)
    }
}

impl FromStr for Money {
    type Err = AmountError;

    /// Reads an amount as [`Display`](fmt::Display) writes it: `5.00 usd`. No sign, one space, a
    /// lower-case code.
    ///
    /// # Errors
    ///
    /// [`AmountError::NoCurrency`] without a code, and those of [`Money::parse`] and
    /// [`Currency`].
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (amount, currency) = text.split_once(' ').ok_or(AmountError::NoCurrency)?;
        Money::parse(amount, currency.parse()?)
    }
}

impl Serialize for Money {
    /// Writes text, `"5.00 usd"`: the amount stays exact in every format.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as \"5.00 usd\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                text.parse().map_err(|error| {
                    E::custom(format_args!(
                        "{text:?} is not an amount such as \"5.00 usd\": {error}"
                    ))
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Dollars, checked by the compiler: `usd!("0.01")` is a [`Money`], `usd!("0.0.1")` does not
/// compile.
///
/// ```compile_fail
/// let price = farebox_protocol::usd!("0.0.1");
/// ```
#[macro_export]
macro_rules! usd {
    ($amount:literal) => {
        const {
            match $crate::Money::parse($amount, $crate::Currency::USD) {
                Ok(money) => money,
                Err(_) => panic!("an amount of dollars is digits with at most six decimals"),
            }
        }
    };
}

/// Why an amount or a currency was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// Not a plain decimal number.
    #[error("an amount is digits with at most one decimal point")]
    Malformed,
    /// More than six decimals.
    #[error("an amount has at most six decimals")]
    TooPrecise,
    /// Beyond 2^53-1 micros.
    #[error("the amount is out of range")]
    OutOfRange,
    /// An amount without the code of its currency.
    #[error("an amount names its currency, as in `5.00 usd`")]
    NoCurrency,
    /// Not a currency of the table.
    #[error("unknown currency")]
    UnknownCurrency,
}
