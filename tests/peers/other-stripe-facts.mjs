// What paid-api asked of the other stand-in for Stripe, after everything else has run on it.

import assert from 'node:assert/strict';
import { env, fact } from './facts.mjs';

const calls = await (await fetch(`${env('STRIPE_API_BASE')}/calls`)).json();

await fact('paid-api needs five endpoints of Stripe and can do without its account', () => {
  const peers = ['POST /v1/payment_methods', 'GET /v1/payment_intents']; // asked by the peers themselves
  const asked = Object.keys(calls).filter((name) => !peers.includes(name));
  assert.deepEqual(asked.sort(), [
    'GET /v1/account (not known here)',
    'GET /v1/payment_methods/*',
    'POST /v1/customers',
    'POST /v1/payment_intents',
    'POST /v1/setup_intents',
  ]);
});
