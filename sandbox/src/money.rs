//! Currencies, their exponents, and the amounts that Stripe accepts.
//!
//! Source: Stripe's page "Supported currencies" (zero-decimal, three-decimal and special cases,
//! minimum and maximum charge amounts). Minimums that are not listed there are converted by Stripe
//! at the day's rate; here such a currency has none.

use crate::error::{ApiError, ApiResult};

/// A currency that Stripe charges in, in lower case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Currency(&'static str);

/// At most eight digits of minor units.
const MAXIMUM: i64 = 99_999_999;

const CURRENCIES: &str = "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bif bmd bnd \
    bob brl bsd bwp byn bzd cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd \
    fkp gbp gel gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils inr isk jmd jpy kes kgs khr kmf \
    krw kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn \
    nio nok npr nzd pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle \
    sos srd std szl thb tjs top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer \
    zar zmw bhd jod kwd omr tnd";

impl Currency {
    /// Reads a three-letter code of any case.
    pub(crate) fn parse(code: &str) -> ApiResult<Self> {
        let lower = code.to_ascii_lowercase();
        CURRENCIES.split_whitespace().find(|known| *known == lower).map(Self).ok_or_else(|| {
            let known = CURRENCIES.split_whitespace().collect::<Vec<_>>().join(", ");
            let message = format!(
                "Invalid currency: {code}. Stripe currently supports these currencies: {known}"
            );
            ApiError::invalid(message).param("currency")
        })
    }

    pub(crate) fn code(self) -> &'static str {
        self.0
    }

    /// Digits after the decimal point of an amount in minor units.
    fn exponent(self) -> usize {
        match self.0 {
            "bif" | "clp" | "djf" | "gnf" | "jpy" | "kmf" | "krw" | "mga" | "pyg" | "rwf"
            | "vnd" | "vuv" | "xaf" | "xof" | "xpf" => 0,
            "bhd" | "jod" | "kwd" | "omr" | "tnd" => 3,
            _ => 2,
        }
    }

    fn minimum(self) -> i64 {
        match self.0 {
            "usd" | "eur" | "cad" | "chf" | "aud" | "sgd" | "brl" | "inr" | "nzd" | "jpy" => 50,
            "gbp" => 30,
            "dkk" => 250,
            "nok" | "sek" => 300,
            "mxn" | "thb" => 1_000,
            "czk" => 1_500,
            "hkd" => 400,
            "huf" => 17_500,
            "aed" | "myr" | "pln" | "ron" => 200,
            _ => 1,
        }
    }

    /// Amounts must be multiples of this: cards know two decimals of a three-decimal currency,
    /// and none of the two that `isk` and `ugx` kept for compatibility.
    fn step(self) -> i64 {
        match self.0 {
            "isk" | "ugx" => 100,
            _ if self.exponent() == 3 => 10,
            _ => 1,
        }
    }

    /// Checks the amount of a charge, in minor units.
    pub(crate) fn check(self, amount: i64) -> ApiResult<()> {
        if amount < 1 {
            let message = "This value must be greater than or equal to 1.";
            return Err(ApiError::invalid(message)
                .code("parameter_invalid_integer")
                .param("amount"));
        }
        if amount > MAXIMUM {
            let message = format!("Amount must be no more than {}", self.display(MAXIMUM));
            return Err(ApiError::invalid(message).code("amount_too_large").param("amount"));
        }
        if amount < self.minimum() {
            let message = format!("Amount must be at least {}", self.display(self.minimum()));
            return Err(ApiError::invalid(message).code("amount_too_small").param("amount"));
        }
        if amount % self.step() != 0 {
            let message = format!(
                "Invalid amount: in {} an amount must be divisible by {}.",
                self.0,
                self.step()
            );
            return Err(ApiError::invalid(message).param("amount"));
        }
        Ok(())
    }

    /// An amount in minor units, for a message.
    pub(crate) fn display(self, amount: i64) -> String {
        let exponent = self.exponent();
        let digits = format!("{amount:0>width$}", width = exponent + 1);
        let (major, minor) = digits.split_at(digits.len() - exponent);
        let point = if exponent == 0 { "" } else { "." };
        format!("{major}{point}{minor} {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Currency;

    fn accepts(code: &str, amount: i64) -> bool {
        let Ok(currency) = Currency::parse(code) else { panic!("{code} is a currency") };
        currency.check(amount).is_ok()
    }

    #[test]
    fn minimums_and_maximums_are_inclusive() {
        assert!(accepts("usd", 50) && !accepts("usd", 49));
        assert!(accepts("GBP", 30) && !accepts("gbp", 29));
        assert!(accepts("usd", 99_999_999) && !accepts("usd", 100_000_000));
    }

    #[test]
    fn amounts_below_one_are_refused() {
        assert!(!accepts("xaf", 0) && !accepts("xaf", -5) && accepts("xaf", 1));
    }

    #[test]
    fn three_decimal_amounts_end_in_zero_and_isk_in_two() {
        assert!(accepts("kwd", 1_230) && !accepts("kwd", 1_234));
        assert!(accepts("isk", 500) && !accepts("isk", 550));
        assert!(accepts("ugx", 500) && !accepts("ugx", 510));
    }

    #[test]
    fn amounts_are_shown_with_their_decimals() {
        let shown = |code, amount| {
            let Ok(currency) = Currency::parse(code) else { panic!("{code} is a currency") };
            currency.display(amount)
        };
        assert_eq!(shown("usd", 50), "0.50 usd");
        assert_eq!(shown("jpy", 50), "50 jpy");
        assert_eq!(shown("kwd", 1_230), "1.230 kwd");
    }

    #[test]
    fn unknown_currencies_are_refused() {
        assert!(Currency::parse("xyz").is_err() && Currency::parse("").is_err());
    }
}
