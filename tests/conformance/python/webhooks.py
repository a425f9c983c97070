"""Stripe's Python library reads what the sandbox delivers to a webhook, over HTTP."""

import json
import time
from unittest import mock

import stripe
from endpoint import URL, answers, arrived, delivered
from facts import charge, equal, fact, finish, raises, sandbox, tokenize

OLD, NEW, OTHER = "whsec_old", "whsec_new", "whsec_other"


def listen(*secrets, **delivery):
    sandbox("PUT", "webhook", {"url": URL, "secrets": secrets, **delivery})


def paid():
    """A payment, and what was delivered when it succeeded."""
    made = charge(tokenize().id)
    return made, *delivered("payment_intent.succeeded", made.id)


def read(body, signature, secret):
    return stripe.Webhook.construct_event(body, signature, secret)


def refused(body, signature, secret=NEW):
    raises(stripe.SignatureVerificationError, lambda: read(body, signature, secret))


@fact("construct_event reads a delivery, and it is the event that the API tells")
def _():
    listen(NEW)
    made, body, signature = paid()
    event = read(body, signature, NEW)
    equal([event.type, event.data.object.id], ["payment_intent.succeeded", made.id])
    found = stripe.Event.retrieve(event.id).to_dict()
    equal([event.to_dict()[name] for name in ("id", "data", "created", "api_version")],
          [found[name] for name in ("id", "data", "created", "api_version")])


@fact("while a secret is rolled, each of the two reads a delivery, and no other does")
def _():
    listen(OLD, NEW)
    _, body, signature = paid()
    equal(read(body, signature, OLD).id, read(body, signature, NEW).id)
    refused(body, signature, OTHER)
    listen(NEW)
    _, body, signature = paid()
    refused(body, signature, OLD)


@fact("a body that was changed is refused, be it by a byte that means nothing")
def _():
    _, body, signature = paid()
    refused(body.replace(b'"amount":500', b'"amount":999'), signature)
    refused(body + b" ", signature)
    refused(json.dumps(json.loads(body), indent=2).encode(), signature)


@fact("a signature of another delivery, or of none, is refused")
def _():
    (_, one, _), (_, _, two) = paid(), paid()
    refused(one, two)
    refused(one, "t=1,v1=00")


@fact("a delivery is refused when it is older than five minutes, and not before")
def _():
    _, body, signature = paid()
    soon = time.time() + 290
    with mock.patch("time.time", return_value=soon):
        read(body, signature, NEW)
    with mock.patch("time.time", return_value=soon + 20):
        refused(body, signature)


@fact("a delivery that is answered with an error comes again, and is read again")
def _():
    listen(NEW, manual=True)
    made = charge(tokenize().id)
    (event,) = [one for one in stripe.Event.list(type="payment_intent.succeeded", limit=5)
                if one.data.object.id == made.id]
    answers.put(500)
    sandbox("POST", f"events/{event.id}/deliver")
    for _ in range(2):
        equal(read(*arrived.get(timeout=10), NEW).id, event.id)


@fact("refunds and disputes are delivered as well")
def _():
    listen(NEW)
    made = charge(tokenize().id)
    stripe.Refund.create(payment_intent=made.id, amount=100)
    dispute = sandbox("POST", "disputes", {"payment_intent": made.id, "kind": "chargeback"})
    refund = read(*delivered("charge.refunded", made.latest_charge), NEW)
    equal(refund.data.object.amount_refunded, 100)
    opened = read(*delivered("charge.dispute.created", dispute["id"]), NEW)
    equal([opened.data.object.payment_intent, opened.data.object.amount], [made.id, 400])


sandbox("PUT", "webhook", {"url": None})
finish()
