// Stripe's Node library at the sandbox, and a payment to paid-api that it can find again.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import Stripe from 'stripe';
import { cardOf, env, fact, newCard } from './facts.mjs';
import { decode, encode } from './v1-client.mjs';

const { protocol, hostname, port } = new URL(env('STRIPE_API_BASE'));
const at = { protocol: protocol.slice(0, -1), host: hostname, port, maxNetworkRetries: 0 };
const stripe = new Stripe(env('STRIPE_SECRET_KEY'), at);
const client = new Stripe(env('STRIPE_PUBLISHABLE_KEY'), at);

const tokenize = (card) => client.paymentMethods.create({ type: 'card', card });
const terms = {
  amount: 500,
  currency: 'usd',
  confirm: true,
  automatic_payment_methods: { enabled: true, allow_redirects: 'never' },
};

await fact('a PaymentMethod that the library made pays paid-api, and its charge is found', async () => {
  const method = await tokenize(newCard());
  const payment = encode({ stripe402Version: 1, paymentMethodId: method.id });
  const answer = await fetch(`${env('PAID_API')}/api/joke`, { headers: { payment } });
  assert.equal(answer.status, 200);
  const paid = decode(answer.headers.get('payment-response'));
  const intent = await stripe.paymentIntents.retrieve(paid.chargeId);
  assert.deepEqual([intent.status, intent.amount_received], ['succeeded', 500]);
  assert.equal(intent.metadata.top_up, paid.topUpId);
  assert.equal(intent.metadata.payer, paid.clientId.split('.')[0]);
  const listed = [];
  for await (const one of stripe.paymentIntents.list({ customer: intent.customer })) listed.push(one.id);
  assert.deepEqual(listed, [paid.chargeId]);
});

await fact('an idempotency key is replayed, and refused with other parameters', async () => {
  const idempotencyKey = randomUUID();
  const create = (payment_method, amount) =>
    stripe.paymentIntents.create({ ...terms, amount, payment_method }, { idempotencyKey });
  const { id } = await tokenize(newCard());
  const [one, two] = [await create(id, 500), await create(id, 500)];
  assert.equal(one.id, two.id);
  assert.equal(two.lastResponse.headers['idempotent-replayed'], 'true');
  await assert.rejects(create(id, 501), Stripe.errors.StripeIdempotencyError);
});

await fact('a decline is a StripeCardError with decline_code', async () => {
  const { id } = await tokenize(cardOf('4000000000009995'));
  await assert.rejects(stripe.paymentIntents.create({ ...terms, payment_method: id }), (error) => {
    assert.ok(error instanceof Stripe.errors.StripeCardError);
    assert.deepEqual([error.code, error.decline_code], ['card_declined', 'insufficient_funds']);
    return true;
  });
});

await fact('a SetupIntent checks the security code', async () => {
  const customer = await stripe.customers.create({ metadata: { who: 'node' } });
  assert.equal((await stripe.customers.retrieve(customer.id)).metadata.who, 'node');
  const { id } = await tokenize(newCard());
  const setup = await stripe.setupIntents.create({
    customer: customer.id,
    payment_method: id,
    confirm: true,
    automatic_payment_methods: { enabled: true, allow_redirects: 'never' },
  });
  assert.equal(setup.status, 'succeeded');
  assert.equal((await stripe.paymentMethods.retrieve(id)).card.checks.cvc_check, 'pass');
});

await fact('the publishable key makes cards and nothing else', async () => {
  await assert.rejects(client.customers.create(), Stripe.errors.StripeAuthenticationError);
});
