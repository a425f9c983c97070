// Stripe's Node library at the sandbox when something goes wrong between them.

import assert from 'node:assert/strict';
import { env, fact } from '../../peers/facts.mjs';
import { charge, errors, newMethod, ownCards, refused, sandbox, stripe, withKey } from './stripe.mjs';

const patient = withKey(env('STRIPE_SECRET_KEY'), { maxNetworkRetries: 2 });

/** The next payment meets a fault. What waits for nobody is a mistake of the fact. */
async function during(kind, more, run) {
  await sandbox('POST', 'faults', { method: 'POST', path: '/v1/payment_intents', kind, ...more });
  try {
    await run();
    assert.deepEqual((await sandbox('GET', 'faults')).waiting, []);
  } finally {
    await sandbox('DELETE', 'faults');
  }
}

const payments = async (customer) => {
  const page = await stripe.paymentIntents.list({ customer });
  return page.data.map((one) => one.status);
};
const payer = async () => [(await stripe.customers.create()).id, await newMethod()];

await fact('a rate limit is a StripeRateLimitError, and nothing ran', async () => {
  const [customer, method] = await payer();
  const expected = { statusCode: 429, code: 'rate_limit' };
  await during('rate_limited', {}, () => refused(charge(method, { customer }), errors.StripeRateLimitError, expected));
  assert.deepEqual(await payments(customer), []);
});

await fact('an answer in half is an error, and the payment was made', async () => {
  const [customer, method] = await payer();
  await during('truncated', {}, () => refused(charge(method, { customer }), errors.StripeError));
  assert.deepEqual(await payments(customer), ['succeeded']);
});

await fact('without retries the library repeats a closed connection once, and one payment is made', async () => {
  const [customer, method] = await payer();
  await during('reset_after', {}, () => charge(method, { customer }));
  assert.deepEqual(await payments(customer), ['succeeded']);
});

await fact('a crash is a StripeAPIError', async () => {
  const [, method] = await payer();
  await during('server_error', { ran: false }, () => refused(charge(method), errors.StripeAPIError, { statusCode: 500 }));
});

await fact('the library repeats what was lost by itself, and one payment is made', async () => {
  for (const [kind, more] of [
    ['reset_before', {}],
    ['reset_after', {}],
    ['conflict', {}],
    ['bad_gateway', { ran: true }],
  ]) {
    const [customer, payment_method] = await payer();
    const terms = { amount: 500, currency: 'usd', confirm: true, automatic_payment_methods: ownCards };
    await during(kind, more, async () => {
      const paid = await patient.paymentIntents.create({ ...terms, customer, payment_method });
      assert.equal(paid.status, 'succeeded', kind);
    });
    assert.deepEqual([kind, await payments(customer)], [kind, ['succeeded']]);
  }
});

// The library never reads what a 409 says before it repeats, and would keep that connection open.
process.exit();
