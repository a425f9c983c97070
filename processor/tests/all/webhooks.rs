//! Whether an event comes from Stripe.

use farebox_processor::{ConfigError, Event, EventKind, Unverified, WebhookSecrets};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::script::top_up_id;

const ROLLED_OUT: &str = "whsec_0123456789abcdef0123456789abcdef";
const ROLLED_IN: &str = "whsec_fedcba9876543210fedcba9876543210";
const FOREIGN: &str = "whsec_ffffffffffffffffffffffffffffffff";
const NOW: i64 = 1_700_000_000;
const BODY: &str = r#"{"id":"evt_1","object":"event","type":"charge.refunded","created":1699999990,"livemode":false,"data":{"object":{"id":"ch_1","payment_intent":"pi_1"}}}"#;

fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(secret: &str, at: i64, body: &[u8]) -> String {
    format!("t={at},v1={}", signature(secret, &at.to_string(), body))
}

fn secrets() -> WebhookSecrets {
    WebhookSecrets::new([ROLLED_OUT, ROLLED_IN]).unwrap()
}

fn verify(header: &str) -> Result<Event, Unverified> {
    secrets().verify(header, BODY.as_bytes(), NOW)
}

fn verify_body(body: &str) -> Result<Event, Unverified> {
    let header = header(ROLLED_IN, NOW, body.as_bytes());
    secrets().verify(&header, body.as_bytes(), NOW)
}

#[test]
fn a_signature_by_another_implementation_holds() {
    // printf '%s' "1700000000.$BODY" | openssl dgst -sha256 -hmac "$ROLLED_OUT"
    let expected = "0c2de4cc587f527ff4b86a91b6f04c65d7c110fdd4843fdfdb50a7694c14e03f";
    let event = verify(&format!("t=1700000000,v1={expected}")).unwrap();
    let refunded = Event {
        id: "evt_1".to_owned(),
        kind: EventKind::ChargeRefunded,
        created: 1_699_999_990,
        livemode: false,
        intent: Some("pi_1".to_owned()),
        top_up: None,
        object: "ch_1".to_owned(),
    };
    assert_eq!(event, refunded);
}

#[test]
fn each_of_several_signatures_counts_against_each_of_several_secrets() {
    let by = |secret| signature(secret, &NOW.to_string(), BODY.as_bytes());
    let (first, second, foreign) = (by(ROLLED_OUT), by(ROLLED_IN), by(FOREIGN));
    for signatures in [
        format!("v1={first}"),
        format!("v1={second}"),
        format!("v1={first},v1={second}"),
        format!("v1={foreign},v1={second}"),
        format!("v1={first},v1={foreign}"),
        format!("v0={foreign},v1={second},v2=,x=y=z"),
        format!("v1=short,v1={second}"),
        format!("v1={foreign},").repeat(15) + &format!("v1={second}"),
    ] {
        assert!(verify(&format!("t={NOW},{signatures}")).is_ok(), "{signatures}");
        assert!(verify(&format!("{signatures},t={NOW}")).is_ok(), "{signatures}");
    }
    for signatures in [
        format!("v1={foreign}"),
        format!("v1={foreign},v0={first}"),
        format!("v1={}", first.to_ascii_uppercase()),
        format!("v1={first}00"),
        format!("v1= {first}"),
        "v1=".to_owned(),
    ] {
        let found = verify(&format!("t={NOW},{signatures}"));
        assert_eq!(found, Err(Unverified::Signature), "{signatures}");
    }
}

#[test]
fn a_header_that_stripe_never_sends_is_malformed() {
    let valid = signature(ROLLED_IN, &NOW.to_string(), BODY.as_bytes());
    let signed = |t: &str| format!("t={t},v1={}", signature(ROLLED_IN, t, BODY.as_bytes()));
    for header in [
        String::new(),
        format!("t={NOW}"),
        format!("v1={valid}"),
        format!("t={NOW},v0={valid}"),
        format!("t={NOW},t={NOW},v1={valid}"),
        format!("t={NOW},v1={valid},"),
        format!("t={NOW};v1={valid}"),
        format!("t={NOW}, v1={valid},t"),
        // Each is signed as it is written.
        signed("+1700000000"),
        signed("01700000000"),
        signed("-0"),
        signed("-1700000000"),
        signed(" 1700000000"),
        signed("1700000000.0"),
        signed("99999999999999999999"),
        signed(""),
        format!("t={NOW},v1={valid}") + &format!(",v1={valid}").repeat(16),
        format!("t={NOW},v1={valid},x={}", "y".repeat(8 * 1024)),
    ] {
        assert_eq!(verify(&header), Err(Unverified::Header), "{header}");
    }
    let fits = format!("t={NOW},v1={valid},x=");
    let padded = format!("{fits}{}", "y".repeat(8 * 1024 - fits.len()));
    assert!(verify(&padded).is_ok());
    assert_eq!(verify(&format!("{padded}y")), Err(Unverified::Header));
}

#[test]
fn three_hundred_seconds_are_tolerated_either_way() {
    use Unverified::{FromTheFuture, TooOld};
    for (age, refused) in [
        (0, None),
        (299, None),
        (300, None),
        (301, Some(TooOld)),
        (NOW, Some(TooOld)),
        (-299, None),
        (-300, None),
        (-301, Some(FromTheFuture)),
        (NOW - i64::MAX, Some(FromTheFuture)),
    ] {
        let header = header(ROLLED_IN, NOW - age, BODY.as_bytes());
        assert_eq!(verify(&header).err(), refused, "{age}");
        // A forger does not learn what time it is here.
        let forged = self::header(FOREIGN, NOW - age, BODY.as_bytes());
        assert_eq!(verify(&forged), Err(Unverified::Signature), "{age}");
    }
    let header = header(ROLLED_IN, i64::MAX, BODY.as_bytes());
    let early = secrets().verify(&header, BODY.as_bytes(), i64::MIN);
    assert_eq!(early, Err(Unverified::FromTheFuture));
}

#[test]
fn an_unknown_kind_is_an_event_and_nothing_follows_from_it() {
    for object in [r#"{"object":"balance"}"#, r#"{"id":7}"#, r#"{"id":"x","metadata":[]}"#] {
        let body = format!(
            r#"{{"id":"evt_2","type":"from.the.future","created":1,"livemode":true,"data":{{"object":{object}}}}}"#
        );
        let event = verify_body(&body).unwrap();
        assert_eq!((event.kind, event.livemode, event.intent), (EventKind::Other, true, None));
    }
}

#[test]
fn an_event_of_an_intent_names_the_intent_and_its_top_up() {
    let body = format!(
        r#"{{"id":"evt_3","type":"payment_intent.succeeded","created":5,"livemode":false,"data":{{"object":{{"id":"pi_7","metadata":{{"top_up":"{}"}}}}}}}}"#,
        top_up_id()
    );
    let event = verify_body(&body).unwrap();
    assert_eq!((event.intent.as_deref(), event.object.as_str()), (Some("pi_7"), "pi_7"));
    assert_eq!((event.top_up, event.created), (Some(top_up_id()), 5));
}

#[test]
fn a_signed_body_that_is_no_event_is_told_apart() {
    for body in [
        "",
        "{}",
        "[]",
        "{",
        r#"{"id":"evt_1","type":"charge.refunded","created":1,"livemode":false}"#,
        r#"{"id":"evt_1","type":"charge.refunded","created":1,"data":{"object":{"id":"ch_1"}}}"#,
        r#"{"id":"evt_1","type":"charge.refunded","created":1,"livemode":false,"data":{"object":{}}}"#,
        r#"{"id":"evt_1","created":1,"livemode":false,"data":{"object":{"id":"ch_1"}}}"#,
        &"[".repeat(100_000),
    ] {
        assert_eq!(verify_body(body), Err(Unverified::Body), "{body:.80}");
    }
    // Nothing is read before the signature holds.
    let header = header(FOREIGN, NOW, b"{");
    assert_eq!(secrets().verify(&header, b"{", NOW), Err(Unverified::Signature));
}

#[test]
fn a_body_need_not_be_text() {
    let body = b"\xff\xfe";
    let header = header(ROLLED_IN, NOW, body);
    assert_eq!(secrets().verify(&header, body, NOW), Err(Unverified::Body));
}

#[test]
fn secrets_are_from_one_to_eight_and_of_stripes_form() {
    let refused = |secrets: &[&str]| WebhookSecrets::new(secrets).err();
    assert_eq!(refused(&[]), Some(ConfigError::WebhookSecretCount));
    assert_eq!(refused(&[ROLLED_IN; 8]), None);
    assert_eq!(refused(&[ROLLED_IN; 9]), Some(ConfigError::WebhookSecretCount));
    assert_eq!(refused(&["whsec_0123456789abcdef"]), None);
    for odd in [
        "",
        "whsec_",
        "whsec_0123456789abcde",
        "whsec_0123456789abcde\n",
        "whsec_0123456789 bcdef",
        "whsec_0123456789abcdeé",
        "sk_test_0123456789abcdef",
        " whsec_0123456789abcdef",
    ] {
        assert_eq!(refused(&[ROLLED_IN, odd]), Some(ConfigError::WebhookSecret), "{odd:?}");
        let said = format!("{:?}", ConfigError::WebhookSecret);
        assert!(!said.contains("0123456789"), "{said}");
    }
    assert_eq!(format!("{:?}", secrets()), "WebhookSecrets(2)");
}

/// SplitMix64: the same numbers for one seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        bytes[at] ^= 1 << self.below(8);
    }
}

/// A delivery as Stripe would make it.
#[derive(Clone, PartialEq)]
struct Delivery {
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Delivery {
    fn new(random: &mut Random) -> Delivery {
        let at = NOW - 300 + i64::try_from(random.below(601)).unwrap();
        let body = format!(
            r#"{{"id":"evt_{}","type":"charge.refunded","created":{at},"livemode":false,"data":{{"object":{{"id":"ch_{}"}}}}}}"#,
            random.next(),
            random.next()
        );
        let secret = [ROLLED_OUT, ROLLED_IN][random.below(2)];
        Delivery { header: header(secret, at, body.as_bytes()).into(), body: body.into() }
    }

    fn is_accepted(&self, secrets: &WebhookSecrets) -> bool {
        // What is no text is no header to begin with.
        let header = std::str::from_utf8(&self.header);
        header.is_ok_and(|header| secrets.verify(header, &self.body, NOW).is_ok())
    }

    fn mutated(&self, random: &mut Random) -> Delivery {
        let mut changed = self.clone();
        let text = String::from_utf8(self.header.clone()).unwrap();
        let (time, signature) = text.split_once(',').unwrap();
        match random.below(7) {
            0 => random.flip(&mut changed.body),
            1 => random.flip(&mut changed.header),
            2 => {
                let at = NOW - 300 + i64::try_from(random.below(601)).unwrap();
                changed.header = format!("t={at},{signature}").into();
            }
            3 => changed.body.truncate(random.below(self.body.len())),
            4 => changed.header.truncate(random.below(self.header.len())),
            5 => {
                let at = time.strip_prefix("t=").unwrap().parse().unwrap();
                changed.header = header(FOREIGN, at, &self.body).into();
            }
            _ => {
                let at = random.below(changed.body.len() + 1);
                changed.body.insert(at, u8::try_from(random.below(256)).unwrap());
            }
        }
        changed
    }
}

#[test]
fn no_mutation_of_a_delivery_is_accepted() {
    const MUTATIONS: usize = 100_000;
    let (secrets, mut random) = (secrets(), Random(0x5eed));
    let mut tried = 0;
    while tried < MUTATIONS {
        let delivery = Delivery::new(&mut random);
        assert!(delivery.is_accepted(&secrets));
        for _ in 0..10 {
            let mutated = delivery.mutated(&mut random);
            // The new time may be the old one.
            if mutated != delivery {
                assert!(!mutated.is_accepted(&secrets), "{:?}", String::from_utf8(mutated.header));
                tried += 1;
            }
        }
    }
}
