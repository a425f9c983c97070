"""Stripe's Python library at the sandbox: customers, cards, and cards that are set up."""

import stripe
from facts import OWN_CARDS, PUBLISHABLE, SECRET, equal, fact, finish, raises, tokenize


def set_up(customer, method, **more):
    return stripe.SetupIntent.create(
        customer=customer.id,
        payment_method=method.id,
        confirm=True,
        automatic_payment_methods=OWN_CARDS,
        **more,
    )


@fact("a Customer is created, retrieved, and listed by its email")
def _():
    made = stripe.Customer.create(
        name="Ada", email="ada@example.org", description="one", metadata={"payer": "1"}
    )
    found = stripe.Customer.retrieve(made.id)
    equal(found.to_dict(), made.to_dict())
    equal([found.name, found.description, found.metadata["payer"]], ["Ada", "one", "1"])
    equal([one.id for one in stripe.Customer.list(email="ada@example.org")], [made.id])
    equal(stripe.Customer.list(email="nobody@example.org").data, [])


@fact("Customers are listed newest first, page by page in both directions")
def _():
    made = [stripe.Customer.create(email="page@example.org").id for _ in range(5)][::-1]
    pages = stripe.Customer.list(email="page@example.org", limit=2)
    assert pages.has_more and [one.id for one in pages] == made[:2]
    equal([one.id for one in pages.auto_paging_iter()], made)
    before = stripe.Customer.list(email="page@example.org", ending_before=made[2], limit=1)
    equal([one.id for one in before], [made[1]])


@fact("Customers are searched by metadata")
def _():
    made = stripe.Customer.create(metadata={"payer": "searched"})
    found = stripe.Customer.search(query="metadata['payer']:'searched'")
    equal([one.id for one in found.auto_paging_iter()], [made.id])


@fact("a card is tokenized: brand, last4, expiry, and a fingerprint for the secret key only")
def _():
    method = tokenize("5555555555554444")
    card = method.card
    equal([card.brand, card.last4, card.exp_month, card.exp_year], ["mastercard", "4444", 12, 2034])
    assert "fingerprint" not in card
    again = tokenize("5555555555554444")
    prints = [stripe.PaymentMethod.retrieve(one.id).card.fingerprint for one in (method, again)]
    assert prints[0] and prints[0] == prints[1] and method.id != again.id


@fact("the publishable key reads nothing, and the secret key sends no card numbers")
def _():
    method = tokenize()
    read = lambda: stripe.PaymentMethod.retrieve(method.id, api_key=PUBLISHABLE)
    raises(stripe.AuthenticationError, read)
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    send = lambda: stripe.PaymentMethod.create(api_key=SECRET, type="card", card=card)
    refused = raises(stripe.StripeError, send)
    equal([refused.http_status, refused.error.type], [402, "invalid_request_error"])


@fact("bad card data is a CardError of the tokenizer, with its code and parameter")
def _():
    error = raises(stripe.CardError, lambda: tokenize("4242424242424241"))
    equal([error.code, error.param], ["incorrect_number", "number"])
    error = raises(stripe.CardError, lambda: tokenize(cvc="12"))
    equal([error.code, error.param], ["invalid_cvc", "cvc"])


@fact("a card is attached, listed and detached; then it is used up")
def _():
    customer, method = stripe.Customer.create(), tokenize()
    equal(stripe.PaymentMethod.attach(method.id, customer=customer.id).customer, customer.id)
    equal([one.id for one in stripe.PaymentMethod.list(customer=customer.id)], [method.id])
    equal([one.id for one in stripe.Customer.list_payment_methods(customer.id)], [method.id])
    equal(stripe.PaymentMethod.detach(method.id).customer, None)
    equal(stripe.PaymentMethod.list(customer=customer.id, type="card").data, [])
    attach = lambda: stripe.PaymentMethod.attach(method.id, customer=customer.id)
    raises(stripe.InvalidRequestError, attach)


@fact("a card that its bank refuses is not attached")
def _():
    customer, method = stripe.Customer.create(), tokenize("4000000000000002")
    attach = lambda: stripe.PaymentMethod.attach(method.id, customer=customer.id)
    equal(raises(stripe.CardError, attach).code, "card_declined")
    equal(stripe.PaymentMethod.list(customer=customer.id).data, [])


@fact("a card of one Customer is refused to another")
def _():
    one, other, method = stripe.Customer.create(), stripe.Customer.create(), tokenize()
    stripe.PaymentMethod.attach(method.id, customer=one.id)
    raises(
        stripe.InvalidRequestError,
        lambda: stripe.PaymentMethod.attach(method.id, customer=other.id),
    )
    raises(stripe.InvalidRequestError, lambda: set_up(other, method))


@fact("a SetupIntent checks the security code and attaches the card")
def _():
    customer, method = stripe.Customer.create(), tokenize()
    setup = set_up(customer, method, usage="off_session", metadata={"why": "later"})
    equal([setup.status, setup.usage, setup.metadata["why"]], ["succeeded", "off_session", "later"])
    checked = stripe.PaymentMethod.retrieve(method.id)
    equal([checked.card.checks.cvc_check, checked.customer], ["pass", customer.id])
    equal([one.id for one in stripe.SetupIntent.list(customer=customer.id)], [setup.id])
    equal(stripe.SetupIntent.retrieve(setup.id).status, "succeeded")


@fact("a SetupIntent of a refused card is a CardError that names the intent")
def _():
    customer, method = stripe.Customer.create(), tokenize("4000000000000002")
    error = raises(stripe.CardError, lambda: set_up(customer, method))
    equal([error.code, error.error.decline_code], ["card_declined", "generic_decline"])
    equal(error.error.setup_intent.status, "requires_payment_method")


@fact("a SetupIntent of a card that must authenticate waits")
def _():
    setup = set_up(stripe.Customer.create(), tokenize("4000002760003184"))
    equal([setup.status, setup.next_action.type], ["requires_action", "use_stripe_sdk"])


@fact("a SetupIntent is cancelled, and then neither cancelled nor confirmed")
def _():
    setup = stripe.SetupIntent.create(customer=stripe.Customer.create().id)
    equal(setup.status, "requires_payment_method")
    cancelled = stripe.SetupIntent.cancel(setup.id, cancellation_reason="abandoned")
    equal([cancelled.status, cancelled.cancellation_reason], ["canceled", "abandoned"])
    for step in (
        lambda: stripe.SetupIntent.cancel(setup.id),
        lambda: stripe.SetupIntent.confirm(setup.id, payment_method=tokenize().id),
    ):
        equal(raises(stripe.InvalidRequestError, step).code, "setup_intent_unexpected_state")


finish()
