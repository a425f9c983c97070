//! The list: every scenario, and what it may cost.

use super::shop::Shop;
use super::wire::{Ask, Reply};
use super::{controls, floods, offers, payments, redirects};

/// What an answer is made by.
pub(super) type Serve = fn(&mut Shop, &Ask) -> Reply;

/// Whether a provider means well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It does not. A client may lose what its policy allows, and nothing else.
    Attack,
    /// It does. A client must be served, for exactly what that costs.
    Control,
}

/// One provider of the battery.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Scenario {
    /// In the form `like_this`.
    pub name: &'static str,
    /// Whether it means well.
    pub kind: Kind,
    /// What it does, in one sentence.
    pub what: &'static str,
    /// What it may cost under the [reference policy](super#the-reference-policy), in US cents. Of
    /// a [`Kind::Control`]: what it costs.
    pub allowed: i64,
    /// How it is asked: `GET`, or `POST` with a body that can be sent only once.
    pub method: &'static str,
    pub(super) host: &'static str,
    pub(super) serve: Serve,
}

const fn attack(name: &'static str, allowed: i64, serve: Serve, what: &'static str) -> Scenario {
    let (kind, method, host) = (Kind::Attack, "GET", "127.0.0.1");
    Scenario { name, kind, what, allowed, method, host, serve }
}

const fn control(name: &'static str, serve: Serve, what: &'static str) -> Scenario {
    Scenario { kind: Kind::Control, ..attack(name, TOP_UP, serve, what) }
}

/// Nothing of the offer may be paid.
const NOTHING: i64 = 0;
/// One top-up.
const TOP_UP: i64 = 500;
/// As much as the policy lets leave the card in a day: every single payment looks in order.
const DAY: i64 = 1_000;

/// Every scenario of the battery.
#[must_use]
pub fn scenarios() -> &'static [Scenario] {
    SCENARIOS
}

const SCENARIOS: &[Scenario] = &[
    // Prices and top-ups.
    attack("dear", NOTHING, offers::dear, "Asks for more than a request may cost."),
    attack(
        "price_bait",
        TOP_UP,
        offers::price_bait,
        "Asks for little, takes the top-up, and then asks for twenty times the price.",
    ),
    attack("price_creep", TOP_UP, offers::price_creep, "Doubles its price at every request."),
    attack(
        "price_flicker",
        TOP_UP,
        offers::price_flicker,
        "Asks for little and for too much in turns.",
    ),
    attack(
        "large_top_up",
        NOTHING,
        offers::large_top_up,
        "Takes no top-up as small as the policy allows.",
    ),
    attack(
        "free_with_top_up",
        NOTHING,
        offers::free_with_top_up,
        "Costs nothing, but wants a top-up of 500 usd.",
    ),
    attack(
        "top_up_contradiction",
        NOTHING,
        offers::top_up_contradiction,
        "Its smallest top-up is above its largest.",
    ),
    attack(
        "budget_split",
        DAY,
        offers::budget_split,
        "The first request is free; then each one wants a top-up of its own.",
    ),
    // Amounts that are none.
    attack("negative_price", NOTHING, offers::negative_price, "Its price is below zero."),
    attack("negative_top_up", NOTHING, offers::negative_top_up, "Its top-up is below zero."),
    attack("fractional_price", NOTHING, offers::fractional_price, "Its price is 100.5 units."),
    attack("exponent_price", NOTHING, offers::exponent_price, "Its price is written 1e2."),
    attack("text_price", NOTHING, offers::text_price, "Its price is a text."),
    attack(
        "overflowing_price",
        NOTHING,
        offers::overflowing_price,
        "Its price is 100 more than 64 bits can count.",
    ),
    attack("duplicate_keys", NOTHING, offers::duplicate_keys, "Names two prices in one offer."),
    attack(
        "duplicate_headers",
        NOTHING,
        offers::duplicate_headers,
        "Sends two offers in two headers of the same name.",
    ),
    // What is paid, and to whom.
    attack(
        "accepts_ordering",
        TOP_UP,
        offers::accepts_ordering,
        "Names a scheme that nobody knows and a price too high before the fair offer.",
    ),
    attack(
        "rail_switch",
        NOTHING,
        offers::rail_switch,
        "Offers only schemes that look like the known one.",
    ),
    attack(
        "currency_swap",
        NOTHING,
        offers::currency_swap,
        "Asks for the same number in another currency.",
    ),
    attack(
        "currency_on_retry",
        TOP_UP,
        offers::currency_on_retry,
        "Asks in another currency once it was paid.",
    ),
    attack("secret_key", NOTHING, offers::secret_key, "Names a secret key as the publishable one."),
    attack(
        "malformed_key",
        NOTHING,
        offers::malformed_key,
        "Its publishable key has a line break and a header in it.",
    ),
    attack(
        "key_swap",
        TOP_UP,
        offers::key_swap,
        "Names the key of another account once it has been paid.",
    ),
    attack(
        "prose_payment",
        NOTHING,
        offers::prose_payment,
        "Tells a language model that its limits were raised and its price is low.",
    ),
    attack(
        "tokenizer_bait",
        TOP_UP,
        offers::tokenizer_bait,
        "Names a tokenizer of its own in fields that nobody knows.",
    ),
    attack(
        "resource_elsewhere",
        TOP_UP,
        offers::resource_elsewhere,
        "Says that what was asked for is at another origin.",
    ),
    // What is said about a payment.
    attack(
        "repeated_402",
        TOP_UP,
        payments::repeated_402,
        "Takes the money and asks again, in the same words, for ever.",
    ),
    attack(
        "ghost_paywall",
        TOP_UP,
        payments::ghost_paywall,
        "Takes the money and says that there is not enough credit.",
    ),
    attack(
        "bargain",
        TOP_UP,
        payments::bargain,
        "Takes the money and asks for half of it, again and again.",
    ),
    attack(
        "paid_402",
        TOP_UP,
        payments::paid_402,
        "Says in one answer that it was paid and that it wants to be paid.",
    ),
    attack(
        "empty_credit",
        DAY,
        payments::empty_credit,
        "Serves one request for each top-up and says that the credit is gone.",
    ),
    attack(
        "eaten_credit",
        DAY,
        payments::eaten_credit,
        "Serves, and charges all credit for one request.",
    ),
    attack(
        "hidden_charge",
        DAY,
        payments::hidden_charge,
        "Charges the card and sends a receipt as if credit had paid.",
    ),
    attack(
        "credential_swap",
        DAY,
        payments::credential_swap,
        "Gives a new credential with every answer and knows none of them.",
    ),
    attack(
        "credential_bomb",
        DAY,
        payments::credential_bomb,
        "Its credential is long and has a line break in it.",
    ),
    attack(
        "false_decline",
        DAY,
        payments::false_decline,
        "Charges the card and says that it was declined.",
    ),
    attack(
        "false_price_refusal",
        DAY,
        payments::false_price_refusal,
        "Charges the card and says that the price was above the maximum.",
    ),
    attack(
        "false_outage",
        DAY,
        payments::false_outage,
        "Charges the card and says that the processor did not answer.",
    ),
    attack(
        "false_limit",
        DAY,
        payments::false_limit,
        "Charges the card and says that there were too many attempts.",
    ),
    attack(
        "false_freeze",
        DAY,
        payments::false_freeze,
        "Charges the card and says that the account is frozen.",
    ),
    attack(
        "pending_forever",
        TOP_UP,
        payments::pending_forever,
        "Charges the card and says for ever that the charge is pending.",
    ),
    attack(
        "nameless_pending",
        TOP_UP,
        payments::nameless_pending,
        "The same, without a name for the top-up.",
    ),
    attack(
        "changing_top_up",
        TOP_UP,
        payments::changing_top_up,
        "Gives the same charge another name at every request.",
    ),
    attack(
        "foreign_top_up",
        DAY,
        payments::foreign_top_up,
        "Names a top-up of somebody else, and says that it was declined.",
    ),
    attack(
        "lost_answers",
        TOP_UP,
        payments::lost_answers,
        "Charges the card and cuts the connection, every time.",
    ),
    attack(
        "lost_answers_v1",
        DAY,
        payments::lost_answers_v1,
        "The same as a server of version 1, which charges repeats again.",
    ),
    attack(
        "failures_v1",
        DAY,
        payments::failures_v1,
        "A server of version 1 that charges every message and says that it failed.",
    ),
    attack("untold", TOP_UP, payments::untold, "Charges the card and serves without a receipt."),
    attack(
        "unsuccessful_200",
        TOP_UP,
        payments::unsuccessful_200,
        "Charges the card and answers 200 with a receipt that says it failed.",
    ),
    attack(
        "crash_after_charge",
        TOP_UP,
        payments::crash_after_charge,
        "Charges the card and answers 500 with a page.",
    ),
    attack(
        "conflicting_codes",
        TOP_UP,
        payments::conflicting_codes,
        "Says paid, declined and insufficient in one answer.",
    ),
    attack(
        "cookie",
        TOP_UP,
        payments::cookie,
        "Sends the payment back in a cookie for every port, with a link to another origin.",
    ),
    attack(
        "retry_after_forever",
        NOTHING,
        payments::retry_after_forever,
        "Asks the client to come back in 136 years.",
    ),
    attack(
        "retry_storm",
        TOP_UP,
        payments::retry_storm,
        "Charges the card and asks for a retry at once, for ever.",
    ),
    // Other origins.
    attack(
        "redirect_301",
        NOTHING,
        redirects::unpaid::<301>,
        "Redirects (301) to another origin, which asks for money.",
    ),
    attack("redirect_302", NOTHING, redirects::unpaid::<302>, "The same with 302."),
    attack("redirect_303", NOTHING, redirects::unpaid::<303>, "The same with 303."),
    attack("redirect_307", NOTHING, redirects::unpaid::<307>, "The same with 307."),
    attack("redirect_308", NOTHING, redirects::unpaid::<308>, "The same with 308."),
    attack(
        "redirect_paid_301",
        TOP_UP,
        redirects::paid::<301>,
        "Charges the card and redirects (301) the payment to another origin.",
    ),
    attack("redirect_paid_302", TOP_UP, redirects::paid::<302>, "The same with 302."),
    attack("redirect_paid_303", TOP_UP, redirects::paid::<303>, "The same with 303."),
    attack("redirect_paid_307", TOP_UP, redirects::paid::<307>, "The same with 307."),
    attack("redirect_paid_308", TOP_UP, redirects::paid::<308>, "The same with 308."),
    attack(
        "redirect_credential_301",
        TOP_UP,
        redirects::credential::<301>,
        "Honest until a credential can be redirected (301) to another origin.",
    ),
    attack("redirect_credential_308", TOP_UP, redirects::credential::<308>, "The same with 308."),
    attack(
        "redirect_to_lookalike",
        TOP_UP,
        redirects::credential_to_lookalike,
        "The same to another name of this machine.",
    ),
    attack("redirect_loop", NOTHING, redirects::around, "Redirects in a circle."),
    attack(
        "redirect_loop_paid",
        TOP_UP,
        redirects::around_when_paid,
        "Charges the card and redirects the payment in a circle.",
    ),
    Scenario {
        host: "localhost",
        ..attack(
            "lookalike_host",
            NOTHING,
            redirects::not_allowed,
            "An honest shop under a name that the policy does not allow.",
        )
    },
    Scenario {
        host: "127.0.0.1@localhost",
        ..attack(
            "userinfo_host",
            NOTHING,
            redirects::not_allowed,
            "The same, with the allowed name before an @.",
        )
    },
    // Size, slowness and form.
    attack(
        "thousands_of_offers",
        NOTHING,
        offers::thousands_of_offers,
        "Makes 5,000 offers, all too dear.",
    ),
    attack(
        "deep_json",
        TOP_UP,
        offers::deep_json,
        "Its fair offer has 30,000 brackets in a field that nobody knows.",
    ),
    attack("bad_base64", NOTHING, offers::bad_base64, "Its offer is not base64."),
    attack("bad_utf8", NOTHING, offers::bad_utf8, "Its offer is not text."),
    attack("huge_body", NOTHING, floods::huge_body, "Its 402 has a body of 10 MB."),
    attack("endless_body", NOTHING, floods::endless_body, "Its 402 has a body without an end."),
    attack("slow_body", NOTHING, floods::slow_body, "Its 402 sends five bytes in a second."),
    attack("cut_body", NOTHING, floods::cut_body, "Its 402 ends before its length."),
    attack(
        "compressed_bomb",
        NOTHING,
        floods::compressed_bomb,
        "Its 402 has 100 MB of zeros, compressed.",
    ),
    attack("slow_head", NOTHING, floods::slow_head, "Sends its headers five bytes in a second."),
    attack("endless_head", NOTHING, floods::endless_head, "Its header has no end."),
    attack("large_header", NOTHING, floods::large_header, "Its offers take half a megabyte."),
    attack(
        "many_headers",
        NOTHING,
        floods::many_headers,
        "Sends a fair offer between 5,000 headers.",
    ),
    attack("silence", NOTHING, floods::silence, "Never answers."),
    attack(
        "silence_when_paid",
        TOP_UP,
        floods::silence_when_paid,
        "Charges the card and never answers.",
    ),
    attack(
        "slow_head_when_paid",
        TOP_UP,
        floods::slow_head_when_paid,
        "Charges the card and sends its headers five bytes in a second.",
    ),
    attack(
        "endless_body_when_paid",
        TOP_UP,
        floods::endless_body_when_paid,
        "Serves a body without an end.",
    ),
    attack(
        "interim_answers",
        TOP_UP,
        floods::interim_answers,
        "Sends 200 interim answers before each answer.",
    ),
    attack(
        "switching_protocols",
        TOP_UP,
        floods::switching_protocols,
        "Charges the card and switches to another protocol.",
    ),
    attack(
        "receipt_in_trailers",
        TOP_UP,
        floods::receipt_in_trailers,
        "Charges the card and sends the receipt in trailers.",
    ),
    attack("two_answers", TOP_UP, floods::two_answers, "Sends two answers to each request."),
    attack(
        "two_lengths",
        TOP_UP,
        floods::two_lengths,
        "Charges the card and answers with two lengths.",
    ),
    attack("not_http", TOP_UP, floods::not_http, "Charges the card and greets like a mail server."),
    Scenario {
        method: "POST",
        ..attack(
            "price_of_a_stream",
            TOP_UP,
            floods::price_of_a_stream,
            "Asks for money after it read a body that cannot be sent again.",
        )
    },
    // Those that mean well.
    control("fixed_price", controls::fixed_price, "Costs 0.01 usd."),
    control("rising_price", controls::rising_price, "Costs 0.01 usd, then more, at most 0.04 usd."),
    control("declined_once", controls::declined_once, "Declines the first card."),
    control("version_1", controls::version_1, "Knows version 1 of the protocol only."),
    control("pending_once", controls::pending_once, "The first charge is pending for a while."),
    control("lost_once", controls::lost_once, "The first answer to a payment is lost."),
    control("old_http", controls::old_http, "Speaks HTTP/1.0."),
];
