//! What each command does to a book.

use farebox_ledger::book::{ClaimKey, Fingerprint, Limit, Line, Route};
use farebox_ledger::conformance::Model;
use farebox_ledger::machine::ClaimOf;
use farebox_ledger::{Command, EntryId, Outcome, Proof, Then, Timestamp, Totals};
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

fn micros(n: i64) -> Micros {
    Micros::new(n).unwrap()
}

const KEY: ClaimKey = ClaimKey::from_bytes([5; 32]);

/// A keyed reservation of a request.
fn keyed(id: u128, amount: i64, request: u8) -> Command {
    let proof = Proof::Credential { generation: 1, number: None };
    let claim = Some(ClaimOf { key: KEY, fingerprint: Fingerprint::from_bytes([request; 32]) });
    let amount = micros(amount);
    Command::Reserve { id: id.into(), currency: USD, amount, ttl: 1_000, proof, claim }
}

fn settle_keyed(id: u128, spent: i64) -> Command {
    metered(id, Some(KEY), &[("/joke", spent)], Then::Close)
}

fn metered(id: u128, claim: Option<ClaimKey>, lines: &[(&str, i64)], then: Then) -> Command {
    let line =
        |(route, spent): &(&str, i64)| Line { route: Route::new(route), spent: micros(*spent) };
    let lines = lines.iter().map(line).collect();
    Command::Settle { id: id.into(), claim, lines, then }
}

/// Steps a model at the times given, in milliseconds, and asserts each outcome.
fn timed(model: &mut Model, steps: &[(i64, Command, Outcome)]) {
    for (at, command, expected) in steps {
        let outcome = model.step(command, Timestamp::from_millis(*at)).unwrap();
        assert_eq!(outcome, *expected, "{command:?} at {at}");
    }
}

/// A book with five dollars, one charge.
fn five() -> Model {
    run(funded(usd!("5").micros()))
}

fn reserved(available: i64) -> Outcome {
    Outcome::Reserved { available: micros(available) }
}

fn settled(available: i64) -> Outcome {
    Outcome::Settled { available: micros(available) }
}

#[test]
fn a_keyed_request_is_charged_once_and_remembered_for_a_day() {
    let day = 24 * 3_600 * 1_000;
    let (done, mut model) = (Outcome::Done { charged: micros(100) }, five());
    let steps = [
        (10, keyed(1, 300, 1), reserved(4_999_700)),
        (10, keyed(1, 300, 1), reserved(4_999_700)), // our own repeat
        (11, keyed(2, 300, 1), Outcome::InFlight),
        (11, keyed(2, 300, 2), Outcome::Conflict),
        (12, settle_keyed(1, 100), settled(4_999_900)),
        (13, settle_keyed(1, 100), settled(4_999_900)), // our own repeat
        (13, settle_keyed(1, 101), Outcome::Expired),
        (14, settle_keyed(2, 100), Outcome::Expired),
        (15, keyed(3, 300, 1), done.clone()),
        (15, keyed(3, 300, 2), Outcome::Conflict),
        (12 + day - 1, keyed(3, 300, 1), done),
        (12 + day, keyed(3, 300, 1), reserved(4_999_600)),
    ];
    timed(&mut model, &steps);
    assert_eq!(model.book().head.account(USD).spent, micros(100));
}

#[test]
fn a_key_whose_request_was_not_charged_is_free_again() {
    let mut model = five();
    let steps = [
        (10, keyed(1, 300, 1), reserved(4_999_700)),
        (11, metered(1, Some(KEY), &[], Then::Close), settled(5_000_000)),
        (12, keyed(2, 300, 2), reserved(4_999_700)),
        // Its ttl is over, and nobody settled it: the key is free, and its money back.
        (1_012, keyed(3, 400, 3), reserved(4_999_600)),
        (1_013, settle_keyed(2, 300), Outcome::Expired),
        (1_014, settle_keyed(3, 400), settled(4_999_600)),
    ];
    timed(&mut model, &steps);
    assert_eq!(model.book().head.account(USD).spent, micros(400));
}

#[test]
fn a_keyed_request_that_dies_half_spent_is_charged_what_it_spent() {
    let mut model = five();
    let steps = [
        (10, keyed(1, 300, 1), reserved(4_999_700)),
        (11, metered(1, Some(KEY), &[("/a", 120)], Then::Keep), settled(4_999_700)),
        (1_011, keyed(2, 300, 1), Outcome::Done { charged: micros(120) }),
        (1_012, settle_keyed(1, 300), Outcome::Expired),
    ];
    timed(&mut model, &steps);
    let account = model.book().head.account(USD);
    assert_eq!((account.available, account.spent), (micros(4_999_880), micros(120)));
}

#[test]
fn a_metered_request_spends_at_several_routes_and_each_total_only_rises() {
    let keep = |lines: &[(&str, i64)]| metered(1, None, lines, Then::Keep);
    let mut model = five();
    let steps = [
        (10, reserve(1, micros(1_000)), reserved(4_999_000)),
        (500, keep(&[("/a", 100), ("/b", 50)]), settled(4_999_000)),
        (600, keep(&[("/a", 99)]), Outcome::Conflict),
        (600, keep(&[("/c", -1)]), Outcome::OutOfRange),
        (600, keep(&[("/a", 951)]), Outcome::OutOfRange), // with /b it is more than 1,000
        (1_400, keep(&[("/a", 300)]), settled(4_999_000)), // renewed at 500, and now again
        (2_300, metered(1, None, &[("/a", 300), ("/b", 60)], Then::Close), settled(4_999_640)),
        (2_301, metered(1, None, &[("/a", 300), ("/b", 60)], Then::Close), Outcome::Expired),
    ];
    timed(&mut model, &steps);
    let usage: i64 = model.book().usage.values().map(|micros| micros.get()).sum();
    assert_eq!((usage, model.book().usage.len()), (360, 2));
}

#[test]
fn a_ninth_route_is_refused_and_changes_nothing() {
    let routes = ["/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"].map(|route| (route, 1));
    let mut model = five();
    let steps = [
        (10, reserve(1, micros(1_000)), reserved(4_999_000)),
        (11, metered(1, None, &routes, Then::Close), Outcome::TooMany),
        (12, metered(1, None, &routes[..8], Then::Close), settled(4_999_992)),
    ];
    timed(&mut model, &steps);
}

#[test]
fn a_late_settlement_debits_nothing() {
    let mut model = five();
    let steps = [
        (10, reserve(1, micros(1_000)), reserved(4_999_000)),
        (1_009, Command::Expire { id: EntryId::Reservation(1.into()) }, Outcome::NotDue),
        (1_010, settle(1, micros(1_000)), Outcome::Expired),
        (1_010, Command::Expire { id: EntryId::Reservation(1.into()) }, Outcome::NotFound),
    ];
    timed(&mut model, &steps);
    let account = model.book().head.account(USD);
    assert_eq!((account.available, account.spent), (micros(5_000_000), Micros::ZERO));
}

#[test]
fn money_of_a_request_that_is_over_is_there_when_it_is_short() {
    let mut model = five();
    let steps = [
        (10, reserve(1, micros(5_000_000)), reserved(0)),
        (11, reserve(2, micros(1)), Outcome::Insufficient { missing: micros(1) }),
        (1_010, reserve(2, micros(1)), reserved(4_999_999)),
    ];
    timed(&mut model, &steps);
}

#[test]
fn who_is_frozen_for_two_reasons_is_frozen_until_both_are_gone() {
    let reason = |name: &str| name.parse().unwrap();
    let freeze = |name: &str| Command::Freeze { reason: reason(name) };
    let unfreeze = |name: &str| Command::Unfreeze { reason: reason(name) };
    let mut model = five();
    let steps = [
        (10, reserve(1, micros(100)), reserved(4_999_900)),
        (11, freeze("operator"), Outcome::Frozen),
        (11, freeze("dp_1"), Outcome::Frozen),
        (12, reserve(2, micros(0)), Outcome::Frozen),
        (12, open(2, Some(Micros::MAX)), Outcome::Frozen),
        (13, settle(1, micros(100)), settled(4_999_900)), // it was served
        (14, unfreeze("operator"), Outcome::Frozen),
        (14, unfreeze("operator"), Outcome::Frozen),
        (15, reserve(2, micros(1)), Outcome::Frozen),
        (16, unfreeze("dp_1"), Outcome::Unfrozen),
        (17, reserve(2, micros(1)), reserved(4_999_899)),
    ];
    timed(&mut model, &steps);
    let many = (0..65).map(|n| {
        (
            20,
            freeze(&format!("dp_{n}")),
            match n {
                64 => Outcome::TooMany,
                _ => Outcome::Frozen,
            },
        )
    });
    timed(&mut model, &many.collect::<Vec<_>>());
}

fn open_refund(refund: u64, amount: i64) -> Command {
    let (amount, call) = (micros(amount), "refund".to_owned());
    Command::OpenRefund { currency: USD, number: 1, refund, amount, call }
}

fn totals(refunded: i64, withdrawn: i64) -> Totals {
    let (refunded, withdrawn) = (micros(refunded), micros(withdrawn));
    Totals { received: usd!("5").micros(), refunded, withdrawn }
}

fn close_refund(refund: u64, seen_version: u64, totals: Totals) -> Command {
    Command::CloseRefund { currency: USD, number: 1, refund, seen_version, totals }
}

fn observe_totals(seen_version: u64, totals: Totals) -> Command {
    let intent = "pi_1".to_owned();
    Command::Observe { currency: USD, number: 1, intent, seen_version, totals }
}

fn observed(difference: i64) -> Outcome {
    Outcome::Observed { difference: micros(difference) }
}

fn money(model: &Model) -> (i64, i64, i64) {
    let account = model.book().head.account(USD);
    (account.available.get(), account.refunding.get(), account.refunded.get())
}

#[test]
fn a_refund_is_set_aside_and_then_paid_out() {
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, open_refund(2, 100), Outcome::Stale { number: 1 }),
            (10, open_refund(1, 0), Outcome::OutOfRange),
            (10, open_refund(1, 5_000_001), Outcome::Insufficient { missing: micros(1) }),
            (10, open_refund(1, 2_000_000), Outcome::Opened),
            (11, open_refund(1, 2_000_000), Outcome::Joined { number: 1 }),
            (11, open_refund(2, 100), Outcome::Joined { number: 1 }),
            (11, reserve(1, micros(3_000_001)), Outcome::Insufficient { missing: micros(1) }),
            (12, close_refund(1, 0, totals(2_000_000, 0)), Outcome::Conflict), // read too early
            (12, close_refund(2, 1, totals(2_000_000, 0)), Outcome::NotFound),
        ],
    );
    assert_eq!(money(&model), (3_000_000, 2_000_000, 0));
    timed(
        &mut model,
        &[
            (13, close_refund(1, 1, totals(2_000_000, 0)), Outcome::Closed),
            (14, close_refund(1, 1, totals(2_000_000, 0)), Outcome::Closed),
            (15, open_refund(2, 3_000_000), Outcome::Opened),
        ],
    );
    assert_eq!(money(&model), (0, 3_000_000, 2_000_000));
}

#[test]
fn a_frozen_payer_can_be_refunded() {
    let mut model = five();
    let freeze = Command::Freeze { reason: "dp_1".parse().unwrap() };
    timed(
        &mut model,
        &[
            (10, freeze, Outcome::Frozen),
            (11, open_refund(1, 2_000_000), Outcome::Opened),
            (12, close_refund(1, 1, totals(2_000_000, 0)), Outcome::Closed),
        ],
    );
    assert_eq!(money(&model), (3_000_000, 0, 2_000_000));
}

#[test]
fn a_refund_that_stripe_refuses_returns_to_the_account() {
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, open_refund(1, 2_000_000), Outcome::Opened),
            (11, close_refund(1, 1, totals(0, 0)), Outcome::Closed),
        ],
    );
    assert_eq!(money(&model), (5_000_000, 0, 0));
}

#[test]
fn a_refund_that_is_observed_before_it_is_closed_is_booked_once() {
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, open_refund(1, 2_000_000), Outcome::Opened),
            (11, observe_totals(1, totals(2_000_000, 0)), observed(-2_000_000)),
        ],
    );
    assert_eq!(money(&model), (3_000_000, 0, 2_000_000));
    timed(&mut model, &[(12, close_refund(1, 2, totals(2_000_000, 0)), Outcome::Closed)]);
    assert_eq!(money(&model), (3_000_000, 0, 2_000_000));
    // Stripe paid out less than was set aside: the rest returns.
    timed(
        &mut model,
        &[
            (13, open_refund(2, 1_000_000), Outcome::Opened),
            (14, observe_totals(2, totals(2_600_000, 0)), observed(-600_000)),
            (15, close_refund(2, 3, totals(2_600_000, 0)), Outcome::Closed),
        ],
    );
    assert_eq!(money(&model), (2_400_000, 0, 2_600_000));
}

#[test]
fn a_refund_that_fails_later_comes_back() {
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, open_refund(1, 2_000_000), Outcome::Opened),
            (11, close_refund(1, 1, totals(2_000_000, 0)), Outcome::Closed),
            (12, observe_totals(2, totals(0, 0)), observed(2_000_000)),
            (13, observe_totals(2, totals(2_000_000, 0)), Outcome::Conflict), // an older reading
        ],
    );
    assert_eq!(money(&model), (5_000_000, 0, 0));
}

#[test]
fn a_refund_by_the_operator_beside_one_of_ours_takes_from_both() {
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, open_refund(1, 2_000_000), Outcome::Opened),
            // 3 at the dashboard: 2 out of what is set aside, 1 out of the rest.
            (11, observe_totals(1, totals(3_000_000, 0)), observed(-3_000_000)),
        ],
    );
    assert_eq!(money(&model), (2_000_000, 0, 3_000_000));
    timed(&mut model, &[(12, close_refund(1, 2, totals(5_000_000, 0)), Outcome::Closed)]);
    assert_eq!(money(&model), (0, 0, 5_000_000));
}

#[test]
fn a_dispute_overdraws_while_a_refund_is_open_and_is_won_back() {
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, open_refund(1, 2_000_000), Outcome::Opened),
            (11, reserve(1, micros(1_000_000)), reserved(2_000_000)),
            (12, settle(1, micros(1_000_000)), settled(2_000_000)),
            (13, observe_totals(1, totals(0, 5_000_000)), observed(-5_000_000)),
        ],
    );
    assert_eq!(money(&model), (-3_000_000, 2_000_000, 0));
    timed(
        &mut model,
        &[
            (14, reserve(2, micros(1)), Outcome::Insufficient { missing: micros(3_000_001) }),
            (15, close_refund(1, 2, totals(0, 5_000_000)), Outcome::Closed), // Stripe refused it
        ],
    );
    assert_eq!(money(&model), (-1_000_000, 0, 0));
    timed(
        &mut model,
        &[
            (16, open_refund(2, 1), Outcome::Insufficient { missing: micros(1_000_001) }),
            (17, observe_totals(2, totals(0, 0)), observed(5_000_000)),
        ],
    );
    assert_eq!(money(&model), (4_000_000, 0, 0));
}

fn issue(number: u16, limit: Option<Limit>) -> Command {
    Command::IssueCredential { number, label: "agent".parse().unwrap(), limit }
}

fn reserve_by(number: u16, id: u128, currency: Currency, amount: i64) -> Command {
    let proof = Proof::Credential { generation: 1, number: Some(number) };
    let amount = micros(amount);
    Command::Reserve { id: id.into(), currency, amount, ttl: 1_000, proof, claim: None }
}

#[test]
fn an_issued_credential_spends_at_most_its_limit_and_only_in_its_currency() {
    let jpy: Currency = "jpy".parse().unwrap();
    let limit = Some(Limit { currency: USD, amount: micros(1_000) });
    let issued = Outcome::Issued { generation: 1 };
    let left = |left| Outcome::LimitReached { left: micros(left) };
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, issue(1, limit), issued),
            (10, issue(1, limit), Outcome::Stale { number: 2 }), // it may be somebody else's
            (10, issue(3, None), Outcome::Stale { number: 2 }),
            (11, reserve_by(1, 1, USD, 600), reserved(4_999_400)),
            (11, reserve_by(1, 2, USD, 401), left(400)), // in flight counts
            (12, settle(1, micros(100)), settled(4_999_900)),
            (13, reserve_by(1, 2, USD, 901), left(900)),
            (13, reserve_by(1, 2, jpy, 1), left(0)),
            (13, reserve_by(1, 2, jpy, 0), reserved(0)), // it only proves who asks
            (14, reserve_by(1, 3, USD, 900), reserved(4_999_000)),
            (15, settle(3, micros(900)), settled(4_999_000)),
            (16, reserve_by(1, 4, USD, 1), left(0)),
            (16, reserve(4, micros(1)), reserved(4_998_999)), // the payer's own has none
        ],
    );
}

#[test]
fn a_credential_that_is_revoked_while_it_spends_settles_and_spends_no_more() {
    let limit = Some(Limit { currency: USD, amount: micros(1_000) });
    let (issued, revoked) = (Outcome::Issued { generation: 1 }, Outcome::Revoked { generation: 1 });
    let mut model = five();
    timed(
        &mut model,
        &[
            (10, issue(1, limit), issued.clone()),
            (11, reserve_by(1, 1, USD, 600), reserved(4_999_400)),
            (12, Command::RevokeCredential { number: 1 }, revoked.clone()),
            (12, Command::RevokeCredential { number: 1 }, revoked),
            (13, reserve_by(1, 2, USD, 1), Outcome::Unauthorized),
            (14, issue(1, limit), Outcome::Stale { number: 2 }), // a number is never used again
            (14, issue(2, limit), issued),
            (15, settle(1, micros(600)), settled(4_999_400)),
            (16, reserve_by(2, 3, USD, 1_000), reserved(4_998_400)), // the old one does not count
        ],
    );
}

#[test]
fn the_sixty_fifth_credential_is_refused() {
    let mut model = five();
    for number in 1..=64 {
        timed(&mut model, &[(10, issue(number, None), Outcome::Issued { generation: 1 })]);
    }
    timed(
        &mut model,
        &[
            (11, issue(65, None), Outcome::TooMany),
            (12, Command::RevokeCredential { number: 7 }, Outcome::Revoked { generation: 1 }),
            (13, issue(65, None), Outcome::Issued { generation: 1 }),
        ],
    );
}

#[test]
fn a_sum_that_would_leave_the_range_is_refused_before_anything_is_written() {
    let mut model = run(funded(Micros::MAX));
    let more = Totals { received: micros(1), ..Totals::default() };
    let intent = "pi_2".to_owned();
    let observe =
        Command::Observe { currency: USD, number: 2, intent, seen_version: 0, totals: more };
    timed(
        &mut model,
        &[
            (10, Command::RevokeCredentials, Outcome::Revoked { generation: 2 }),
            (10, open(2, None), Outcome::Opened),
            (11, observe, Outcome::OutOfRange),
        ],
    );
    assert_eq!(model.book().head.account(USD).available, Micros::MAX);
}
