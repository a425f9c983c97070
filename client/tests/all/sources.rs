use farebox_client::{
    Actor, Card, ConfigError, Money, PaymentError, PaymentSource, StoredMethods, TokenizedCard,
    TopUp, Webhook, source_fn, usd,
};
use http::StatusCode;

use crate::support::{CARD, PK, Seen, Server, answer, honest, tokenizer};

const FIVE: Money = usd!("5");

fn top_up(origin: &Server) -> TopUp {
    TopUp::new(origin.url(""), PK, FIVE)
}

fn card_at(tokenizer: &Server) -> TokenizedCard {
    let card: Card = CARD.parse().unwrap();
    TokenizedCard::new(card).unwrap().tokenizer(&tokenizer.url("")).unwrap()
}

#[tokio::test]
async fn a_card_goes_to_the_tokenizer_and_nowhere_else() {
    let stripe = tokenizer().await;
    let (_, provider) = honest(100).await;
    let source = card_at(&stripe);
    for expected in ["pm_1", "pm_2"] {
        let made = source.payment_method(&top_up(&provider)).await.unwrap();
        assert_eq!(made.as_str(), expected, "a new one for every top-up");
    }
    assert!(provider.seen().is_empty());
    let seen = stripe.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.body.contains("card%5Bnumber%5D=4242424242424242")));
    assert!(seen.iter().all(|seen| seen.headers["authorization"] == format!("Bearer {PK}")));
}

#[tokio::test]
async fn a_tokenizer_that_redirects_does_not_move_the_card() {
    let thief = tokenizer().await;
    let target = thief.url("/v1/payment_methods");
    for status in [301, 302, 303, 307, 308] {
        let location = target.clone();
        let stripe = Server::start(move |_: &Seen| {
            let mut response = answer(StatusCode::from_u16(status).unwrap(), "");
            response.headers_mut().insert("location", location.parse().unwrap());
            response
        })
        .await;
        let failed = card_at(&stripe).payment_method(&top_up(&stripe)).await;
        assert!(matches!(failed, Err(PaymentError::TokenizerUnavailable)), "{status}");
    }
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_tokenizer_is_https_or_loopback() {
    for base in [
        "http://api.stripe.com",
        "ftp://127.0.0.1",
        "api.stripe.com",
        "data:text/plain,",
        "https://user@api.stripe.com",
        "https://:secret@api.stripe.com",
        "https://api.stripe.com/?a=b",
        "https://api.stripe.com/#a",
        "",
    ] {
        let card: Card = CARD.parse().unwrap();
        let refused = TokenizedCard::new(card).unwrap().tokenizer(base).err();
        assert!(matches!(refused, Some(ConfigError::Tokenizer)), "{base}");
        assert!(matches!(Webhook::new(base).err(), Some(ConfigError::Approver)), "{base}");
    }
}

#[tokio::test]
async fn a_stored_method_pays_at_the_account_of_its_key_only() {
    let source = StoredMethods::new()
        .with("pk_live_a", "pm_old".parse().unwrap())
        .with("pk_live_a", "pm_a".parse().unwrap())
        .with("pk_live_b", "pm_b".parse().unwrap());
    for (key, expected) in [
        ("pk_live_a", Some("pm_a")),
        ("pk_live_b", Some("pm_b")),
        ("pk_live_c", None),
        ("pk_live_", None),
        ("PK_LIVE_A", None),
        ("", None),
    ] {
        let top_up = TopUp::new("https://api.example.com", key, FIVE);
        match source.payment_method(&top_up).await {
            Ok(method) => assert_eq!(Some(method.as_str()), expected, "{key}"),
            Err(error) => {
                assert_eq!(expected, None, "{key}");
                assert_eq!(error.actor(), Actor::Owner);
                assert!(!error.is_unknown());
                let text = "no PaymentMethod is stored for the publishable key of \
                    https://api.example.com";
                assert_eq!(error.to_string(), text);
            }
        }
    }
}

#[tokio::test]
async fn a_function_is_told_the_top_up_and_its_error_is_the_callers() {
    let source = source_fn(|top_up: TopUp| async move {
        tokio::task::yield_now().await;
        match top_up.publishable_key.as_str() {
            "pk_live_a" if top_up.amount == FIVE => Ok("pm_a".parse().unwrap()),
            "pk_live_b" => {
                let reason = format!("{} is not on the list", top_up.origin);
                Err(PaymentError::SourceRefused { reason })
            }
            _ => Err(PaymentError::SourceUnavailable { reason: "the wallet sleeps".to_owned() }),
        }
    });
    let ask = async |key: &str| {
        source.payment_method(&TopUp::new("https://api.example.com", key, FIVE)).await
    };
    assert_eq!(ask("pk_live_a").await.unwrap().as_str(), "pm_a");
    let refused = ask("pk_live_b").await.unwrap_err();
    let text = "the source of payment refuses: https://api.example.com is not on the list";
    assert_eq!((refused.to_string().as_str(), refused.actor()), (text, Actor::Owner));
    let later = ask("pk_live_c").await.unwrap_err();
    let text = "the source of payment is not ready: the wallet sleeps";
    assert_eq!((later.to_string().as_str(), later.actor()), (text, Actor::Nobody));
    assert!(!refused.is_unknown() && !later.is_unknown(), "nothing was sent");
}

/// Does not compile for a type with Debug: then there are two implementations to choose from.
trait NotPrintable<Which> {
    fn checked() {}
}

struct Printable;

impl<T> NotPrintable<()> for T {}
impl<T: std::fmt::Debug> NotPrintable<Printable> for T {}

#[test]
fn what_holds_cards_ids_and_tokens_cannot_be_printed() {
    <Card as NotPrintable<_>>::checked();
    <TokenizedCard as NotPrintable<_>>::checked();
    <StoredMethods as NotPrintable<_>>::checked();
    <TopUp as NotPrintable<_>>::checked();
    <Webhook as NotPrintable<_>>::checked();
}
