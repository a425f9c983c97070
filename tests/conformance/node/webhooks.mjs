// Stripe's Node library reads what the sandbox delivers to a webhook, over HTTP.

import assert from 'node:assert/strict';
import http from 'node:http';
import { fact } from '../../peers/facts.mjs';
import { charge, errors, newMethod, sandbox, stripe, webhooks } from './stripe.mjs';

const [OLD, NEW, OTHER] = ['whsec_old', 'whsec_new', 'whsec_other'];
const arrived = [];
let ring = () => {};

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    arrived.push({ body: Buffer.concat(chunks), signature: request.headers['stripe-signature'] });
    response.end();
    ring();
  });
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const url = `http://127.0.0.1:${server.address().port}/webhooks`;

/** The first delivery of a kind that is about an object, once it is there. */
async function delivered(type, about) {
  const wanted = ({ body }) => {
    const told = JSON.parse(body);
    return told.type === type && told.data.object.id === about;
  };
  for (const until = Date.now() + 10_000; ; ) {
    const found = arrived.find(wanted);
    if (found) return found;
    assert.ok(Date.now() < until, `no ${type} was delivered`);
    await new Promise((soon) => {
      ring = soon;
      setTimeout(soon, 500);
    });
  }
}

async function paid() {
  const made = await charge(await newMethod());
  return { made, ...(await delivered('payment_intent.succeeded', made.id)) };
}

const now = () => Math.floor(Date.now() / 1_000);
const read = ({ body, signature }, secret, at = now()) =>
  webhooks.constructEvent(body, signature, secret, undefined, undefined, at * 1_000);
const refused = (...delivery) =>
  assert.throws(() => read(...delivery), errors.StripeSignatureVerificationError);

await fact('constructEvent reads a delivery, and it is the event that the API tells', async () => {
  await sandbox('PUT', 'webhook', { url, secrets: [NEW] });
  const delivery = await paid();
  const event = read(delivery, NEW);
  assert.deepEqual([event.type, event.data.object.id], ['payment_intent.succeeded', delivery.made.id]);
  assert.deepEqual((await stripe.events.retrieve(event.id)).data, event.data);
});

await fact('while a secret is rolled, each of the two reads a delivery, and no other does', async () => {
  await sandbox('PUT', 'webhook', { url, secrets: [OLD, NEW] });
  const delivery = await paid();
  assert.equal(read(delivery, OLD).id, read(delivery, NEW).id);
  refused(delivery, OTHER);
});

await fact('a body that was changed is refused', async () => {
  const { body, signature } = await paid();
  refused({ body: Buffer.from(body.toString().replace('"amount":500', '"amount":999')), signature }, NEW);
  refused({ body: Buffer.concat([body, Buffer.from(' ')]), signature }, NEW);
});

await fact('a delivery is refused when it is older than five minutes, and not before', async () => {
  const delivery = await paid();
  read(delivery, NEW, now() + 290);
  refused(delivery, NEW, now() + 310);
});

await sandbox('PUT', 'webhook', { url: null });
server.close();
server.closeAllConnections();
