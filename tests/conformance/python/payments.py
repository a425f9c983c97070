"""Stripe's Python library at the sandbox: payments, their repetition, and what is refused."""

import time
import uuid

import stripe
from facts import OWN_CARDS, PUBLISHABLE, charge, equal, fact, finish, raises, tokenize


@fact("a PaymentIntent is created and confirmed, and retrieved with what it expands to")
def _():
    customer, method = stripe.Customer.create(), tokenize()
    made = charge(method.id, customer=customer.id, description="d", metadata={"top_up": "1"})
    equal([made.status, made.amount_received, made.livemode], ["succeeded", 500, False])
    expand = ["latest_charge", "customer", "payment_method"]
    found = stripe.PaymentIntent.retrieve(made.id, expand=expand)
    equal([found.metadata["top_up"], found.description], ["1", "d"])
    equal([found.customer.id, found.payment_method.id], [customer.id, method.id])
    equal([found.latest_charge.id, found.latest_charge.paid], [made.latest_charge, True])
    paid = stripe.Charge.retrieve(made.latest_charge)
    equal([paid.amount_captured, paid.payment_intent, paid.refunded], [500, made.id, False])


@fact("what does not exist in an object is not expanded")
def _():
    made = charge(tokenize().id)
    raises(
        stripe.InvalidRequestError,
        lambda: stripe.PaymentIntent.retrieve(made.id, expand=["colour"]),
    )


@fact("a PaymentIntent is created first and confirmed later")
def _():
    made = charge(tokenize().id, confirm=False)
    equal([made.status, made.amount_received], ["requires_confirmation", 0])
    equal(stripe.PaymentIntent.confirm(made.id).status, "succeeded")
    again = raises(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.confirm(made.id))
    equal(again.code, "payment_intent_unexpected_state")


@fact("PaymentIntents of a Customer are listed newest first, over every page")
def _():
    customer, method = stripe.Customer.create(), tokenize()
    stripe.PaymentMethod.attach(method.id, customer=customer.id)
    made = [charge(method.id, customer=customer.id).id for _ in range(5)][::-1]
    pages = stripe.PaymentIntent.list(customer=customer.id, limit=2)
    assert pages.has_more
    equal([one.id for one in pages.auto_paging_iter()], made)
    soon = {"gt": int(time.time()) + 60}
    equal(stripe.PaymentIntent.list(customer=customer.id, created=soon).data, [])


@fact("a PaymentIntent is cancelled, and then not confirmed; a paid one is not cancelled")
def _():
    open_one = charge(tokenize().id, confirm=False)
    cancelled = stripe.PaymentIntent.cancel(open_one.id, cancellation_reason="abandoned")
    equal([cancelled.status, cancelled.cancellation_reason], ["canceled", "abandoned"])
    assert cancelled.canceled_at
    raises(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.confirm(open_one.id))
    paid = charge(tokenize().id)
    error = raises(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.cancel(paid.id))
    equal(error.code, "payment_intent_unexpected_state")


@fact("an idempotency key is replayed: the same intent, marked as a replay, charged once")
def _():
    customer, method = stripe.Customer.create(), tokenize()
    key, terms = str(uuid.uuid4()), {"customer": customer.id}
    one, two = [charge(method.id, idempotency_key=key, **terms) for _ in range(2)]
    equal(one.id, two.id)
    assert "Idempotent-Replayed" not in one.last_response.headers
    equal(two.last_response.headers["Idempotent-Replayed"], "true")
    equal([it.id for it in stripe.PaymentIntent.list(customer=customer.id)], [one.id])


@fact("an idempotency key with other parameters is an IdempotencyError, and charges nothing")
def _():
    customer, method, key = stripe.Customer.create(), tokenize(), str(uuid.uuid4())
    terms = {"customer": customer.id, "idempotency_key": key}
    one = charge(method.id, **terms)
    error = raises(stripe.IdempotencyError, lambda: charge(method.id, amount=501, **terms))
    equal(error.http_status, 400)
    equal([it.id for it in stripe.PaymentIntent.list(customer=customer.id)], [one.id])


@fact("declines are CardErrors with code and decline_code, and the intent waits for another card")
def _():
    for number, code, decline_code in [
        ("4000000000000002", "card_declined", "generic_decline"),
        ("4000000000009995", "card_declined", "insufficient_funds"),
        ("4000000000009987", "card_declined", "lost_card"),
        ("4000000000009979", "card_declined", "stolen_card"),
        ("4000000000000069", "expired_card", None),
        ("4000000000000127", "incorrect_cvc", None),
        ("4000000000000119", "processing_error", None),
    ]:
        error = raises(stripe.CardError, lambda: charge(tokenize(number).id))
        equal([error.http_status, error.code], [402, code])
        equal(error.error.decline_code, decline_code)
        intent = stripe.PaymentIntent.retrieve(error.error.payment_intent.id)
        equal([intent.status, intent.amount_received], ["requires_payment_method", 0])
        equal(intent.last_payment_error.code, code)


@fact("a declined charge is replayed under its key as the same decline")
def _():
    key, card = str(uuid.uuid4()), tokenize("4000000000000002").id
    one, two = [
        raises(stripe.CardError, lambda: charge(card, idempotency_key=key)) for _ in range(2)
    ]
    equal(one.error.payment_intent.id, two.error.payment_intent.id)
    equal(two.headers["Idempotent-Replayed"], "true")


@fact("a card that must authenticate waits in requires_action, or ends as an error")
def _():
    waiting = charge(tokenize("4000002760003184").id)
    equal([waiting.status, waiting.next_action.type], ["requires_action", "use_stripe_sdk"])
    card = tokenize("4000002760003184").id
    error = raises(stripe.CardError, lambda: charge(card, error_on_requires_action=True))
    equal([error.http_status, error.code], [402, "authentication_required"])
    off = tokenize("4000002760003184").id
    customer = stripe.Customer.create().id
    error = raises(stripe.CardError, lambda: charge(off, customer=customer, off_session=True))
    equal(error.code, "authentication_required")


@fact("a card used once without a customer cannot be used again")
def _():
    card = tokenize().id
    equal(charge(card).status, "succeeded")
    raises(stripe.InvalidRequestError, lambda: charge(card))


@fact("an amount that is too small is refused with its code and parameter")
def _():
    error = raises(stripe.InvalidRequestError, lambda: charge(tokenize().id, amount=49))
    equal([error.http_status, error.code, error.param], [400, "amount_too_small", "amount"])


@fact("an unknown parameter is refused by name, also inside an object")
def _():
    error = raises(stripe.InvalidRequestError, lambda: stripe.Customer.create(colour="red"))
    equal([error.http_status, error.code, error.param], [400, "parameter_unknown", "colour"])
    nested = {**OWN_CARDS, "colour": "red"}
    error = raises(
        stripe.InvalidRequestError,
        lambda: stripe.PaymentIntent.create(
            amount=500, currency="usd", automatic_payment_methods=nested
        ),
    )
    equal([error.code, error.param], ["parameter_unknown", "automatic_payment_methods[colour]"])


@fact("a missing parameter is refused by name")
def _():
    error = raises(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.create(amount=500))
    equal([error.http_status, error.code, error.param], [400, "parameter_missing", "currency"])


@fact("an unknown id is resource_missing: 404 in the path, 400 in a parameter")
def _():
    for find in (
        stripe.Customer.retrieve,
        stripe.PaymentMethod.retrieve,
        stripe.SetupIntent.retrieve,
        stripe.PaymentIntent.retrieve,
        stripe.Charge.retrieve,
    ):
        error = raises(stripe.InvalidRequestError, lambda: find("none_1"))
        equal([error.http_status, error.code], [404, "resource_missing"])
    error = raises(stripe.InvalidRequestError, lambda: charge("pm_none"))
    equal(
        [error.http_status, error.code, error.param], [400, "resource_missing", "payment_method"]
    )


@fact("a wrong key is an AuthenticationError, and so is the publishable key out of its place")
def _():
    for key in ("sk_test_wrong", PUBLISHABLE):
        error = raises(stripe.AuthenticationError, lambda: stripe.Customer.list(api_key=key))
        equal(error.http_status, 401)


finish()
