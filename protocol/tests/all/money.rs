use farebox_protocol::{AmountError, Currency, Micros, Money, Units};
use serde::Deserialize;

use crate::vectors::{Named, cases};

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(flatten)]
    about: About,
}

impl Named for Case {
    fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Deserialize)]
#[serde(
    tag = "kind",
    deny_unknown_fields,
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum About {
    Currency {
        currency: String,
        exponent: Option<u32>,
        step: Option<i64>,
        minimum_micros: Option<i64>,
        refused: Option<String>,
    },
    Units {
        units: i64,
        micros: Option<i64>,
        refused: Option<String>,
    },
    Micros {
        micros: i64,
        units_floor: Option<i64>,
        units_ceil: Option<i64>,
        refused: Option<String>,
    },
    Minor {
        currency: Currency,
        micros: i64,
        minor: Option<i64>,
        charged_micros: Option<i64>,
        refused: Option<String>,
    },
    FromMinor {
        currency: Currency,
        minor: i64,
        micros: Option<i64>,
        refused: Option<String>,
    },
    Parse {
        text: String,
        micros: Option<i64>,
        refused: Option<String>,
    },
}

fn word(error: AmountError) -> &'static str {
    match error {
        AmountError::Malformed => "malformed",
        AmountError::TooPrecise => "too_precise",
        AmountError::OutOfRange => "out_of_range",
        AmountError::UnknownCurrency => "unknown_currency",
        _ => panic!("a vector needs a word for {error:?}"),
    }
}

/// The smallest charge above nothing, in minor units.
fn step(currency: Currency) -> Option<i64> {
    currency.minor_ceil(Micros::new(1)?)
}

fn holds(name: &str, about: About) {
    match about {
        About::Currency { currency, exponent, step: expected, minimum_micros, refused } => {
            match currency.parse::<Currency>() {
                Ok(read) => {
                    assert_eq!(refused, None, "{name}");
                    assert_eq!(read.code(), currency);
                    assert_eq!(Some(read.exponent()), exponent, "{name}");
                    assert_eq!(step(read), expected, "{name}");
                    assert_eq!(read.minimum_charge().map(Micros::get), minimum_micros, "{name}");
                }
                Err(error) => assert_eq!(Some(word(error)), refused.as_deref(), "{name}"),
            }
        }
        About::Units { units, micros, refused } => {
            let read = Units::new(units);
            assert_eq!(read.map(|read| read.micros().get()), micros, "{name}");
            assert_eq!(read.is_none(), refused.is_some(), "{name}");
        }
        About::Micros { micros, units_floor, units_ceil, refused } => {
            let read = Micros::new(micros);
            assert_eq!(read.map(|read| read.units_floor().get()), units_floor, "{name}");
            assert_eq!(read.map(|read| read.units_ceil().get()), units_ceil, "{name}");
            assert_eq!(read.is_none(), refused.is_some(), "{name}");
        }
        About::Minor { currency, micros, minor, charged_micros, refused } => {
            let amount = Micros::new(micros).unwrap();
            assert_eq!(currency.minor_ceil(amount), minor, "{name}");
            assert_eq!(currency.chargeable(amount).map(Micros::get), charged_micros, "{name}");
            assert_eq!(minor.is_none(), refused.is_some(), "{name}");
        }
        About::FromMinor { currency, minor, micros, refused } => {
            assert_eq!(currency.from_minor(minor).map(Micros::get), micros, "{name}");
            assert_eq!(micros.is_none(), refused.is_some(), "{name}");
        }
        About::Parse { text, micros, refused } => match Money::parse(&text, Currency::USD) {
            Ok(money) => {
                assert_eq!((Some(money.micros().get()), None), (micros, refused), "{name}");
            }
            Err(error) => assert_eq!(Some(word(error)), refused.as_deref(), "{name}"),
        },
    }
}

#[test]
fn money_vectors_hold() {
    for case in cases::<Case>("money", 190) {
        holds(&case.name, case.about);
    }
}

#[test]
fn money_shows_the_decimals_of_its_currency() {
    let show = |micros, code: &str| {
        Money::new(Micros::new(micros).unwrap(), code.parse().unwrap()).to_string()
    };
    assert_eq!(show(5_000_000, "usd"), "5.00 usd");
    assert_eq!(show(12_300, "usd"), "0.0123 usd");
    assert_eq!(show(500_000_000, "jpy"), "500 jpy");
    assert_eq!(show(1_235_000, "kwd"), "1.235 kwd");
    assert_eq!(show(-500_000, "usd"), "-0.50 usd");
}

#[test]
fn money_is_read_as_it_is_shown() {
    for text in ["5.00 usd", "0.000001 usd", "500 jpy", "9007199254.740991 kwd"] {
        let money: Money = text.parse().unwrap();
        assert_eq!(money.to_string(), text);
        let json = serde_json::to_string(&money).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
    }
    assert_eq!("5 usd".parse(), Ok(farebox_protocol::usd!("5")));
    let wrong = [
        ("", AmountError::NoCurrency),
        ("5.00", AmountError::NoCurrency),
        ("5.00usd", AmountError::NoCurrency),
        ("5.00 ", AmountError::UnknownCurrency),
        ("5.00  usd", AmountError::UnknownCurrency),
        ("5.00 USD", AmountError::UnknownCurrency),
        ("5.00 usd ", AmountError::UnknownCurrency),
        (" usd", AmountError::Malformed),
        ("-5.00 usd", AmountError::Malformed),
        ("1e3 usd", AmountError::Malformed),
        ("5. usd", AmountError::Malformed),
        ("0.0000001 usd", AmountError::TooPrecise),
        ("9007199254.740992 usd", AmountError::OutOfRange),
    ];
    for (text, error) in wrong {
        assert_eq!(text.parse::<Money>(), Err(error), "{text:?}");
    }
    for json in ["5", "5.0", "{}", "null", "[5, \"usd\"]"] {
        let error = serde_json::from_str::<Money>(json).unwrap_err().to_string();
        assert!(error.contains("an amount such as \"5.00 usd\""), "{error}");
    }
}
