//! What each command does to a book.

use farebox_ledger::book::{Line, Route};
use farebox_ledger::conformance::Model;
use farebox_ledger::{Command, Outcome, Proof, Then, Timestamp, Totals};
use farebox_protocol::{Currency, ErrorCode, Micros, PayerId, PaymentMethodId, usd};

const USD: Currency = Currency::USD;

pub(crate) fn method(name: &str) -> PaymentMethodId {
    name.parse().unwrap()
}

pub(crate) fn open(number: u64, needed: Option<Micros>) -> Command {
    let (method, card, call) = (method("pm_1"), PayerId::from_bytes([9; 32]), "call".to_owned());
    Command::OpenTopUp { currency: USD, number, needed, method, card, call }
}

pub(crate) fn observe(number: u64, seen_version: u64, received: Micros) -> Command {
    let (intent, totals) = (format!("pi_{number}"), Totals { received, ..Totals::default() });
    Command::Observe { currency: USD, number, intent, seen_version, totals }
}

pub(crate) fn reserve(id: u128, amount: Micros) -> Command {
    let proof = Proof::Credential { generation: 1, number: None };
    Command::Reserve { id: id.into(), currency: USD, amount, ttl: 1_000, proof, claim: None }
}

pub(crate) fn settle(id: u128, spent: Micros) -> Command {
    let lines = vec![Line { route: Route::new("/joke"), spent }];
    Command::Settle { id: id.into(), claim: None, lines, then: Then::Close }
}

/// Steps a model and asserts each outcome.
fn run(steps: Vec<(Command, Outcome)>) -> Model {
    let mut model = Model::default();
    for (command, expected) in steps {
        let outcome = model.step(&command, Timestamp::from_millis(1)).unwrap();
        assert_eq!(outcome, expected, "{command:?}");
    }
    model
}

fn funded(money: Micros) -> Vec<(Command, Outcome)> {
    vec![
        (open(1, None), Outcome::Opened),
        (observe(1, 0, money), Outcome::Observed { difference: money }),
    ]
}

#[test]
fn a_charge_observed_twice_is_credited_once() {
    let five = usd!("5").micros();
    let mut steps = funded(five);
    steps.push((observe(1, 0, five), Outcome::Observed { difference: Micros::ZERO }));
    steps.push((observe(1, 1, five), Outcome::Observed { difference: Micros::ZERO }));
    assert_eq!(run(steps).book().head.account(USD).available, five);
}

#[test]
fn an_observation_older_than_the_book_is_refused() {
    let mut steps = funded(usd!("5").micros());
    steps.push((observe(1, 0, usd!("4").micros()), Outcome::Conflict));
    run(steps);
}

#[test]
fn another_intent_cannot_be_credited_to_a_top_up() {
    let mut model = run(funded(usd!("5").micros()));
    let totals = Totals { received: usd!("9").micros(), ..Totals::default() };
    let intent = "pi_other".to_owned();
    let other = Command::Observe { currency: USD, number: 1, intent, seen_version: 1, totals };
    assert_eq!(model.step(&other, Timestamp::from_millis(2)), Ok(Outcome::Conflict));
}

#[test]
fn a_charge_that_succeeds_after_its_top_up_failed_is_credited() {
    let fail = Command::FailTopUp { currency: USD, number: 1, code: ErrorCode::CardDeclined };
    let five = usd!("5").micros();
    let model = run(vec![
        (open(1, None), Outcome::Opened),
        (fail.clone(), Outcome::Failed),
        (observe(1, 0, five), Outcome::Observed { difference: five }),
        (fail, Outcome::Succeeded),
    ]);
    assert_eq!(model.book().head.account(USD).available, five);
    assert_eq!(model.book().head.account(USD).ended, 1);
}

#[test]
fn money_that_was_taken_back_leaves_and_returns() {
    let five = usd!("5").micros();
    let mut steps = funded(five);
    steps.push((reserve(1, five), Outcome::Reserved { available: Micros::ZERO }));
    steps.push((settle(1, five), Outcome::Settled { available: Micros::ZERO }));
    let taken = Totals { received: five, withdrawn: five, ..Totals::default() };
    let intent = "pi_1".to_owned();
    let dispute =
        Command::Observe { currency: USD, number: 1, intent, seen_version: 1, totals: taken };
    let minus = Micros::new(-five.get()).unwrap();
    steps.push((dispute, Outcome::Observed { difference: minus }));
    steps.push((
        reserve(2, Micros::new(1).unwrap()),
        Outcome::Insufficient { missing: Micros::new(five.get() + 1).unwrap() },
    ));
    steps.push((observe(1, 2, five), Outcome::Observed { difference: five }));
    assert_eq!(run(steps).book().head.account(USD).available, Micros::ZERO);
}

#[test]
fn a_reservation_is_settled_once() {
    let cent = usd!("0.01").micros();
    let left = usd!("4.99").micros();
    let mut steps = funded(usd!("5").micros());
    steps.push((reserve(1, cent), Outcome::Reserved { available: left }));
    steps.push((reserve(1, cent), Outcome::Reserved { available: left }));
    steps.push((reserve(1, left), Outcome::Conflict));
    steps.push((settle(1, left), Outcome::OutOfRange));
    steps.push((settle(1, cent), Outcome::Settled { available: left }));
    steps.push((settle(1, cent), Outcome::Expired));
    run(steps);
}

#[test]
fn a_release_returns_everything() {
    let five = usd!("5").micros();
    let mut steps = funded(five);
    steps.push((reserve(1, five), Outcome::Reserved { available: Micros::ZERO }));
    steps.push((settle(1, Micros::ZERO), Outcome::Settled { available: five }));
    assert_eq!(run(steps).book().head.account(USD).spent, Micros::ZERO);
}

#[test]
fn a_negative_amount_reserves_nothing() {
    let mut steps = funded(usd!("5").micros());
    steps.push((reserve(1, Micros::new(-50).unwrap()), Outcome::OutOfRange));
    run(steps);
}

#[test]
fn one_top_up_is_open_and_only_the_next_number_opens() {
    let five = usd!("5").micros();
    run(vec![
        (open(2, None), Outcome::Stale { number: 1 }),
        (open(1, Some(five)), Outcome::Opened),
        (open(1, None), Outcome::Joined { number: 1 }),
        (observe(1, 0, five), Outcome::Observed { difference: five }),
        (open(2, Some(five)), Outcome::NotNeeded),
        (open(1, Some(usd!("6").micros())), Outcome::Stale { number: 2 }),
        (open(2, Some(usd!("6").micros())), Outcome::Opened),
    ]);
}

#[test]
fn a_charge_that_is_only_a_proof_is_not_repeated_for_a_known_card() {
    let five = usd!("5").micros();
    let mut steps = funded(five);
    steps.push((open(2, None), Outcome::NotNeeded));
    steps.push((Command::RevokeCredentials, Outcome::Revoked { generation: 2 }));
    steps.push((open(2, None), Outcome::Opened));
    run(steps);
}

#[test]
fn a_later_observation_does_not_bring_back_a_card_that_was_forgotten() {
    let five = usd!("5").micros();
    let mut steps = funded(five);
    steps.push((Command::RevokeCredentials, Outcome::Revoked { generation: 2 }));
    steps.push((
        observe(1, 1, usd!("6").micros()),
        Outcome::Observed { difference: usd!("1").micros() },
    ));
    assert!(run(steps).book().head.known.is_empty());
}

#[test]
fn revoking_ends_credentials_and_forgets_cards() {
    let by_card = |id: u128| Command::Reserve {
        id: id.into(),
        currency: USD,
        amount: Micros::ZERO,
        ttl: 1_000,
        proof: Proof::Method(method("pm_1")),
        claim: None,
    };
    let available = usd!("5").micros();
    let mut steps = funded(available);
    steps.push((by_card(1), Outcome::Reserved { available }));
    steps.push((Command::RevokeCredentials, Outcome::Revoked { generation: 2 }));
    steps.push((by_card(2), Outcome::Unauthorized));
    steps.push((reserve(3, Micros::ZERO), Outcome::Unauthorized));
    run(steps);
}

#[test]
fn the_seventeenth_card_displaces_the_least_recently_used() {
    let link = |n: u32| Command::LinkCard { method: method(&format!("pm_{n}")) };
    let mut steps: Vec<_> = (0..16).map(|n| (link(n), Outcome::Linked)).collect();
    steps.push((link(0), Outcome::Linked)); // used again
    steps.push((link(16), Outcome::Linked));
    let model = run(steps);
    assert!(model.book().head.knows(&method("pm_0")) && !model.book().head.knows(&method("pm_1")));
    assert_eq!(model.book().head.known.len(), 16);
}

#[test]
fn a_card_belongs_to_who_showed_it_first() {
    let [first, second] = [[1; 32], [2; 32]].map(PayerId::from_bytes);
    run(vec![
        (Command::OwnCard { owner: first }, Outcome::Owner(first)),
        (Command::OwnCard { owner: second }, Outcome::Owner(first)),
    ]);
}

#[test]
fn a_customer_is_replaced_only_by_who_knows_it() {
    let set = |customer: &str, replaces: Option<&str>| Command::SetCustomer {
        customer: customer.to_owned(),
        replaces: replaces.map(str::to_owned),
    };
    let is = |customer: &str| Outcome::Customer(customer.to_owned());
    run(vec![
        (set("cus_1", None), is("cus_1")),
        (set("cus_2", None), is("cus_1")),
        (set("cus_2", Some("cus_1")), is("cus_2")),
        (set("cus_3", Some("cus_1")), is("cus_2")),
    ]);
}

#[test]
fn currencies_never_meet() {
    let jpy: Currency = "jpy".parse().unwrap();
    let mut model = run(funded(usd!("5").micros()));
    let Command::Reserve { id, amount, ttl, proof, claim, .. } = reserve(1, usd!("1").micros())
    else {
        panic!("it reserves")
    };
    let yen = Command::Reserve { id, currency: jpy, amount, ttl, proof, claim };
    let missing = usd!("1").micros();
    assert_eq!(model.step(&yen, Timestamp::from_millis(2)), Ok(Outcome::Insufficient { missing }));
}
