"""Stripe's Python library at the sandbox: capturing later, refunds, disputes, and what is told of
them in events and balance transactions."""

import stripe
from facts import charge, equal, fact, finish, raises, sandbox, tokenize


def hold():
    return charge(tokenize().id, capture_method="manual", expand=["latest_charge"])


def network(path, **told):
    """What the card network does."""
    return sandbox("POST", path, told)


def told(kind, wanted):
    """Ids of what the account was told of as `kind`, of those that are wanted."""
    events = stripe.Event.list(type=kind, limit=100).auto_paging_iter()
    return [event.data.object.id for event in events if event.data.object.id in wanted]


def booked(source):
    """What something moved, as (type, amount), oldest first."""
    moved = stripe.BalanceTransaction.list(source=source)
    return [(one.type, one.amount) for one in moved][::-1]


@fact("a payment that is held takes nothing until it is captured")
def _():
    held = hold()
    equal([held.status, held.amount_capturable, held.amount_received], ["requires_capture", 500, 0])
    equal([held.latest_charge.captured, held.latest_charge.paid], [False, True])
    taken = stripe.PaymentIntent.capture(held.id)
    equal([taken.status, taken.amount_capturable, taken.amount_received], ["succeeded", 0, 500])
    again = raises(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.capture(held.id))
    equal(again.code, "payment_intent_unexpected_state")


@fact("a part is captured, the rest is let go, and no more than the hold can be taken")
def _():
    held = hold()
    more = lambda: stripe.PaymentIntent.capture(held.id, amount_to_capture=501)
    equal(raises(stripe.InvalidRequestError, more).code, "amount_too_large")
    taken = stripe.PaymentIntent.capture(held.id, amount_to_capture=200)
    equal([taken.status, taken.amount, taken.amount_received], ["succeeded", 500, 200])
    paid = stripe.Charge.retrieve(taken.latest_charge)
    equal([paid.amount, paid.amount_captured, paid.amount_refunded], [500, 200, 300])


@fact("a hold is cancelled: nothing was taken, and nothing can be captured")
def _():
    held = hold()
    equal(stripe.PaymentIntent.cancel(held.id).status, "canceled")
    raises(stripe.InvalidRequestError, lambda: stripe.PaymentIntent.capture(held.id))


@fact("a payment is refunded in full, once")
def _():
    paid = charge(tokenize().id)
    refund = stripe.Refund.create(payment_intent=paid.id, reason="requested_by_customer")
    equal([refund.status, refund.amount, refund.currency], ["succeeded", 500, "usd"])
    equal([refund.reason, refund.payment_intent], ["requested_by_customer", paid.id])
    equal(stripe.Refund.retrieve(refund.id).to_dict(), refund.to_dict())
    its_charge = stripe.Charge.retrieve(paid.latest_charge)
    equal([its_charge.refunded, its_charge.amount_refunded], [True, 500])
    again = raises(
        stripe.InvalidRequestError, lambda: stripe.Refund.create(payment_intent=paid.id)
    )
    equal([again.http_status, again.code], [400, "charge_already_refunded"])


@fact("a payment is refunded in parts, and never by more than was taken")
def _():
    paid = charge(tokenize().id)
    refund = lambda amount: stripe.Refund.create(charge=paid.latest_charge, amount=amount)
    first = refund(200)
    error = raises(stripe.InvalidRequestError, lambda: refund(301))
    equal([error.http_status, error.param], [400, "amount"])
    second = refund(300)
    listed = stripe.Refund.list(payment_intent=paid.id, limit=1)
    equal([one.id for one in listed.auto_paging_iter()], [second.id, first.id])
    its_charge = stripe.Charge.retrieve(paid.latest_charge)
    equal([its_charge.refunded, its_charge.amount_refunded], [True, 500])


@fact("a refund is repeated under its key, not made twice")
def _():
    paid = charge(tokenize().id)
    refund = lambda: stripe.Refund.create(
        payment_intent=paid.id, amount=200, idempotency_key=f"refund {paid.id}"
    )
    equal(refund().id, refund().id)
    equal(stripe.Charge.retrieve(paid.latest_charge).amount_refunded, 200)


@fact("a payment that never took money is not refunded")
def _():
    unpaid = charge(tokenize().id, confirm=False)
    raises(stripe.InvalidRequestError, lambda: stripe.Refund.create(payment_intent=unpaid.id))
    error = raises(stripe.InvalidRequestError, lambda: stripe.Refund.create(charge="ch_none"))
    equal([error.code, error.param], ["resource_missing", "charge"])


@fact("a refund that fails gives the money back to the account")
def _():
    paid = charge("pm_card_refundFail")
    refund = stripe.Refund.create(payment_intent=paid.id)
    failed = stripe.Refund.retrieve(refund.id)
    assert failed.status == "failed" and failed.failure_reason, failed
    equal(booked(paid.latest_charge) + booked(refund.id),
          [("charge", 500), ("refund", -500), ("refund_failure", 500)])


@fact("a chargeback takes the money, names its payment, and blocks refunds")
def _():
    paid = charge(tokenize().id)
    opened = network("disputes", payment_intent=paid.id, kind="chargeback")
    dispute = stripe.Dispute.retrieve(opened["id"], expand=["charge"])
    equal([dispute.status, dispute.amount, dispute.charge.disputed], ["needs_response", 500, True])
    equal([one.id for one in stripe.Dispute.list(payment_intent=paid.id)], [dispute.id])
    error = raises(
        stripe.InvalidRequestError, lambda: stripe.Refund.create(payment_intent=paid.id)
    )
    equal(error.code, "charge_disputed")
    equal(dispute.balance_transactions[0].amount, -500)


@fact("a dispute is won: the money comes back")
def _():
    paid = charge(tokenize().id)
    opened = network("disputes", payment_intent=paid.id, kind="chargeback")
    network(f"disputes/{opened['id']}", end="won")
    dispute = stripe.Dispute.retrieve(opened["id"])
    equal([dispute.status, dispute.is_charge_refundable], ["won", True])
    equal([one.amount for one in dispute.balance_transactions], [-500, 500])
    equal(stripe.Refund.create(payment_intent=paid.id).amount, 500)


@fact("the test card that disputes does so")
def _():
    paid = charge("pm_card_createDispute")
    (dispute,) = stripe.Dispute.list(charge=paid.latest_charge)
    equal([dispute.payment_intent, dispute.reason], [paid.id, "fraudulent"])


@fact("events tell of payments, refunds and disputes, with the object as it was")
def _():
    paid = charge(tokenize().id)
    refund = stripe.Refund.create(payment_intent=paid.id, amount=100)
    dispute = network("disputes", payment_intent=paid.id, kind="chargeback")["id"]
    wanted = {paid.id, paid.latest_charge, refund.id, dispute}
    for kind, about in (
        ("payment_intent.succeeded", paid.id),
        ("charge.refunded", paid.latest_charge),
        ("refund.created", refund.id),
        ("charge.dispute.created", dispute),
    ):
        equal((kind, told(kind, wanted)), (kind, [about]))
    newest = stripe.Event.list(limit=1).data[0]
    found = stripe.Event.retrieve(newest.id)
    equal([found.id, found.type, found.object], [newest.id, newest.type, "event"])
    equal(found.data.object.to_dict(), newest.data.object.to_dict())


@fact("events are listed newest first, over every page")
def _():
    for _ in range(3):
        charge(tokenize().id)
    pages = stripe.Event.list(type="payment_intent.succeeded", limit=2).auto_paging_iter()
    found = [event.id for event in pages]
    assert len(found) == len(set(found)) >= 3
    one_by_one = stripe.Event.list(type="payment_intent.succeeded", limit=100)
    equal(found[:100], [event.id for event in one_by_one])
    since = stripe.Event.list(ending_before=found[1], type="payment_intent.succeeded")
    equal([event.id for event in since], [found[0]])


finish()
