// Stripe's Node library at the sandbox: customers, cards, and cards that are set up.

import assert from 'node:assert/strict';
import { cardOf, env, fact } from '../../peers/facts.mjs';
import { client, errors, ids, newMethod, ownCards, refused, stripe } from './stripe.mjs';

const { customers, paymentMethods, setupIntents } = stripe;
const setUp = (customer, payment_method, more = {}) =>
  setupIntents.create({ customer, payment_method, confirm: true, automatic_payment_methods: ownCards, ...more });

await fact('a Customer is created, retrieved, and listed by its email', async () => {
  const made = await customers.create({ name: 'Ada', email: 'node@example.org', metadata: { payer: '1' } });
  assert.deepEqual({ ...(await customers.retrieve(made.id)) }, { ...made });
  assert.deepEqual([made.name, made.metadata.payer], ['Ada', '1']);
  assert.deepEqual(await ids(customers.list({ email: 'node@example.org' })), [made.id]);
});

await fact('Customers are listed newest first, over every page', async () => {
  const made = [];
  for (let count = 0; count < 5; count += 1) {
    made.unshift((await customers.create({ email: 'pages@example.org' })).id);
  }
  const list = { email: 'pages@example.org', limit: 2 };
  assert.equal((await customers.list(list)).has_more, true);
  assert.deepEqual(await ids(customers.list(list)), made);
});

await fact('Customers are searched by metadata', async () => {
  const { id } = await customers.create({ metadata: { payer: 'node' } });
  assert.deepEqual(await ids(customers.search({ query: "metadata['payer']:'node'" })), [id]);
});

await fact('a card is tokenized, with a fingerprint for the secret key only', async () => {
  const made = await client.paymentMethods.create({ type: 'card', card: cardOf('5555555555554444') });
  assert.deepEqual([made.card.brand, made.card.last4], ['mastercard', '4444']);
  assert.equal(made.card.fingerprint, undefined);
  assert.ok((await paymentMethods.retrieve(made.id)).card.fingerprint);
});

await fact('the publishable key makes cards and nothing else, the secret key sends no numbers', async () => {
  await refused(client.customers.create(), errors.StripeAuthenticationError, { statusCode: 401 });
  const raw = paymentMethods.create({ type: 'card', card: cardOf('4242424242424242') });
  await refused(raw, errors.StripeError, { statusCode: 402, rawType: 'invalid_request_error' });
});

await fact('a bad card number is a StripeCardError of the tokenizer', async () => {
  const expected = { code: 'incorrect_number', param: 'number' };
  await refused(newMethod('4242424242424241'), errors.StripeCardError, expected);
});

await fact('a card is attached, listed and detached; then it is used up', async () => {
  const [{ id: customer }, method] = [await customers.create(), await newMethod()];
  assert.equal((await paymentMethods.attach(method, { customer })).customer, customer);
  assert.deepEqual(await ids(paymentMethods.list({ customer })), [method]);
  assert.deepEqual(await ids(customers.listPaymentMethods(customer)), [method]);
  assert.equal((await paymentMethods.detach(method)).customer, null);
  assert.deepEqual(await ids(paymentMethods.list({ customer, type: 'card' })), []);
  await refused(paymentMethods.attach(method, { customer }), errors.StripeInvalidRequestError);
});

await fact('a SetupIntent checks the security code and attaches the card', async () => {
  const [{ id: customer }, method] = [await customers.create(), await newMethod()];
  const setup = await setUp(customer, method, { usage: 'off_session' });
  assert.deepEqual([setup.status, setup.usage], ['succeeded', 'off_session']);
  const checked = await paymentMethods.retrieve(method);
  assert.deepEqual([checked.card.checks.cvc_check, checked.customer], ['pass', customer]);
  assert.deepEqual(await ids(setupIntents.list({ customer })), [setup.id]);
});

await fact('a SetupIntent of a refused card is a StripeCardError that names the intent', async () => {
  const { id } = await customers.create();
  const expected = { code: 'card_declined', decline_code: 'generic_decline' };
  const error = await refused(setUp(id, await newMethod('4000000000000002')), errors.StripeCardError, expected);
  assert.equal(error.setup_intent.status, 'requires_payment_method');
});

await fact('a SetupIntent is cancelled, and then neither cancelled nor confirmed', async () => {
  const { id } = await setupIntents.create({ customer: (await customers.create()).id });
  assert.equal((await setupIntents.cancel(id)).status, 'canceled');
  const expected = { statusCode: 400, code: 'setup_intent_unexpected_state' };
  await refused(setupIntents.cancel(id), errors.StripeInvalidRequestError, expected);
  const confirm = setupIntents.confirm(id, { payment_method: await newMethod() });
  await refused(confirm, errors.StripeInvalidRequestError, expected);
});
