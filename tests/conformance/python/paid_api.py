"""A payment to paid-api with nothing but urllib, and what Stripe's Python library finds of it."""

import base64
import json
import os
import urllib.error
import urllib.request

import stripe
from facts import fact, finish, tokenize

API = os.environ["PAID_API"]


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


method = tokenize()
status, paid, body = get("/api/joke", {"paymentMethodId": method.id, "topUpAmount": 50_000})


@fact("a PaymentMethod that the library made pays paid-api")
def _():
    assert method.id.startswith("pm_") and method.card.last4
    assert status == 200, body
    assert (paid["success"], paid["creditsRemaining"]) == (True, 49_900), paid


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


finish()
