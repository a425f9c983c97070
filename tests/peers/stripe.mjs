// Stripe's own Node library, from where tests/judges.sh installed it.

import { createRequire } from 'node:module';
import { env } from './facts.mjs';

const Stripe = createRequire(`${env('NODE_PACKAGES')}/`)('stripe');
export default Stripe;

/** The library with a key, at a stand-in for Stripe. */
export function stripeWith(key, base = env('STRIPE_API_BASE'), options = {}) {
  const { protocol, hostname, port } = new URL(base);
  return new Stripe(key, { protocol: protocol.slice(0, -1), host: hostname, port, ...options });
}
