"""Stripe's Python library at the sandbox, and a payment to paid-api with nothing but urllib."""

import base64
import json
import os
import random
import sys
import traceback
import urllib.error
import urllib.request
import uuid

import stripe

API = os.environ["PAID_API"]
PUBLISHABLE = os.environ["STRIPE_PUBLISHABLE_KEY"]
stripe.api_base = os.environ["STRIPE_API_BASE"]
stripe.api_key = os.environ["STRIPE_SECRET_KEY"]
stripe.max_network_retries = 0

failed = False


def fact(words):
    """Runs a check and prints `ok   words`, or `FAIL words: why`."""

    def run(check):
        global failed
        try:
            check()
            print(f"ok   {words}")
        except Exception as error:
            failed = True
            where = traceback.extract_tb(error.__traceback__)[-1]
            why = str(error).replace("\n", " | ")
            print(f"FAIL {words}: {type(error).__name__} {why} at line {where.lineno}: {where.line}")

    return run


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


def new_number():
    """A card number that no other payer has."""
    digits = "424242" + "".join(random.choices("0123456789", k=9))
    doubled = [int(d) * (2 if at % 2 == 0 else 1) for at, d in enumerate(digits)]
    total = sum(d - 9 if d > 9 else d for d in doubled)
    return digits + str(-total % 10)


def tokenize(number, cvc="123"):
    card = {"number": number, "exp_month": 12, "exp_year": 2034, "cvc": cvc}
    return stripe.PaymentMethod.create(api_key=PUBLISHABLE, type="card", card=card)


def get(path, payment=None):
    """Status, payment-response (if any) and body."""
    request = urllib.request.Request(API + path)
    if payment:
        message = json.dumps({"stripe402Version": 1, **payment}).encode()
        request.add_header("payment", base64.b64encode(message).decode())
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    told = answer.headers["payment-response"]
    return answer.status, told and json.loads(base64.b64decode(told)), answer.read()


def charge(method, **more):
    return stripe.PaymentIntent.create(
        amount=500,
        currency="usd",
        payment_method=method,
        confirm=True,
        automatic_payment_methods={"enabled": True, "allow_redirects": "never"},
        **more,
    )


method = tokenize(new_number())
status, paid, body = get("/api/joke", {"paymentMethodId": method.id, "topUpAmount": 50_000})


@fact("a PaymentMethod that the library made pays paid-api")
def _():
    assert method.id.startswith("pm_") and method.card.last4
    assert status == 200, body
    assert (paid["success"], paid["creditsRemaining"]) == (True, 49_900), paid


@fact("its answer to the publishable key has no fingerprint, to the secret key it has one")
def _():
    assert "fingerprint" not in method.card
    assert stripe.PaymentMethod.retrieve(method.id).card.fingerprint


@fact("the PaymentIntent is retrieved with the secret key: 500 cents and our metadata")
def _():
    intent = stripe.PaymentIntent.retrieve(paid["chargeId"], expand=["latest_charge"])
    assert (intent.amount, intent.amount_received, intent.currency) == (500, 500, "usd")
    assert intent.status == "succeeded" and intent.livemode is False
    payer = paid["clientId"].split(".")[0]
    assert intent.metadata["payer"] == payer
    assert intent.metadata["top_up"] == paid["topUpId"] == f"tu_{payer}_usd_1"
    assert intent.metadata["farebox"] == "1"
    assert intent.latest_charge.paid and intent.latest_charge.amount == 500


@fact("PaymentIntent.list finds it among the customer's, once")
def _():
    intent = stripe.PaymentIntent.retrieve(paid["chargeId"])
    listed = stripe.PaymentIntent.list(customer=intent.customer, limit=1)
    assert [one.id for one in listed.auto_paging_iter()] == [intent.id]
    since = stripe.PaymentIntent.list(customer=intent.customer, created={"gt": intent.created})
    assert since.data == []


@fact("the customer belongs to the payer, and the card to the customer")
def _():
    intent = stripe.PaymentIntent.retrieve(paid["chargeId"])
    customer = stripe.Customer.retrieve(intent.customer)
    assert customer.metadata["payer"] == paid["clientId"].split(".")[0]
    attached = stripe.Customer.list_payment_methods(customer.id)
    assert [one.id for one in attached] == [method.id]


@fact("later calls are paid from credit and leave Stripe alone")
def _():
    again = get("/api/joke", {"clientId": paid["clientId"]})
    assert again[0] == 200 and again[1]["creditsRemaining"] == 49_800
    intent = stripe.PaymentIntent.retrieve(paid["chargeId"])
    assert len(stripe.PaymentIntent.list(customer=intent.customer).data) == 1


@fact("an idempotency key is replayed: the same intent, marked as a replay")
def _():
    key, card = str(uuid.uuid4()), tokenize(new_number()).id
    one, two = charge(card, idempotency_key=key), charge(card, idempotency_key=key)
    assert one.id == two.id
    assert "Idempotent-Replayed" not in one.last_response.headers
    assert two.last_response.headers["Idempotent-Replayed"] == "true"


@fact("an idempotency key with other parameters is an IdempotencyError")
def _():
    key = str(uuid.uuid4())
    stripe.Customer.create(description="one", idempotency_key=key)
    error = raises(
        stripe.IdempotencyError,
        lambda: stripe.Customer.create(description="two", idempotency_key=key),
    )
    assert error.http_status == 400


@fact("declines are CardErrors with code and decline_code")
def _():
    for number, code, decline_code in [
        ("4000000000000002", "card_declined", "generic_decline"),
        ("4000000000009995", "card_declined", "insufficient_funds"),
        ("4000000000009987", "card_declined", "lost_card"),
        ("4000000000000069", "expired_card", None),
        ("4000000000000127", "incorrect_cvc", None),
    ]:
        card = tokenize(number).id
        error = raises(stripe.CardError, lambda: charge(card))
        assert (error.http_status, error.code) == (402, code), number
        assert error.error.decline_code == decline_code, number
        intent = stripe.PaymentIntent.retrieve(error.error.payment_intent.id)
        assert intent.status == "requires_payment_method", number


@fact("a declined charge is replayed under its key as the same decline")
def _():
    key, card = str(uuid.uuid4()), tokenize("4000000000000002").id
    errors = [
        raises(stripe.CardError, lambda: charge(card, idempotency_key=key)) for _ in range(2)
    ]
    intents = {error.error.payment_intent.id for error in errors}
    assert len(intents) == 1
    assert errors[1].headers["Idempotent-Replayed"] == "true"


@fact("a card that must authenticate ends as error, or waits in requires_action")
def _():
    card = tokenize("4000002760003184").id
    error = raises(stripe.CardError, lambda: charge(card, error_on_requires_action=True))
    assert error.code == "authentication_required"
    assert charge(tokenize("4000002760003184").id).status == "requires_action"


@fact("a bad card number is a CardError of the tokenizer")
def _():
    assert raises(stripe.CardError, lambda: tokenize("4242424242424241")).code == "incorrect_number"


@fact("a SetupIntent checks the security code and attaches the card")
def _():
    customer, card = stripe.Customer.create(), tokenize(new_number())
    setup = stripe.SetupIntent.create(
        customer=customer.id,
        payment_method=card.id,
        confirm=True,
        usage="off_session",
        automatic_payment_methods={"enabled": True, "allow_redirects": "never"},
    )
    assert setup.status == "succeeded"
    checked = stripe.PaymentMethod.retrieve(card.id)
    assert (checked.card.checks.cvc_check, checked.customer) == ("pass", customer.id)


@fact("a card used once without a customer cannot be used again")
def _():
    card = tokenize(new_number()).id
    assert charge(card).status == "succeeded"
    raises(stripe.InvalidRequestError, lambda: charge(card))


@fact("wrong keys, unknown objects and unknown parameters have their classes")
def _():
    wrong = lambda: stripe.Customer.create(api_key="sk_test_wrong")
    assert raises(stripe.AuthenticationError, wrong).http_status == 401
    raises(stripe.AuthenticationError, lambda: stripe.Customer.list(api_key=PUBLISHABLE))
    missing = raises(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.retrieve("pi_none"))
    assert (missing.http_status, missing.code) == (404, "resource_missing")
    unknown = raises(stripe.InvalidRequestError, lambda: stripe.Customer.create(colour="red"))
    assert (unknown.code, unknown.param) == ("parameter_unknown", "colour")


sys.exit(1 if failed else 0)
