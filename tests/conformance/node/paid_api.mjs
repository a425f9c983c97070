// Stripe's Node library makes a card that pays paid-api, and finds the payment again.

import assert from 'node:assert/strict';
import { env, fact } from '../../peers/facts.mjs';
import { decode, encode } from '../../peers/v1-client.mjs';
import { ids, newMethod, stripe } from './stripe.mjs';

await fact('a PaymentMethod that the library made pays paid-api, and its charge is found', async () => {
  const payment = encode({ stripe402Version: 1, paymentMethodId: await newMethod() });
  const answer = await fetch(`${env('PAID_API')}/api/joke`, { headers: { payment } });
  assert.equal(answer.status, 200);
  const paid = decode(answer.headers.get('payment-response'));
  const intent = await stripe.paymentIntents.retrieve(paid.chargeId);
  assert.deepEqual([intent.status, intent.amount_received], ['succeeded', 500]);
  assert.equal(intent.metadata.top_up, paid.topUpId);
  assert.equal(intent.metadata.payer, paid.clientId.split('.')[0]);
  const listed = await ids(stripe.paymentIntents.list({ customer: intent.customer }));
  assert.deepEqual(listed, [paid.chargeId]);
});
