use std::str::FromStr as _;

use farebox_protocol::header::{HEADER_BYTES_MAX, encode_json};
use farebox_protocol::{
    ClientId, Credential, CredentialKey, Currency, ErrorCode, Micros, Money, Offer, PayerId,
    Payment, PaymentMethodId, PaymentRequired, PaymentResponse, Resource, TopUpId, Units,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rust_decimal::Decimal;

/// One currency of each kind that Stripe has.
const CURRENCIES: [&str; 7] = ["usd", "jpy", "kwd", "isk", "ugx", "eur", "huf"];

fn currency() -> impl Strategy<Value = Currency> {
    proptest::sample::select(CURRENCIES.as_slice()).prop_map(|code| code.parse().unwrap())
}

fn units() -> impl Strategy<Value = Units> {
    (0..=Units::MAX.get()).prop_map(|units| Units::new(units).unwrap())
}

fn micros() -> impl Strategy<Value = Micros> {
    let any_size = (0..=53_u32).prop_flat_map(|bits| 0..1_i64 << bits);
    any_size.prop_map(|micros| Micros::new(micros).unwrap())
}

fn payer() -> impl Strategy<Value = PayerId> {
    any::<[u8; 32]>().prop_map(PayerId::from_bytes)
}

fn top_up_id() -> impl Strategy<Value = TopUpId> {
    (payer(), currency(), 1_u64..).prop_map(|(payer, currency, number)| TopUpId {
        payer,
        currency,
        number,
    })
}

fn code() -> impl Strategy<Value = ErrorCode> {
    proptest::sample::select(ErrorCode::ALL)
}

prop_compose! {
    fn payment()(
        card in option::of("[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"),
        client_id in option::of("[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"),
        top_up_amount in option::of(units()),
        max_amount in option::of(units()),
        currency in option::of(currency()),
        top_up_id in option::of(top_up_id()),
        min_credit in option::of(units()),
    ) -> Payment {
        let card = card.map(|id| id.parse::<PaymentMethodId>().unwrap());
        let client_id = client_id.map(|id| id.parse::<ClientId>().unwrap());
        let top_up_amount = top_up_amount.filter(|units| units.get() > 0);
        Payment {
            payment_method_id: card, client_id, top_up_amount, max_amount, currency, top_up_id,
            min_credit, ..Payment::default()
        }
    }
}

prop_compose! {
    fn offer()(
        currency in currency(),
        amount in units(),
        min_top_up in units(),
        max_top_up in option::of(units()),
        publishable_key in any::<String>(),
        description in option::of(any::<String>()),
    ) -> Offer {
        Offer { currency, amount, min_top_up, max_top_up, publishable_key, description }
    }
}

prop_compose! {
    fn required()(
        url in any::<String>(),
        description in option::of(any::<String>()),
        mime_type in option::of(any::<String>()),
        accepts in vec(offer(), 0..3),
        error in option::of(code()),
    ) -> PaymentRequired {
        let resource = Resource { url, description, mime_type };
        PaymentRequired { version: Payment::default().version, resource, accepts, error }
    }
}

prop_compose! {
    fn response()(
        success in any::<bool>(),
        charge_id in option::of(any::<String>()),
        credits_remaining in units(),
        client_id in any::<String>(),
        charged in option::of(units()),
        currency in option::of(currency()),
        top_up_id in option::of(top_up_id()),
        error in option::of(any::<String>()),
        error_code in option::of(code()),
    ) -> PaymentResponse {
        PaymentResponse {
            success, charge_id, credits_remaining, client_id, charged, currency, top_up_id, error,
            error_code,
        }
    }
}

/// A header value in the other three base64 dialects.
fn dialects(value: &str) -> [String; 3] {
    let url_safe = value.replace('+', "-").replace('/', "_");
    let bare = |text: &str| text.trim_end_matches('=').to_owned();
    [bare(value), bare(&url_safe), url_safe]
}

proptest! {
    #[test]
    fn a_payment_survives_its_header(payment in payment()) {
        let value = payment.encode();
        for value in dialects(&value).iter().chain([&value]) {
            prop_assert_eq!(Payment::decode(value.as_bytes()), Ok(payment.clone()));
        }
    }

    #[test]
    fn an_offer_survives_its_header(required in required()) {
        let value = required.encode();
        prop_assume!(value.len() <= HEADER_BYTES_MAX);
        for value in dialects(&value).iter().chain([&value]) {
            prop_assert_eq!(PaymentRequired::decode(value.as_bytes()), Ok(required.clone()));
        }
        prop_assert_eq!(PaymentRequired::from_json(&required.to_json()), Ok(required));
    }

    #[test]
    fn a_response_survives_its_header(response in response()) {
        let value = response.encode();
        prop_assume!(value.len() <= HEADER_BYTES_MAX);
        for value in dialects(&value).iter().chain([&value]) {
            prop_assert_eq!(PaymentResponse::decode(value.as_bytes()), Ok(response.clone()));
        }
        prop_assert_eq!(PaymentResponse::from_json(&response.to_json()), Ok(response));
    }

    #[test]
    fn decoders_survive_random_bytes(bytes in vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
        decode_all(encode_json(&bytes).as_bytes());
    }

    /// Good JSON with a few bytes changed reaches further into a decoder than noise does.
    #[test]
    fn decoders_survive_damaged_messages(
        message in prop_oneof![
            payment().prop_map(|message| serde_json::to_vec(&message).unwrap()),
            required().prop_map(|message| message.to_json()),
            response().prop_map(|message| message.to_json()),
        ],
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut json = message;
        for (at, byte) in damage {
            let at = at.index(json.len());
            json[at] = byte;
        }
        decode_all(encode_json(&json).as_bytes());
    }

    #[test]
    fn a_value_has_one_meaning(payment in payment(), at in any::<prop::sample::Index>()) {
        // A value with one character gone is refused or means something else.
        let mut value = payment.encode().trim_end_matches('=').to_owned();
        value.remove(at.index(value.len()));
        prop_assert_ne!(Payment::decode(value.as_bytes()), Ok(payment));
    }

    #[test]
    fn a_card_is_charged_enough_and_less_than_one_step_too_much(
        micros in micros(), currency in currency(),
    ) {
        let minor = currency.minor_ceil(micros).unwrap();
        let step = currency.minor_ceil(Micros::new(1).unwrap()).unwrap();
        let scale = 10_i128.pow(6 - currency.exponent());
        let charged = i128::from(minor) * scale;
        let asked = i128::from(micros.get());
        prop_assert_eq!(minor % step, 0);
        prop_assert!(charged >= asked, "{charged} charged for {asked}");
        prop_assert!(charged - asked < i128::from(step) * scale, "{charged} charged for {asked}");
        // Beyond the largest amount there is no charge; below it, the charge is what was computed.
        let chargeable = currency.chargeable(micros).map(|micros| i128::from(micros.get()));
        let fits = charged <= i128::from(Micros::MAX.get());
        prop_assert_eq!(chargeable, fits.then_some(charged));
    }

    #[test]
    fn units_enclose_micros(micros in micros()) {
        let (floor, ceil) = (micros.units_floor(), micros.units_ceil());
        prop_assert!(floor.micros() <= micros);
        prop_assert!(micros.get() - floor.micros().get() < 100);
        prop_assert!(ceil.micros() >= micros || ceil == Units::MAX);
        prop_assert!(ceil.get() - floor.get() <= 1);
        prop_assert!(Units::new(ceil.get()).is_some());
    }

    #[test]
    fn text_and_decimals_are_the_same_money(
        text in "[0-9]{1,12}(\\.[0-9]{1,6})?", currency in currency(),
    ) {
        let decimal = Decimal::from_str(&text).unwrap();
        prop_assert_eq!(Money::parse(&text, currency), Money::from_decimal(decimal, currency));
    }

    #[test]
    fn money_reads_what_it_shows(micros in micros(), currency in currency()) {
        let money = Money::new(micros, currency);
        let text = money.to_string();
        let (amount, code) = text.split_once(' ').unwrap();
        prop_assert_eq!(Money::parse(amount, code.parse().unwrap()), Ok(money));
        prop_assert_eq!(Money::from_decimal(money.to_decimal(), currency), Ok(money));
    }

    #[test]
    fn parsing_money_survives_any_text(text in "\\PC{0,24}|[0-9.eE+-]{0,24}") {
        if let Ok(money) = Money::parse(&text, Currency::USD) {
            prop_assert!(money.micros() >= Micros::ZERO);
        }
    }

    #[test]
    fn a_credential_names_its_payer_under_its_own_key_only(
        payer in payer(), generation in any::<u32>(), number in any::<Option<u16>>(),
        key in any::<[u8; 32]>(), other in any::<[u8; 32]>(), at in 0..43_usize,
    ) {
        prop_assume!(key != other);
        let client_id = match number {
            Some(number) => CredentialKey::new(&key).issue_further(payer, generation, number),
            None => CredentialKey::new(&key).issue(payer, generation),
        };
        let checked = CredentialKey::new(&key).check(&client_id);
        prop_assert_eq!(checked, Some(Credential { payer, generation, number }));
        prop_assert_eq!(CredentialKey::new(&other).check(&client_id), None);

        let mut forged = client_id.as_str().as_bytes().to_vec();
        let at = forged.len() - 1 - at;
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged: ClientId = String::from_utf8(forged).unwrap().parse().unwrap();
        prop_assert_eq!(CredentialKey::new(&key).check(&forged), None);
    }

    #[test]
    fn ids_read_what_they_show(payer in payer(), top_up in top_up_id()) {
        prop_assert_eq!(payer.to_string().parse(), Ok(payer));
        prop_assert_eq!(top_up.to_string().parse(), Ok(top_up));
    }
}

fn decode_all(value: &[u8]) {
    let _ = Payment::decode(value);
    let _ = PaymentRequired::decode(value);
    let _ = PaymentResponse::decode(value);
}
