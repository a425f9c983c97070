// Another stand-in for Stripe, written without looking at Farebox's: few endpoints, objects with
// little in them, ids of other shapes. It also says what was asked of it: `GET /calls`.

import { createHash } from 'node:crypto';
import http from 'node:http';

const SECRET = 'sk_test_other_stand_in';
const PUBLISHABLE = 'pk_test_other_stand_in';

const methods = new Map();
const customers = new Map();
const intents = new Map();
const answers = new Map(); // by idempotency key
const calls = {};
let count = 0;

class Refusal extends Error {
  constructor(status, type, code, more = {}) {
    super(code);
    Object.assign(this, { status, body: { error: { type, code, ...more } } });
  }
}

const missing = (param, status = 400) =>
  new Refusal(status, 'invalid_request_error', 'resource_missing', { param });

function find(map, id, param, status) {
  const object = map.get(id);
  if (!object) throw missing(param, status);
  return object;
}

/** What the bank says to a card. Only charging and verifying ask it. */
function askBank(method) {
  if (method.number === '4000002760003184') throw new Refusal(402, 'card_error', 'authentication_required');
  if (!method.number.startsWith('424242') && method.number !== '4000000000000101') {
    throw new Refusal(402, 'card_error', 'card_declined', { decline_code: 'do_not_honor' });
  }
  method.cvc_check = method.number === '4000000000000101' ? 'fail' : 'pass';
}

const showMethod = ({ id, fingerprint, cvc_check }) => ({ id, card: { fingerprint, checks: { cvc_check } } });

const showIntent = ({ id, status, amount, currency, metadata }) => ({ id, status, amount, currency, metadata });

const metadataOf = (form) =>
  Object.fromEntries([...form].flatMap(([name, value]) => {
    const key = /^metadata\[(.+)\]$/.exec(name)?.[1];
    return key ? [[key, value]] : [];
  }));

function confirm(intent) {
  const method = find(methods, intent.method, 'payment_method');
  askBank(method);
  intent.status = 'succeeded';
  return showIntent(intent);
}

/** `METHOD /path`, with `*` for an id. */
const endpoints = {
  'POST /v1/payment_methods': (form) => {
    const id = `Card.${++count}-of-other`;
    const number = form.get('card[number]');
    const fingerprint = createHash('sha256').update(number).digest('base64');
    methods.set(id, { id, number, fingerprint });
    return { id };
  },
  'GET /v1/payment_methods/*': (_, id) => showMethod(find(methods, id, 'id', 404)),
  'POST /v1/customers': (form) => {
    const id = `${++count}-customer`;
    customers.set(id, { id, metadata: metadataOf(form) });
    return { id };
  },
  'POST /v1/setup_intents': (form) => {
    find(customers, form.get('customer'), 'customer');
    askBank(find(methods, form.get('payment_method'), 'payment_method'));
    return { id: `check-${++count}`, status: 'succeeded' };
  },
  'POST /v1/payment_intents': (form) => {
    find(customers, form.get('customer'), 'customer');
    const intent = {
      id: `payment.${++count}`,
      created: Math.floor(Date.now() / 1_000),
      status: 'requires_confirmation',
      amount: Number(form.get('amount')),
      currency: form.get('currency'),
      customer: form.get('customer'),
      method: form.get('payment_method'),
      metadata: metadataOf(form),
    };
    intents.set(intent.id, intent);
    return form.get('confirm') === 'true' ? confirm(intent) : showIntent(intent);
  },
  'POST /v1/payment_intents/*/confirm': (_, id) => confirm(find(intents, id, 'id', 404)),
  'GET /v1/payment_intents/*': (_, id) => showIntent(find(intents, id, 'id', 404)),
  'GET /v1/payment_intents': (form) => {
    const since = Number(form.get('created[gte]') ?? 0);
    const customer = form.get('customer');
    const all = [...intents.values()].reverse();
    const from = all.findIndex((one) => one.id === form.get('starting_after')) + 1;
    const wanted = all.slice(from).filter((one) => one.created >= since && (!customer || one.customer === customer));
    const limit = Number(form.get('limit') ?? 10);
    return { data: wanted.slice(0, limit).map(showIntent), has_more: wanted.length > limit };
  },
};

function route(method, path) {
  for (const [name, run] of Object.entries(endpoints)) {
    const [verb, pattern] = name.split(' ');
    const ids = new RegExp(`^${pattern.replace('*', '([^/]+)')}$`).exec(path);
    if (verb === method && ids) return { name, run, id: ids[1] };
  }
  return { name: `${method} ${path} (not known here)` };
}

function handle(request, url, body) {
  const { name, run, id } = route(request.method, url.pathname);
  calls[name] = (calls[name] ?? 0) + 1;
  const key = request.headers.authorization?.replace(/^Bearer /, '');
  const tokenizes = name === 'POST /v1/payment_methods';
  if (key !== SECRET && !(key === PUBLISHABLE && tokenizes)) {
    throw new Refusal(401, 'invalid_request_error', 'wrong_key');
  }
  if (!run) return { status: 404, body: 'no such page' };
  const once = request.headers['idempotency-key'];
  const asked = `${url.pathname}?${body}`;
  const saved = once && answers.get(once);
  if (saved && saved.asked !== asked) throw new Refusal(400, 'idempotency_error', undefined);
  if (saved) return { ...saved.answer, replayed: true };
  let answer;
  try {
    answer = { status: 200, body: run(new URLSearchParams(body || url.search), id) };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    answer = { status: error.status, body: error.body };
  }
  if (once) answers.set(once, { asked, answer });
  return answer;
}

const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => (body += chunk));
  request.on('end', () => {
    const url = new URL(request.url, 'http://other');
    let answer;
    try {
      answer = url.pathname === '/calls' ? { status: 200, body: calls } : handle(request, url, body);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answer = error;
    }
    if (answer.replayed) response.setHeader('Idempotent-Replayed', 'true');
    response.writeHead(answer.status, { 'Content-Type': 'application/json' });
    response.end(typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body));
  });
});

server.listen(0, '127.0.0.1', () => {
  console.log(`STRIPE_API_BASE=http://127.0.0.1:${server.address().port}`);
  console.log(`STRIPE_SECRET_KEY=${SECRET}`);
  console.log(`STRIPE_PUBLISHABLE_KEY=${PUBLISHABLE}`);
});
