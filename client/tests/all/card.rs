use farebox_client::{Card, CardError};

#[test]
fn a_card_is_a_number_an_expiry_and_perhaps_a_code() {
    let cases = [
        ("4242424242424242:12:34:123", None),
        ("4242424242424242:1:2034", None),
        (" 4242-4242 4242 4242:01:34:1234\n", None),
        ("4242424242424242", Some(CardError::Form)),
        ("4242424242424242:12:34:123:9", Some(CardError::Form)),
        ("4242424242:12:34", Some(CardError::Number)),
        ("42424242424242424242:12:34", Some(CardError::Number)),
        ("424242424242424x:12:34", Some(CardError::Number)),
        ("4242424242424242:13:34", Some(CardError::Expiry)),
        ("4242424242424242:0:34", Some(CardError::Expiry)),
        ("4242424242424242:+1:34", Some(CardError::Expiry)),
        ("4242424242424242:12:034", Some(CardError::Expiry)),
        ("4242424242424242:12:34:12", Some(CardError::Cvc)),
        ("4242424242424242:12:34:", Some(CardError::Cvc)),
    ];
    for (text, expected) in cases {
        let error = text.parse::<Card>().err();
        assert_eq!(error, expected, "{text}");
        assert!(error.is_none_or(|error| !error.to_string().contains("4242")), "{text}");
    }
    let missing = Card::from_env("FAREBOX_NO_SUCH_CARD").err();
    assert_eq!(missing, Some(CardError::Variable("FAREBOX_NO_SUCH_CARD".to_owned())));
}
