// A provider of stripe402 version 1, written from the description of its Express middleware,
// with its habits: routes match exactly, the price is taken before the handler runs, every
// failure is a 402, and a clientId is 64 hex digits. It charges with Stripe's own Node library.

import { createHmac } from 'node:crypto';
import http from 'node:http';
import Stripe, { stripeWith } from './stripe.mjs';

const SERVER_SECRET = 'the secret of a version 1 server';
const MIN_TOP_UP = 50_000;

/** What costs what, in units, and what the handler answers. */
const ROUTES = {
  'GET /api/joke': { amount: 100, status: 200, text: 'A joke of version 1.' },
  'GET /api/weather': { amount: 500, status: 200, text: 'Snow.' },
  'GET /api/fail': { amount: 100, status: 500, text: 'It broke.' },
  'GET /api/dear': { amount: 5_000, status: 200, text: 'For the rich.' },
};

const encode = (message) => Buffer.from(JSON.stringify(message)).toString('base64');

class PaymentError extends Error {
  constructor(errorCode, message) {
    super(message);
    this.errorCode = errorCode;
  }
}

export class V1Server {
  /** One entry per round trip: path, payment (if any) and the status it was answered with. */
  trips = [];
  topUps = [];
  deductions = [];
  #balances = new Map();
  #customers = new Map();

  /** `forgetful`: its store fails right after a charge, as a store can. */
  constructor({ stripeBase, secretKey, publishableKey, forgetful = false }) {
    this.stripe = stripeWith(secretKey, stripeBase);
    Object.assign(this, { publishableKey, forgetful });
    this.http = http.createServer((request, response) => this.#answer(request, response));
  }

  async start() {
    await new Promise((listening) => this.http.listen(0, '127.0.0.1', listening));
    this.url = `http://127.0.0.1:${this.http.address().port}`;
    return this;
  }

  stop() {
    this.http.closeAllConnections();
    this.http.close();
  }

  async #answer(request, response) {
    const path = new URL(request.url, 'http://v1').pathname;
    const trip = { path };
    this.trips.push(trip);
    const end = (status, headers, body) => {
      trip.status = status;
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      response.writeHead(status, headers).end(text);
    };
    const route = ROUTES[`${request.method} ${path}`];
    if (!route) return end(200, {}, 'Passed through: nobody asked for a payment.');
    let payment;
    try {
      const header = request.headers.payment;
      payment = header && JSON.parse(Buffer.from(header, 'base64').toString('utf8'));
    } catch {
      return end(402, {}, refusal(new PaymentError('invalid_payment', 'Malformed payment header')));
    }
    trip.payment = payment;
    try {
      const paid = await this.#pay(path, route, payment);
      if (paid.required) return end(402, { 'payment-required': encode(paid.required) }, paid.required);
      end(route.status, { 'payment-response': encode({ success: true, ...paid }) }, route.text);
    } catch (error) {
      const declined = error instanceof Stripe.errors.StripeCardError;
      const code = error.errorCode ?? (declined ? 'card_declined' : 'payment_failed');
      end(402, {}, refusal(new PaymentError(code, error.message)));
    }
  }

  async #pay(path, route, payment) {
    const { clientId, paymentMethodId, topUpAmount = MIN_TOP_UP } = payment ?? {};
    if (clientId) {
      const creditsRemaining = this.#deduct(clientId, route.amount);
      if (creditsRemaining !== undefined) return { creditsRemaining, clientId };
    }
    if (!paymentMethodId) {
      return { required: this.#required(path, route, clientId && 'insufficient_credits') };
    }
    if (topUpAmount < MIN_TOP_UP) throw new PaymentError('top_up_below_minimum', 'Top-up too small');
    const method = await this.stripe.paymentMethods.retrieve(paymentMethodId);
    const fingerprint = method.card.fingerprint;
    const payer = createHmac('sha256', SERVER_SECRET).update(fingerprint).digest('hex');
    const fromCredit = this.#deduct(payer, route.amount);
    if (fromCredit !== undefined) return { creditsRemaining: fromCredit, clientId: payer };
    const intent = await this.stripe.paymentIntents.create({
      amount: Math.ceil(topUpAmount / 100),
      currency: 'usd',
      customer: await this.#customer(fingerprint, paymentMethodId),
      payment_method: paymentMethodId,
      confirm: true,
      automatic_payment_methods: { enabled: true, allow_redirects: 'never' },
    });
    if (intent.status !== 'succeeded') {
      throw new PaymentError('payment_failed', `Payment did not succeed. Status: ${intent.status}`);
    }
    this.topUps.push({ chargeId: intent.id, amount: topUpAmount });
    if (this.forgetful) throw new Error('the store is down');
    this.#balances.set(payer, (this.#balances.get(payer) ?? 0) + topUpAmount);
    return { chargeId: intent.id, creditsRemaining: this.#deduct(payer, route.amount) ?? 0, clientId: payer };
  }

  /** What is left, or `undefined` if it is too little. */
  #deduct(clientId, amount) {
    const left = (this.#balances.get(clientId) ?? 0) - amount;
    if (left < 0) return undefined;
    this.#balances.set(clientId, left);
    this.deductions.push({ clientId, amount });
    return left;
  }

  /** Version 1 searches at Stripe; this one remembers. A card is attached once. */
  async #customer(fingerprint, payment_method) {
    if (!this.#customers.has(fingerprint)) {
      const { id } = await this.stripe.customers.create({ payment_method });
      this.#customers.set(fingerprint, id);
    }
    return this.#customers.get(fingerprint);
  }

  #required(path, { amount }, error) {
    const { publishableKey } = this;
    const offer = { scheme: 'stripe', currency: 'usd', amount, minTopUp: MIN_TOP_UP, publishableKey };
    return { stripe402Version: 1, resource: { url: path }, accepts: [offer], ...(error && { error }) };
  }
}

const refusal = ({ errorCode, message }) => ({
  success: false,
  creditsRemaining: 0,
  clientId: '',
  error: message,
  errorCode,
});
