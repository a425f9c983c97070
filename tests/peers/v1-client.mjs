// A client of stripe402 version 1, written from the description of its behaviour: it asks
// without a payment, then with the clientId it has, then with a card, and never a fourth time.

import http from 'node:http';

/** Plain `fetch`. */
export async function overFetch(url, { method = 'GET', headers = {}, body, signal } = {}) {
  const response = await fetch(url, { method, headers, body, signal });
  const text = await response.text();
  return { status: response.status, headers: Object.fromEntries(response.headers), text };
}

/** What axios puts on the wire under Node: `node:http`, its own default headers, names as they
 * were written, and a length for every body. */
export function overAxios(url, { method = 'GET', headers = {}, body } = {}) {
  const defaults = {
    Accept: 'application/json, text/plain, */*',
    'User-Agent': 'axios/1',
    'Accept-Encoding': 'gzip, compress, deflate, br',
  };
  if (body !== undefined) defaults['Content-Length'] = Buffer.byteLength(body);
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers: { ...defaults, ...headers } }, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ status: answer.statusCode, headers: answer.headers, text });
      });
    });
    request.on('error', reject).end(body);
  });
}

export const encode = (message) => Buffer.from(JSON.stringify(message)).toString('base64');

/** Node's lenient base64, as version 1 reads it. */
export const decode = (header) =>
  header === undefined ? undefined : JSON.parse(Buffer.from(header, 'base64').toString('utf8'));

/** A PaymentMethod, made with the publishable key of an offer. */
export async function tokenize(stripe, publishableKey, card) {
  const form = new URLSearchParams({ type: 'card' });
  for (const [name, value] of Object.entries(card)) form.set(`card[${name}]`, value);
  const headers = { authorization: `Bearer ${publishableKey}` };
  const answer = await fetch(`${stripe}/v1/payment_methods`, { method: 'POST', headers, body: form });
  const object = await answer.json();
  if (!answer.ok) throw new Error(`the card was not tokenized: ${JSON.stringify(object.error)}`);
  return object.id;
}

export class V1Client {
  /** What was sent for the last request: a payment per trip, `undefined` for an unpaid one. */
  trips = [];

  constructor({ stripe, card, send = overFetch, topUpAmount, clientId, paymentMethodId }) {
    Object.assign(this, { stripe, card, send, topUpAmount, clientId, paymentMethodId });
  }

  async request(url, init = {}) {
    this.trips = [];
    let answer = await this.#trip(url, init);
    if (answer.status !== 402) return answer;
    let required = decode(answer.headers['payment-required']);
    if (!required) return answer;
    if (this.clientId && required.error !== 'insufficient_credits') {
      answer = await this.#trip(url, init, { stripe402Version: 1, clientId: this.clientId });
      if (answer.status !== 402) return answer;
      required = decode(answer.headers['payment-required']) ?? required;
    }
    // A PaymentMethod is kept for later top-ups.
    const { publishableKey } = required.accepts[0];
    this.paymentMethodId ??= await tokenize(this.stripe, publishableKey, this.card);
    return this.#trip(url, init, {
      stripe402Version: 1,
      paymentMethodId: this.paymentMethodId,
      topUpAmount: this.topUpAmount, // JSON leaves it out when it is undefined
      clientId: this.clientId,
    });
  }

  async #trip(url, init, payment) {
    this.trips.push(payment);
    const headers = { ...init.headers, ...(payment && { payment: encode(payment) }) };
    const answer = await this.send(url, { ...init, headers });
    answer.paid = decode(answer.headers['payment-response']);
    if (answer.paid?.success && answer.paid.clientId) this.clientId = answer.paid.clientId;
    return answer;
  }
}
