//! What must not be logged, and how it is recognised.

use std::fmt;

/// The cards of the tests that other digits do not begin like, and the beginnings of all.
const BEGINNINGS: [&str; 30] = [
    "400000", "400001", "400002", "400003", "400004", "400005", "400006", "400007", "400008",
    "400009", "400025", "400027", "400038", "400056", "400830", "401288", "410000", "424242",
    "510510", "520082", "520828", "555555", "601100", "601111", "620000", "356600", "371449",
    "378282", "305693", "362272",
];
/// So much of a card that names no other number.
const PARTS: [&[u8]; 5] =
    [b"424242424242", b"242424242424", b"401288888888", b"555555555555", b"378282246310"];
/// Secrets of tests that no form gives away.
const NAMED: [&[u8]; 6] = [
    b"a-token-of-thirty-two-characters",
    b"a token of the tests",
    b"a secret of thirty-two bytes ...",
    b"payer.1.secret",
    b"Bearer a-token",
    b"hush-hush-canary",
];
/// From the name of a field to its digits: `card[cvc]": Some("987`.
const GAP_MAX: usize = 24;

/// Whether a text holds something of a kind.
type Check = fn(&[u8]) -> bool;

/// A kind of secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A card number, or 12 digits of one.
    Card,
    /// A card's code.
    Cvc,
    /// A card's expiry.
    Expiry,
    /// A secret or restricted key of Stripe, or a client secret of an intent.
    SecretKey,
    /// What Stripe signs events with.
    WebhookSecret,
    /// A publishable key: public, but nothing that a log needs.
    PublishableKey,
    /// The id of a PaymentMethod.
    PaymentMethod,
    /// A credential that spends credit.
    Credential,
    /// What follows `Bearer`.
    Bearer,
    /// A token or secret of the tests' own.
    Named,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Card => "card number",
            Kind::Cvc => "card code",
            Kind::Expiry => "card expiry",
            Kind::SecretKey => "secret key",
            Kind::WebhookSecret => "webhook secret",
            Kind::PublishableKey => "publishable key",
            Kind::PaymentMethod => "PaymentMethod",
            Kind::Credential => "credential",
            Kind::Bearer => "bearer token",
            Kind::Named => "secret of a test",
        })
    }
}

impl Kind {
    pub(crate) fn all_in(text: &[u8]) -> impl Iterator<Item = Kind> {
        let checks: [(Kind, Check); 10] = [
            (Kind::Card, has_card),
            (Kind::Cvc, |text| has_field(text, b"cvc", 3..=4)),
            (Kind::Expiry, |text| {
                has_field(text, b"exp_month", 1..=2) || has_field(text, b"exp_year", 2..=4)
            }),
            (Kind::SecretKey, has_secret_key),
            (Kind::WebhookSecret, |text| has_word(text, &[b"whsec_"])),
            (Kind::PublishableKey, |text| has_word(text, &[b"pk_test_", b"pk_live_"])),
            (Kind::PaymentMethod, |text| has_word(text, &[b"pm_"])),
            (Kind::Credential, has_credential),
            (Kind::Bearer, has_bearer),
            (Kind::Named, |text| NAMED.iter().any(|name| places(text, name).next().is_some())),
        ];
        checks.into_iter().filter(|(_, check)| check(text)).map(|(kind, _)| kind)
    }
}

/// Where `part` begins in `text`.
fn places<'a>(text: &'a [u8], part: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = part.first().copied().unwrap_or_default();
    let starts = text.iter().enumerate().filter(move |(_, byte)| **byte == first);
    starts.map(|(at, _)| at).filter(move |at| text[*at..].starts_with(part))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a word begins like this and goes on.
fn has_word(text: &[u8], beginnings: &[&[u8]]) -> bool {
    beginnings.iter().any(|beginning| {
        places(text, beginning).any(|at| {
            let inside = at > 0 && is_word(text[at - 1]);
            let next = text.get(at + beginning.len()).copied();
            !inside && next.is_some_and(|byte| byte.is_ascii_alphanumeric())
        })
    })
}

/// Digits with at most one space, hyphen, plus or point between two of them.
fn has_card(text: &[u8]) -> bool {
    let mut digits: Vec<u8> = Vec::new();
    let mut separated = false;
    for byte in text.iter().copied().chain([b'\n', b'\n']) {
        match byte {
            b'0'..=b'9' => {
                digits.push(byte);
                separated = false;
            }
            b' ' | b'-' | b'+' | b'.' if !separated => separated = true,
            _ => {
                if digits.len() >= 12 && is_card(&digits) {
                    return true;
                }
                digits.clear();
                separated = false;
            }
        }
    }
    false
}

fn is_card(digits: &[u8]) -> bool {
    let part = digits.windows(12).any(|twelve| PARTS.contains(&twelve));
    let begins = |number: &[u8]| BEGINNINGS.iter().any(|six| number.starts_with(six.as_bytes()));
    part || (14..=16).any(|length| digits.windows(length).any(|run| begins(run) && luhn(run)))
}

fn luhn(number: &[u8]) -> bool {
    let digits = number.iter().rev().map(|byte| u32::from(byte - b'0'));
    let sum: u32 = digits
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// A field of this name whose value is so many digits.
fn has_field(text: &[u8], name: &[u8], digits: std::ops::RangeInclusive<usize>) -> bool {
    places(text, name).any(|at| {
        let rest = &text[at + name.len()..];
        let gap = rest.iter().take_while(|byte| !byte.is_ascii_digit()).count();
        let value = rest[gap..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let after = rest.get(gap + value).copied().unwrap_or(b' ');
        let between = &rest[..gap];
        let direct = (1..=GAP_MAX).contains(&gap)
            && !is_word(between[0])
            && !between.iter().any(|byte| b",;&}\n".contains(byte));
        direct && digits.contains(&value) && !is_word(after)
    })
}

fn has_secret_key(text: &[u8]) -> bool {
    let client = |at: usize| {
        let id = text[..at].iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let before = &text[..at - id];
        before.ends_with(b"pi_") || before.ends_with(b"seti_")
    };
    has_word(text, &[b"sk_test_", b"sk_live_", b"rk_test_", b"rk_live_"])
        || places(text, b"_secret_").any(client)
}

/// `payer.generation.secret`, and whatever a payment calls its credential.
fn has_credential(text: &[u8]) -> bool {
    let named = places(text, br#""clientId":""#).any(|at| text.get(at + 12) != Some(&b'"'));
    named
        || places(text, b".").any(|at| {
            let payer = text[..at].iter().rev().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let rest = &text[at + 1..];
            let number = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let secret = rest.get(number + 1..).unwrap_or_default();
            let long = secret.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            payer == 64 && number > 0 && rest.get(number) == Some(&b'.') && long >= 8
        })
}

fn has_bearer(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    places(&lower, b"bearer ").any(|at| {
        let token = &text[at + 7..];
        let allowed = |byte: &&u8| is_word(**byte) || b"-.~+/=".contains(byte);
        let token = &token[..token.iter().take_while(allowed).count()];
        // A word of a sentence is no token.
        token.len() >= 8
            && token.iter().any(|byte| !byte.is_ascii_lowercase())
            && token != b"YOUR_SECRET_KEY"
    })
}
