// Stands between Farebox and localstripe: `proxy.mjs URL_OF_LOCALSTRIPE`.
//
// It changes only what localstripe has no words for, so that Farebox can be used as it is:
//
// - A Bearer pk_ that makes a PaymentMethod becomes localstripe's key: it knows no pk_ there.
// - Parameters that localstripe refuses are dropped: automatic_payment_methods,
//   error_on_requires_action, setup_future_usage. What they ask for (no redirects, an error in place
//   of a wait, a card that stays with its customer) does not happen.
// - A SetupIntent that is confirmed as it is created becomes the two calls that localstripe has.
// - localstripe ignores idempotency keys: the first answer to a key is repeated, and the key with
//   another request is refused, as Stripe does.
//
// Whether a card is charged, how much, and what becomes of a payment is localstripe's to say.
//
// It can also lose what Stripe says to payments of a card, as a bad network does:
// `POST /_lose/PAYMENT_METHOD` with `answers` (localstripe is asked) or `requests` (it is not),
// `POST /_find/PAYMENT_METHOD` ends it, and both say how many were lost before.

import http from 'node:http';

const localstripe = process.argv[2];
const SECRET = 'sk_test_behind_the_proxy';
const PUBLISHABLE = 'pk_test_behind_the_proxy';
const REFUSED = /^(automatic_payment_methods|error_on_requires_action|setup_future_usage)(\[|$)/;

const answers = new Map(); // by idempotency key: what was asked, and a promise of the answer
const losing = new Map(); // by PaymentMethod: `answers` or `requests`
const lost = new Map(); // by PaymentMethod: how many

async function forward(method, path, key, form) {
  const options = { method, headers: { authorization: `Bearer ${key}` } };
  if (method === 'POST') options.body = form;
  const answer = await fetch(`${localstripe}${path}`, options);
  return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() };
}

const refusal = (status, type) => ({
  status,
  type: 'application/json',
  text: JSON.stringify({ error: { type } }),
});

/** The call, or the calls, that localstripe knows for one of Stripe's. */
async function translate(method, path, key, form) {
  const tokenizes = method === 'POST' && path === '/v1/payment_methods';
  const known = key === SECRET || (key === PUBLISHABLE && tokenizes) ? SECRET : key;
  for (const name of [...form.keys()].filter((one) => REFUSED.test(one))) form.delete(name);
  if (method !== 'POST' || path !== '/v1/setup_intents' || form.get('confirm') !== 'true') {
    return forward(method, path, known, form);
  }
  const card = new URLSearchParams({ payment_method: form.get('payment_method') });
  for (const name of ['payment_method', 'confirm']) form.delete(name);
  const made = await forward(method, path, known, form);
  if (made.status !== 200) return made;
  return forward('POST', `${path}/${JSON.parse(made.text).id}/confirm`, known, card);
}

/** One answer to a key, for good. */
async function once(key, asked, run) {
  if (!key) return run();
  const saved = answers.get(key);
  if (saved && saved.asked !== asked) return refusal(400, 'idempotency_error');
  if (saved) return { ...(await saved.answer), replayed: true };
  const answer = run();
  answers.set(key, { asked, answer });
  return answer;
}

async function handle(request, body) {
  const { method, url } = request;
  const [, verb, card] = /^\/_(lose|find)\/(.+)$/.exec(url) ?? [];
  if (verb) {
    const before = lost.get(card) ?? 0;
    if (verb === 'lose') losing.set(card, body);
    else losing.delete(card);
    return { status: 200, type: 'application/json', text: JSON.stringify({ lost: before }) };
  }
  const form = new URLSearchParams(method === 'POST' ? body : '');
  const paying = url === '/v1/payment_intents' ? form.get('payment_method') : undefined;
  const what = losing.get(paying);
  if (what) lost.set(paying, (lost.get(paying) ?? 0) + 1);
  if (what === 'requests') return undefined;
  const key = request.headers.authorization?.replace(/^Bearer /, '');
  const asked = `${method} ${url} ${body}`;
  const answer = await once(request.headers['idempotency-key'], asked, () =>
    translate(method, url, key, form));
  return what === 'answers' ? undefined : answer;
}

const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => (body += chunk));
  request.on('end', async () => {
    const answer = await handle(request, body);
    if (!answer) return request.socket.destroy();
    if (answer.replayed) response.setHeader('Idempotent-Replayed', 'true');
    response.writeHead(answer.status, { 'Content-Type': answer.type }).end(answer.text);
  });
});

server.listen(0, '127.0.0.1', () => {
  console.log(`STRIPE_API_BASE=http://127.0.0.1:${server.address().port}`);
  console.log(`STRIPE_SECRET_KEY=${SECRET}`);
  console.log(`STRIPE_PUBLISHABLE_KEY=${PUBLISHABLE}`);
});
