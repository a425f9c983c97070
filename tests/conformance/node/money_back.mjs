// Stripe's Node library at the sandbox: capturing later, refunds, disputes, and events.

import assert from 'node:assert/strict';
import { fact } from '../../peers/facts.mjs';
import { charge, errors, ids, newMethod, refused, sandbox, stripe } from './stripe.mjs';

const { charges, disputes, events, paymentIntents, refunds } = stripe;
const hold = async () => charge(await newMethod(), { capture_method: 'manual' });
const invalid = errors.StripeInvalidRequestError;

/** What the card network does. */
const network = (path, told) => sandbox('POST', path, told);

await fact('a payment that is held takes nothing until it is captured', async () => {
  const held = await hold();
  assert.deepEqual([held.status, held.amount_capturable, held.amount_received], ['requires_capture', 500, 0]);
  const taken = await paymentIntents.capture(held.id);
  assert.deepEqual([taken.status, taken.amount_received], ['succeeded', 500]);
});

await fact('a part is captured, the rest is let go, and no more than the hold can be taken', async () => {
  const { id } = await hold();
  const more = paymentIntents.capture(id, { amount_to_capture: 501 });
  await refused(more, invalid, { statusCode: 400, code: 'amount_too_large' });
  const taken = await paymentIntents.capture(id, { amount_to_capture: 200 });
  assert.deepEqual([taken.status, taken.amount_received], ['succeeded', 200]);
});

await fact('a payment is refunded in full, once', async () => {
  const paid = await charge(await newMethod());
  const refund = await refunds.create({ payment_intent: paid.id });
  assert.deepEqual([refund.status, refund.amount], ['succeeded', 500]);
  assert.equal((await charges.retrieve(paid.latest_charge)).refunded, true);
  const expected = { statusCode: 400, code: 'charge_already_refunded' };
  await refused(refunds.create({ payment_intent: paid.id }), invalid, expected);
});

await fact('a payment is refunded in parts, and never by more than was taken', async () => {
  const paid = await charge(await newMethod());
  const refund = (amount) => refunds.create({ charge: paid.latest_charge, amount });
  const first = await refund(200);
  await refused(refund(301), invalid, { statusCode: 400, param: 'amount' });
  const second = await refund(300);
  assert.deepEqual(await ids(refunds.list({ payment_intent: paid.id, limit: 1 })), [second.id, first.id]);
});

await fact('a chargeback takes the money, names its payment, and blocks refunds', async () => {
  const paid = await charge(await newMethod());
  const opened = await network('disputes', { payment_intent: paid.id, kind: 'chargeback' });
  const dispute = await disputes.retrieve(opened.id, { expand: ['charge'] });
  assert.deepEqual([dispute.status, dispute.charge.disputed], ['needs_response', true]);
  assert.deepEqual(await ids(disputes.list({ payment_intent: paid.id })), [opened.id]);
  await refused(refunds.create({ payment_intent: paid.id }), invalid, { code: 'charge_disputed' });
});

await fact('events tell of payments and refunds, with the object as it was', async () => {
  const paid = await charge(await newMethod());
  const refund = await refunds.create({ payment_intent: paid.id, amount: 100 });
  for (const [type, about] of [
    ['payment_intent.succeeded', paid.id],
    ['charge.refunded', paid.latest_charge],
    ['refund.created', refund.id],
  ]) {
    const newest = (await events.list({ type, limit: 1 })).data[0];
    assert.deepEqual([newest.type, newest.data.object.id], [type, about]);
    assert.deepEqual((await events.retrieve(newest.id)).data, newest.data);
  }
});
