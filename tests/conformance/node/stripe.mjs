// Stripe's Node library at the sandbox, with both of its keys.

import assert from 'node:assert/strict';
import { cardOf, env, newCard } from '../../peers/facts.mjs';
import Stripe, { stripeWith } from '../../peers/stripe.mjs';

const once = { maxNetworkRetries: 0 };
export const { errors, webhooks } = Stripe;
export const stripe = stripeWith(env('STRIPE_SECRET_KEY'), undefined, once);
export const client = stripeWith(env('STRIPE_PUBLISHABLE_KEY'), undefined, once);
export const withKey = (key, options = once) => stripeWith(key, undefined, options);

export const ownCards = { enabled: true, allow_redirects: 'never' };

/** The id of a PaymentMethod of a card, made with the publishable key. */
export async function newMethod(number) {
  const card = number ? cardOf(number) : newCard();
  return (await client.paymentMethods.create({ type: 'card', card })).id;
}

/** A PaymentIntent of 500 cents that is confirmed as it is created. */
export function charge(payment_method, more = {}, options = {}) {
  const terms = { amount: 500, currency: 'usd', confirm: true, automatic_payment_methods: ownCards };
  return stripe.paymentIntents.create({ ...terms, payment_method, ...more }, options);
}

/** The error of a class that a call ends in, once its fields are as expected. */
export async function refused(call, kind, expected = {}) {
  const error = await call.then(
    () => assert.fail(`no ${kind.name} was thrown`),
    (thrown) => thrown,
  );
  assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
  const found = Object.fromEntries(Object.keys(expected).map((name) => [name, error[name]]));
  assert.deepEqual(found, expected);
  return error;
}

/** The ids of every object in a list, page by page. */
export async function ids(list) {
  const found = [];
  for await (const one of list) found.push(one.id);
  return found;
}

/** A request to the sandbox's own endpoints, which stand beside Stripe's. */
export async function sandbox(method, path, told) {
  const body = told === undefined ? undefined : JSON.stringify(told);
  const answer = await fetch(`${env('STRIPE_API_BASE')}/sandbox/${path}`, { method, body });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  return JSON.parse(text);
}
