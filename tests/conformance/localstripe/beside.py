"""The sandbox and localstripe are asked the same. What both answer is asserted, and so is every
difference that is known: one that goes away is as red as a new one.
"""

import os
import sys
import uuid
from pathlib import Path

import requests
import stripe

sys.path.append(str(Path(__file__).parent.parent / "python"))
from endpoint import URL, delivered  # noqa: E402
from facts import BASE, PUBLISHABLE, SECRET, equal, fact, finish, new_number, sandbox  # noqa: E402


class Side:
    """One of the two, with its secret key and the key that it demands of whoever tokenizes."""

    def __init__(self, base, secret, tokenizing):
        self.base, self.secret, self.tokenizing = base, secret, tokenizing

    def ask(self, method, path, fields=None, key=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["Authorization"] = f"Bearer {key or self.secret}"
        where = "params" if method == "GET" else "data"
        url = f"{self.base}/v1/{path}"
        answer = requests.request(method, url, headers=headers, timeout=20, **{where: fields})
        is_json = answer.headers["Content-Type"].startswith("application/json")
        return Answer(answer.status_code, answer.json() if is_json else answer.text)

    def get(self, path, **fields):
        return self.ask("GET", path, fields)

    def post(self, path, **fields):
        return self.ask("POST", path, nested(fields))

    def customer(self):
        return self.post("customers")["id"]

    def card(self, number=None):
        return self.ask("POST", "payment_methods", card(number), key=self.tokenizing)["id"]

    def attached(self, number=None):
        customer, method = self.customer(), self.card(number)
        self.post(f"payment_methods/{method}/attach", customer=customer)
        return {"customer": customer, "payment_method": method}

    def charge(self, **more):
        kinds = {} if "automatic_payment_methods" in more else ONLY_CARDS
        terms = {"amount": 500, "currency": "usd", "confirm": "true", **kinds, **more}
        return self.post("payment_intents", **terms)


class Answer:
    def __init__(self, status, body):
        self.status, self.body = status, body

    def __getitem__(self, name):
        return self.body[name]

    def shows(self, *names):
        """The status and these fields, or what an error says in all but words."""
        if self.status == 200:
            return (200, *(self.body[name] for name in names))
        if isinstance(self.body, str):
            return (self.status, "no JSON")
        error = self.body["error"]
        return (self.status, *(error.get(name) for name in ("type", "code", "decline_code")))


def nested(fields):
    """`{"a": {"b": 1}}` as the form field `a[b]`."""
    flat = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat.update({f"{name}[{inner}]": one for inner, one in value.items()})
        else:
            flat[name] = value
    return flat


def card(number=None, **more):
    given = {"number": number or new_number(), "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    return nested({"type": "card", "card": {**given, **more}})


# The older way to say what both know, that nothing redirects.
ONLY_CARDS = {"payment_method_types[]": "card"}
SANDBOX = Side(BASE, SECRET, PUBLISHABLE)
LOCALSTRIPE = Side(os.environ["LOCALSTRIPE"], "sk_test_localstripe", "sk_test_localstripe")
INVALID = "invalid_request_error"


def both(words, ask, expected):
    """Both answer this."""

    @fact(words)
    def _():
        equal({"sandbox": ask(SANDBOX), "localstripe": ask(LOCALSTRIPE)},
              {"sandbox": expected, "localstripe": expected})


def differ(words, ask, sandbox, localstripe):
    """They answer differently, and exactly so."""
    assert sandbox != localstripe, words

    @fact(words)
    def _():
        equal({"sandbox": ask(SANDBOX), "localstripe": ask(LOCALSTRIPE)},
              {"sandbox": sandbox, "localstripe": localstripe})


# --- customers -----------------------------------------------------------------------------------

def made_and_read(side):
    made = side.post("customers", name="Ada", email="a@example.org", metadata={"payer": "1"})
    read = side.get(f"customers/{made['id']}")
    assert read.body == made.body and made["id"].startswith("cus_")
    return read.shows("object", "name", "email", "description", "metadata", "livemode")


both("a customer is made and read", made_and_read,
     (200, "customer", "Ada", "a@example.org", None, {"payer": "1"}, False))


def listed_by_email(side):
    made = [side.post("customers", email=f"{n}@list.example")["id"] for n in (1, 2)]
    page = side.get("customers", email="2@list.example")
    return page.shows("object", "has_more", "url"), [one["id"] for one in page["data"]] == made[1:]


both("customers are listed by their email", listed_by_email,
     ((200, "list", False, "/v1/customers"), True))


def order(side):
    made = [side.post("customers", email="order@list.example")["id"] for _ in range(3)]
    found = [one["id"] for one in side.get("customers", email="order@list.example")["data"]]
    return ["oldest first", "newest first"][found == made[::-1]] if set(found) == set(made) else found


differ("lists: newest first, as Stripe's; localstripe's are oldest first", order,
       "newest first", "oldest first")
both("an unknown parameter is refused",
     lambda side: side.post("customers", colour="red").status, 400)
differ("an unknown parameter has a code; in localstripe none",
       lambda side: side.post("customers", colour="red").shows(),
       (400, INVALID, "parameter_unknown", None), (400, INVALID, None, None))
both("an unknown customer is a 404",
     lambda side: side.get("customers/cus_none").shows()[:2], (404, INVALID))
differ("an unknown id has a code; in localstripe none",
       lambda side: side.get("customers/cus_none").shows(),
       (404, INVALID, "resource_missing", None), (404, INVALID, None, None))
differ("localstripe takes every key that begins sk_",
       lambda side: side.ask("GET", "customers", key="sk_test_wrong").status, 401, 200)
differ("localstripe ignores idempotency keys",
       lambda side: len({side.ask("POST", "customers", idempotency_key=key)["id"]
                         for key in [str(uuid.uuid4())] * 2}), 1, 2)
differ("localstripe has no search",
       lambda side: side.get("customers/search", query="metadata['payer']:'x'").status, 200, 404)


# --- payment methods -----------------------------------------------------------------------------

def tokenized(side):
    made = side.ask("POST", "payment_methods", card("4242424242424242"), key=side.tokenizing)
    shown = made["card"]
    return (*made.shows("object", "type", "customer", "metadata"),
            *(shown[name] for name in ("brand", "last4", "exp_month", "exp_year", "funding")))


both("a card is tokenized", tokenized,
     (200, "payment_method", "card", None, {}, "visa", "4242", 12, 2034, "credit"))


def fingerprints(side):
    methods = [side.card("4242424242424242"), side.card("4242424242424242"), side.card()]
    prints = [side.get(f"payment_methods/{one}")["card"]["fingerprint"] for one in methods]
    return all(prints), prints[0] == prints[1], prints[0] == prints[2]


both("a fingerprint belongs to the number, not to the PaymentMethod", fingerprints,
     (True, True, False))


def life(side):
    customer, method = side.customer(), side.card()
    steps = [side.post(f"payment_methods/{method}/attach", customer=customer)["customer"] == customer]
    page = side.get("payment_methods", customer=customer, type="card")
    steps.append([one["id"] for one in page["data"]] == [method])
    steps.append(side.post(f"payment_methods/{method}/detach")["customer"])
    steps.append(side.get("payment_methods", customer=customer, type="card")["data"])
    return steps


both("a card is attached, listed and detached", life, [True, True, None, []])


def used_up(side):
    customer, method = side.customer(), side.card()
    for step in ("attach", "detach", "attach"):
        answer = side.post(f"payment_methods/{method}/{step}",
                           **({"customer": customer} if step == "attach" else {}))
    return answer.shows("object")


differ("a detached card is used up; in localstripe it is attached again", used_up,
       (400, INVALID, "payment_method_unexpected_state", None), (200, "payment_method"))
both("an alias of a test card is a card",
     lambda side: side.get("payment_methods/pm_card_visa")["card"]["last4"], "4242")
differ("the publishable key tokenizes; in localstripe no Bearer pk_ does",
       lambda side: side.ask("POST", "payment_methods", card(), key=PUBLISHABLE).status, 200, 401)
differ("the secret key sends no card numbers; in localstripe it does",
       lambda side: side.ask("POST", "payment_methods", card()).status, 402, 200)
differ("every card of localstripe is a French Visa",
       lambda side: [side.get(f"payment_methods/{side.card('5555555555554444')}")["card"][name]
                     for name in ("brand", "country")], ["mastercard", "US"], ["visa", "FR"])
differ("localstripe knows no card of 15 digits",
       lambda side: side.ask("POST", "payment_methods", card("378282246310005", cvc="1234"),
                             key=side.tokenizing).status, 200, 400)
differ("localstripe wants a security code",
       lambda side: side.ask("POST", "payment_methods", card(cvc=None), key=side.tokenizing).status,
       200, 400)
differ("localstripe checks no check digit",
       lambda side: side.ask("POST", "payment_methods", card("4242424242424241"),
                             key=side.tokenizing).shows("type"),
       (402, "card_error", "incorrect_number", None), (200, "card"))
differ("localstripe lists no cards of any type",
       lambda side: side.get("payment_methods", customer=side.customer()).status, 200, 400)


def refused_attach(side):
    customer, method = side.customer(), side.card("4000000000000002")
    return side.post(f"payment_methods/{method}/attach", customer=customer).shows()


differ("a card that its bank refuses is a card_error with a decline_code; in localstripe neither",
       refused_attach, (402, "card_error", "card_declined", "generic_decline"),
       (402, INVALID, "card_declined", None))


# --- payments ------------------------------------------------------------------------------------

both("an attached card is charged",
     lambda side: side.charge(**side.attached()).shows("object", "status", "amount", "currency",
                                                       "next_action"),
     (200, "payment_intent", "succeeded", 500, "usd", None))
both("a payment is created first and confirmed later",
     lambda side: side.post(
         f"payment_intents/{side.charge(confirm='false', payment_method=side.card())['id']}/confirm"
     ).shows("status"), (200, "succeeded"))
both("a card that must authenticate waits",
     lambda side: side.charge(payment_method=side.card("4000002760003184")).shows("status"),
     (200, "requires_action"))
both("a payment that waits is cancelled",
     lambda side: side.post(
         f"payment_intents/{side.charge(payment_method=side.card('4000002760003184'))['id']}/cancel"
     ).shows("status"), (200, "canceled"))
both("a payment by an unknown card is refused",
     lambda side: side.charge(payment_method="pm_none").shows()[1], INVALID)
differ("an unknown card is a 400 where a parameter names it; in localstripe a 404",
       lambda side: side.charge(payment_method="pm_none").status, 400, 404)
differ("a decline is a card_error with a decline_code and the intent; in localstripe neither",
       lambda side: (answer := side.charge(**side.attached("4000000000000341"))).shows()
       + ("payment_intent" in answer["error"],),
       (402, "card_error", "card_declined", "generic_decline", True),
       (402, INVALID, "card_declined", None, False))
for number in ("4000000000000002", "4000000000009995", "4100000000000019"):
    differ(f"localstripe charges {number} when it is not attached",
           lambda side: side.charge(payment_method=side.card(number)).status, 402, 200)
for name, value in (("description", "d"), ("setup_future_usage", "off_session"),
                    ("error_on_requires_action", "true"),
                    ("automatic_payment_methods", {"enabled": "true", "allow_redirects": "never"})):
    differ(f"localstripe refuses {name}",
           lambda side: side.charge(payment_method=side.card(), **{name: value}).shows("status"),
           (200, "succeeded"), (400, INVALID, None, None))
differ("localstripe knows no smallest amount",
       lambda side: side.charge(payment_method=side.card(), amount=1).shows("status"),
       (400, INVALID, "amount_too_small", None), (200, "succeeded"))


def twice_unattached(side):
    method = side.card()
    return [side.charge(payment_method=method).status for _ in range(2)]


differ("a card without a customer is used once; in localstripe again", twice_unattached,
       [200, 400], [200, 200])
differ("localstripe lists no payments of one customer",
       lambda side: side.get("payment_intents", customer=side.customer()).status, 200, 400)
differ("localstripe does not say what it received",
       lambda side: side.charge(payment_method=side.card()).body.get("amount_received"), 500, None)


def set_up(side):
    card = {"customer": side.customer(), "payment_method": side.card()}
    return side.post("setup_intents", confirm="true", **card, **ONLY_CARDS).shows("status")


differ("a SetupIntent is confirmed as it is created; in localstripe in a second call", set_up,
       (200, "succeeded"), (400, INVALID, None, None))


def set_up_in_two(side):
    intent = side.post("setup_intents", customer=side.customer(), **ONLY_CARDS)
    return side.post(f"setup_intents/{intent['id']}/confirm", payment_method=side.card()).shows("status")


both("a SetupIntent is confirmed in a second call", set_up_in_two, (200, "succeeded"))
both("a SetupIntent is cancelled",
     lambda side: side.post(f"setup_intents/{side.post('setup_intents')['id']}/cancel").shows("status"),
     (200, "canceled"))
differ("localstripe does not know whose account it is",
       lambda side: side.get("account").shows("object"), (200, "account"), (404, "no JSON"))

differ("a confirmation that may redirect wants a return_url; in localstripe nothing redirects",
       lambda side: side.post("payment_intents", amount=500, currency="usd", confirm="true",
                              payment_method=side.card()).shows("status"),
       (400, INVALID, None, None), (200, "succeeded"))


# --- capturing later, refunds, events ------------------------------------------------------------

def held(side):
    return side.charge(payment_method=side.card(), capture_method="manual")


def captured(side, **amount):
    intent = side.post(f"payment_intents/{held(side)['id']}/capture", **amount)
    charge = side.get("payment_intents/" + intent["id"], **{"expand[]": "latest_charge"})
    return intent.shows("status"), charge["latest_charge"]["amount_refunded"]


both("a payment is held", lambda side: held(side).shows("status"), (200, "requires_capture"))
both("a held payment is captured", captured, ((200, "succeeded"), 0))
both("a part of a held payment is captured, and the rest counts as refunded",
     lambda side: captured(side, amount_to_capture=200), ((200, "succeeded"), 300))
both("a held payment is let go",
     lambda side: side.post(f"payment_intents/{held(side)['id']}/cancel").shows("status"),
     (200, "canceled"))


def refund(side, **fields):
    return side.post("refunds", payment_intent=side.charge(payment_method=side.card())["id"], **fields)


both("a payment is refunded in full",
     lambda side: refund(side).shows("object", "status", "amount", "currency"),
     (200, "refund", "succeeded", 500, "usd"))
both("a part of a payment is refunded",
     lambda side: refund(side, amount=200).shows("status", "amount"), (200, "succeeded", 200))
differ("localstripe refunds more than was taken",
       lambda side: refund(side, amount=100_000).shows("status", "amount"),
       (400, INVALID, None, None), (200, "succeeded", 100_000))
differ("localstripe refuses the reason of a refund",
       lambda side: refund(side, reason="duplicate").status, 200, 400)
differ("localstripe has no disputes",
       lambda side: side.get("disputes").status, 200, 404)


def event(side):
    paid = side.charge(payment_method=side.card())["id"]
    events = side.get("events", type="payment_intent.succeeded", limit=100)["data"]
    (told,) = [one for one in events if one["data"]["object"]["id"] == paid]
    return told["object"], told["data"]["object"]["object"], told["livemode"]


both("a payment is told of in an event", event, ("event", "payment_intent", False))


def event_of_refund(side):
    refund(side)
    return bool(side.get("events", type="charge.refunded")["data"])


differ("localstripe does not tell of refunds", event_of_refund, True, False)


# --- webhooks: the same library reads both -------------------------------------------------------

sandbox("PUT", "webhook", {"url": URL, "secrets": ["whsec_sandbox"]})
requests.post(f"{LOCALSTRIPE.base}/_config/webhooks/one", timeout=20,
              json={"url": URL, "secret": "whsec_localstripe"})
SANDBOX.whsec, LOCALSTRIPE.whsec = "whsec_sandbox", "whsec_localstripe"


def read_delivery(side):
    paid = side.charge(payment_method=side.card())["id"]
    body, signature = delivered("payment_intent.succeeded", paid)
    return stripe.Webhook.construct_event(body, signature, side.whsec)


both("a payment is delivered to a webhook, and its signature is read",
     lambda side: (event := read_delivery(side)).type + " " + event.data.object.status,
     "payment_intent.succeeded succeeded")
differ("localstripe delivers events of an old version",
       lambda side: read_delivery(side).api_version, "2026-09-30.endive", "2017-08-15")

sandbox("PUT", "webhook", {"url": None})
finish()
