// Stripe's Node library at the sandbox: payments, their repetition, and what is refused.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { AUTHENTICATES, env, fact } from '../../peers/facts.mjs';
import { charge, errors, ids, newMethod, refused, stripe, withKey } from './stripe.mjs';

const { customers, paymentIntents, paymentMethods } = stripe;
const newCustomer = async () => (await customers.create()).id;

await fact('a PaymentIntent is created and confirmed, and retrieved with what it expands to', async () => {
  const [customer, method] = [await newCustomer(), await newMethod()];
  const made = await charge(method, { customer, metadata: { top_up: '1' } });
  assert.deepEqual([made.status, made.amount_received], ['succeeded', 500]);
  const expand = ['latest_charge', 'customer', 'payment_method'];
  const found = await paymentIntents.retrieve(made.id, { expand });
  assert.deepEqual([found.customer.id, found.payment_method.id], [customer, method]);
  assert.deepEqual([found.latest_charge.paid, found.metadata.top_up], [true, '1']);
  assert.equal((await stripe.charges.retrieve(made.latest_charge)).amount_captured, 500);
});

await fact('a PaymentIntent is created first and confirmed later', async () => {
  const made = await charge(await newMethod(), { confirm: false });
  assert.equal(made.status, 'requires_confirmation');
  assert.equal((await paymentIntents.confirm(made.id)).status, 'succeeded');
});

await fact('PaymentIntents of a Customer are listed newest first, over every page', async () => {
  const [customer, method] = [await newCustomer(), await newMethod()];
  await paymentMethods.attach(method, { customer });
  const made = [];
  for (let count = 0; count < 5; count += 1) made.unshift((await charge(method, { customer })).id);
  assert.deepEqual(await ids(paymentIntents.list({ customer, limit: 2 })), made);
});

await fact('a PaymentIntent is cancelled, and then not confirmed; a paid one is not cancelled', async () => {
  const { id } = await charge(await newMethod(), { confirm: false });
  assert.equal((await paymentIntents.cancel(id)).status, 'canceled');
  const expected = { statusCode: 400, code: 'payment_intent_unexpected_state' };
  await refused(paymentIntents.confirm(id), errors.StripeInvalidRequestError, expected);
  const paid = await charge(await newMethod());
  await refused(paymentIntents.cancel(paid.id), errors.StripeInvalidRequestError, expected);
});

await fact('an idempotency key is replayed, and refused with other parameters; one charge is made', async () => {
  const [customer, method] = [await newCustomer(), await newMethod()];
  const idempotencyKey = randomUUID();
  const create = (amount) => charge(method, { customer, amount }, { idempotencyKey });
  const [one, two] = [await create(500), await create(500)];
  assert.equal(one.id, two.id);
  assert.equal(one.lastResponse.headers['idempotent-replayed'], undefined);
  assert.equal(two.lastResponse.headers['idempotent-replayed'], 'true');
  await refused(create(501), errors.StripeIdempotencyError, { statusCode: 400 });
  assert.deepEqual(await ids(paymentIntents.list({ customer })), [one.id]);
});

await fact('declines are StripeCardErrors with code and decline_code', async () => {
  // Where Stripe names none, this library says an empty text.
  for (const [number, code, decline_code] of [
    ['4000000000000002', 'card_declined', 'generic_decline'],
    ['4000000000009995', 'card_declined', 'insufficient_funds'],
    ['4000000000009987', 'card_declined', 'lost_card'],
    ['4000000000000069', 'expired_card', ''],
    ['4000000000000127', 'incorrect_cvc', ''],
  ]) {
    const expected = { statusCode: 402, code, decline_code };
    const error = await refused(charge(await newMethod(number)), errors.StripeCardError, expected);
    const intent = await paymentIntents.retrieve(error.payment_intent.id);
    assert.deepEqual([intent.status, intent.last_payment_error.code], ['requires_payment_method', code]);
  }
});

await fact('a card that must authenticate waits in requires_action, or ends as an error', async () => {
  const waiting = await charge(await newMethod(AUTHENTICATES));
  assert.deepEqual([waiting.status, waiting.next_action.type], ['requires_action', 'use_stripe_sdk']);
  const ends = charge(await newMethod(AUTHENTICATES), { error_on_requires_action: true });
  await refused(ends, errors.StripeCardError, { statusCode: 402, code: 'authentication_required' });
});

await fact('unknown and missing parameters are refused by name', async () => {
  const unknown = { statusCode: 400, code: 'parameter_unknown', param: 'colour' };
  await refused(customers.create({ colour: 'red' }), errors.StripeInvalidRequestError, unknown);
  const missing = { statusCode: 400, code: 'parameter_missing', param: 'currency' };
  await refused(paymentIntents.create({ amount: 500 }), errors.StripeInvalidRequestError, missing);
});

await fact('an unknown id is resource_missing: 404 in the path, 400 in a parameter', async () => {
  for (const kind of ['customers', 'paymentMethods', 'setupIntents', 'paymentIntents', 'charges']) {
    const expected = { statusCode: 404, code: 'resource_missing' };
    await refused(stripe[kind].retrieve('none_1'), errors.StripeInvalidRequestError, expected);
  }
  const expected = { statusCode: 400, code: 'resource_missing', param: 'payment_method' };
  await refused(charge('pm_none'), errors.StripeInvalidRequestError, expected);
});

await fact('a wrong key is a StripeAuthenticationError, and so is the publishable key', async () => {
  for (const key of ['sk_test_wrong', env('STRIPE_PUBLISHABLE_KEY')]) {
    await refused(withKey(key).customers.list(), errors.StripeAuthenticationError, { statusCode: 401 });
  }
});
