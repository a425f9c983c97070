"""Stripe's Python library at the sandbox when something goes wrong between them."""

import contextlib

import stripe
from facts import charge, equal, fact, finish, raises, sandbox, tokenize

PAYING = {"method": "POST", "path": "/v1/payment_intents"}


@contextlib.contextmanager
def fault(kind, **more):
    """The next payments meet it. What waits for nobody is a mistake of the fact."""
    sandbox("POST", "faults", {**PAYING, "kind": kind, **more})
    try:
        yield
        equal(sandbox("GET", "faults")["waiting"], [])
    finally:
        sandbox("DELETE", "faults")


@contextlib.contextmanager
def retries(count):
    stripe.max_network_retries = count
    try:
        yield
    finally:
        stripe.max_network_retries = 0


def payments(customer):
    return [one.status for one in stripe.PaymentIntent.list(customer=customer)]


@fact("a rate limit is a RateLimitError, and nothing ran")
def _():
    customer, method = stripe.Customer.create().id, tokenize().id
    with fault("rate_limited"):
        error = raises(stripe.RateLimitError, lambda: charge(method, customer=customer))
    equal([error.http_status, error.error.code], [429, "rate_limit"])
    equal(payments(customer), [])


@fact("an endpoint's rate is limited by the second")
def _():
    sandbox("PUT", "rate_limit", {"per_endpoint_per_second": 2, "per_account_per_second": 100})
    try:
        limited = lambda: [stripe.Customer.list(limit=1) for _ in range(7)]
        equal(raises(stripe.RateLimitError, limited).http_status, 429)
    finally:
        sandbox("PUT", "rate_limit", None)
    stripe.Customer.list(limit=1)


@fact("a key that ends is an AuthenticationError, and nothing ran")
def _():
    customer, method = stripe.Customer.create().id, tokenize().id
    with fault("unauthorized"):
        error = raises(stripe.AuthenticationError, lambda: charge(method, customer=customer))
    equal([error.http_status, payments(customer)], [401, []])


@fact("an answer that breaks off is an APIConnectionError or an APIError, and the payment was made")
def _():
    for kind, error in (("reset_after", stripe.APIConnectionError), ("truncated", stripe.APIError)):
        customer, method = stripe.Customer.create().id, tokenize().id
        with fault(kind):
            raises(error, lambda: charge(method, customer=customer))
        equal((kind, payments(customer)), (kind, ["succeeded"]))


@fact("a crash is an APIError, and repeated under its key as the same crash")
def _():
    customer, method = stripe.Customer.create().id, tokenize().id
    pay = lambda: charge(method, customer=customer, idempotency_key=f"crash {customer}")
    with fault("server_error", ran=True):
        first = raises(stripe.APIError, pay)
    again = raises(stripe.APIError, pay)
    equal([first.http_status, again.http_status], [500, 500])
    equal(again.headers["Idempotent-Replayed"], "true")
    equal(payments(customer), ["succeeded"])


@fact("the library repeats what was lost by itself, and one payment is made")
def _():
    for kind, more in (
        ("reset_before", {}),
        ("reset_after", {}),
        ("conflict", {}),
        ("bad_gateway", {"ran": False}),
        ("bad_gateway", {"ran": True}),
    ):
        customer, method = stripe.Customer.create().id, tokenize().id
        with fault(kind, **more), retries(2):
            equal((kind, charge(method, customer=customer).status), (kind, "succeeded"))
        equal((kind, payments(customer)), (kind, ["succeeded"]))


finish()
