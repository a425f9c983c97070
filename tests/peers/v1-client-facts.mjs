// A version 1 client at paid-api: `v1-client-facts.mjs fetch|axios`.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { AUTHENTICATES, DECLINED, WRONG_CVC, cardOf, chargesOf, env, fact, newCard } from './facts.mjs';
import { V1Client, decode, encode, overAxios, overFetch, tokenize } from './v1-client.mjs';

const api = env('PAID_API');
const stripe = env('STRIPE_API_BASE');
const send = process.argv[2] === 'axios' ? overAxios : overFetch;

const client = (more = {}) => new V1Client({ stripe, card: newCard(), send, topUpAmount: 50_000, ...more });
const joke = (payer) => payer.request(`${api}/api/joke`);
const payerOf = (payer) => payer.clientId.split('.')[0];
/** A header as it is, whatever it holds. */
const raw = (payment, path = '/api/joke') => send(`${api}${path}`, { headers: { payment } });
const rawJson = (json) => raw(Buffer.from(json).toString('base64'));
const newMethod = async (card = newCard()) => {
  const offer = decode((await send(`${api}/api/joke`)).headers['payment-required']).accepts[0];
  return tokenize(stripe, offer.publishableKey, card);
};

/** A refusal with the fields of version 1, and the offers repeated in the header. */
function assertRefused(answer, code) {
  assert.equal(answer.status, 402, answer.text);
  const { success, creditsRemaining, clientId, error, errorCode } = JSON.parse(answer.text);
  assert.deepEqual([success, creditsRemaining, clientId, errorCode], [false, 0, '', code]);
  assert.equal(typeof error, 'string');
  assert.equal(decode(answer.headers['payment-required']).error, code);
}

await fact('a free route has no payment headers', async () => {
  const answer = await send(`${api}/`);
  assert.equal(answer.status, 200);
  assert.deepEqual(Object.keys(answer.headers).filter((name) => name.startsWith('payment')), []);
});

await fact('an unpaid call is a 402 whose header and body are one message', async () => {
  const answer = await send(`${api}/api/joke?q=1`);
  const required = decode(answer.headers['payment-required']);
  assert.equal(answer.status, 402);
  assert.deepEqual(JSON.parse(answer.text), required);
  assert.equal(required.stripe402Version, 1);
  assert.equal(required.resource.url, '/api/joke');
  assert.equal('error' in required, false);
  const { scheme, currency, amount, minTopUp, publishableKey } = required.accepts[0];
  assert.deepEqual([scheme, currency, amount, minTopUp], ['stripe', 'usd', 100, 50_000]);
  assert.equal(publishableKey, env('STRIPE_PUBLISHABLE_KEY'));
});

const first = client();
await fact('a first payment charges the card and is answered with chargeId and clientId', async () => {
  const answer = await joke(first);
  assert.equal(answer.status, 200, answer.text);
  assert.equal(first.trips.length, 2);
  assert.equal(answer.paid.success, true);
  assert.equal(answer.paid.creditsRemaining, 49_900);
  assert.ok(answer.paid.clientId && answer.paid.chargeId);
  const charges = await chargesOf(payerOf(first));
  assert.deepEqual(charges.map((one) => [one.id, one.amount]), [[answer.paid.chargeId, 500]]);
});

await fact('a clientId begins with the clientId of version 1 for the same secret and card', async () => {
  const headers = { authorization: `Bearer ${env('STRIPE_SECRET_KEY')}` };
  const method = await fetch(`${stripe}/v1/payment_methods/${first.paymentMethodId}`, { headers });
  const { fingerprint } = (await method.json()).card;
  const hmac = createHmac('sha256', env('FAREBOX_SECRET')).update(fingerprint);
  assert.equal(payerOf(first), hmac.digest('hex'));
});

await fact('a later call is paid from credit: two trips, no charge', async () => {
  const before = first.clientId;
  const answer = await joke(first);
  assert.equal(answer.status, 200);
  assert.deepEqual(first.trips, [undefined, { stripe402Version: 1, clientId: before }]);
  assert.equal(answer.paid.creditsRemaining, 49_800);
  assert.equal(answer.paid.chargeId, undefined);
  assert.equal((await chargesOf(payerOf(first))).length, 1);
});

await fact('what fails costs nothing, also in the call that topped up', async () => {
  const answer = await first.request(`${api}/api/fail`);
  assert.deepEqual([answer.status, answer.paid.creditsRemaining], [500, 49_800]);
  const fresh = client();
  const failed = await fresh.request(`${api}/api/fail`);
  assert.deepEqual([failed.status, failed.paid.creditsRemaining], [500, 50_000]);
  assert.equal((await joke(fresh)).paid.creditsRemaining, 49_900);
  assert.equal((await chargesOf(payerOf(fresh))).length, 1);
});

await fact('a POST is sent again with its body and costs once', async () => {
  const body = JSON.stringify({ words: 'again and again' });
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body };
  const answer = await first.request(`${api}/api/echo`, init);
  assert.deepEqual([answer.status, answer.text], [200, body]);
  assert.equal(answer.paid.creditsRemaining, 49_750);
  const paidAtOnce = client();
  const echoed = await paidAtOnce.request(`${api}/api/echo`, init);
  assert.deepEqual([echoed.text, echoed.paid.creditsRemaining], [body, 49_950]);
});

await fact('credit runs out after exactly 100 calls; the cached pm_ pays for the next 100', async () => {
  const payer = client();
  for (let left = 49_500; left >= 0; left -= 500) {
    const answer = await payer.request(`${api}/api/weather`);
    assert.deepEqual([answer.status, answer.paid?.creditsRemaining], [200, left]);
  }
  const [clientId, paymentMethodId] = [payer.clientId, payer.paymentMethodId];
  const short = await raw(encode({ stripe402Version: 1, clientId }));
  assert.equal(short.status, 402);
  assert.equal(JSON.parse(short.text).error, 'insufficient_credits');
  assert.deepEqual(JSON.parse(short.text), decode(short.headers['payment-required']));
  const answer = await payer.request(`${api}/api/weather`);
  assert.deepEqual([answer.status, answer.paid?.creditsRemaining], [200, 49_500], answer.text);
  assert.equal(payer.trips.length, 3);
  assert.deepEqual(payer.trips[2], { stripe402Version: 1, paymentMethodId, topUpAmount: 50_000, clientId });
  assert.equal(payer.clientId, clientId);
  const charges = await chargesOf(payerOf(payer));
  assert.deepEqual(charges.map((one) => one.amount), [500, 500]);
});

await fact('a client that forgot its clientId spends its credit with the cached pm_', async () => {
  const again = client({ paymentMethodId: first.paymentMethodId });
  const answer = await joke(again);
  assert.deepEqual([answer.status, answer.paid.creditsRemaining], [200, 49_650]);
  assert.equal(again.clientId, first.clientId);
  assert.equal((await chargesOf(payerOf(first))).length, 1);
});

await fact('a new pm_ of the same card with the right cvc spends its credit', async () => {
  const again = client({ card: first.card });
  const answer = await joke(again);
  assert.deepEqual([answer.status, answer.paid?.creditsRemaining], [200, 49_550], answer.text);
  assert.notEqual(again.paymentMethodId, first.paymentMethodId);
  assert.equal((await chargesOf(payerOf(first))).length, 1);
});

await fact('a new pm_ with a wrong cvc buys its own credit before it spends any', async () => {
  const owner = client({ card: cardOf(WRONG_CVC) });
  assert.equal((await joke(owner)).status, 200);
  const before = (await chargesOf(payerOf(owner))).length;
  const stranger = client({ card: cardOf(WRONG_CVC) });
  assert.equal((await joke(stranger)).status, 200);
  assert.equal((await chargesOf(payerOf(owner))).length, before + 1);
});

await fact('ten calls at once with one pm_ are one charge', async () => {
  const paymentMethodId = await newMethod();
  const payers = Array.from({ length: 10 }, () => client({ paymentMethodId }));
  const answers = await Promise.all(payers.map(joke));
  assert.deepEqual(answers.map((one) => one.status), Array(10).fill(200));
  assert.equal(Math.min(...answers.map((one) => one.paid.creditsRemaining)), 49_000);
  assert.equal((await chargesOf(payerOf(payers[0]))).length, 1);
});

await fact('five calls at once with five pm_ of one card are one charge', async () => {
  const card = newCard();
  const payers = Array.from({ length: 5 }, () => client({ card }));
  const answers = await Promise.all(payers.map(joke));
  assert.deepEqual(answers.map((one) => one.status), Array(5).fill(200));
  assert.equal((await chargesOf(payerOf(payers[0]))).length, 1);
});

await fact('a declined card is a 402 card_declined in words of our own, and is tried once', async () => {
  const payer = client({ card: cardOf(DECLINED) });
  const answer = await joke(payer);
  assertRefused(answer, 'card_declined');
  assert.equal(JSON.parse(answer.text).error, 'The card was declined');
  assert.deepEqual([payer.trips.length, payer.clientId], [2, undefined]);
});

await fact('a refused card is told nothing beyond version 1, so not the id of its payer', async () => {
  const answer = await joke(client({ card: cardOf(DECLINED) }));
  const fields = ['clientId', 'creditsRemaining', 'error', 'errorCode', 'success'];
  assert.deepEqual(Object.keys(JSON.parse(answer.text)).sort(), fields);
});

await fact('a card that needs its holder is a 402 authentication_required', async () => {
  assertRefused(await joke(client({ card: cardOf(AUTHENTICATES) })), 'authentication_required');
});

await fact('a pm_ that does not exist is a 402 invalid_payment', async () => {
  assertRefused(await joke(client({ paymentMethodId: 'pm_nobody' })), 'invalid_payment');
});

await fact('an unknown and a forged clientId look like an empty account', async () => {
  const forged = `${first.clientId.slice(0, -2)}AA`;
  for (const clientId of ['nobody', 'ab'.repeat(32), forged, payerOf(first)]) {
    const answer = await raw(encode({ stripe402Version: 1, clientId }));
    assert.deepEqual([answer.status, JSON.parse(answer.text).error], [402, 'insufficient_credits'], clientId);
  }
});

const malformed = {
  'not base64': '***',
  'empty': '',
  'not JSON': Buffer.from('hello').toString('base64'),
  'null': encode(null),
  'an array': encode([1]),
  'a number': encode(5),
  'two objects': Buffer.from('{"stripe402Version":1}{}').toString('base64'),
  'another version': encode({ stripe402Version: 2, clientId: first.clientId }),
  'no version': encode({ clientId: first.clientId }),
  'a field twice': Buffer.from('{"stripe402Version":1,"clientId":"a","clientId":"b"}').toString('base64'),
  'a clientId that is a number': encode({ stripe402Version: 1, clientId: 5 }),
  'a clientId with a line break': encode({ stripe402Version: 1, clientId: 'a\nb' }),
  'a pm_ with a slash': encode({ stripe402Version: 1, paymentMethodId: 'pm_1/../x' }),
  'too long': encode({ stripe402Version: 1, clientId: first.clientId, more: 'x'.repeat(9_000) }),
};
const fine = encode({ stripe402Version: 1, clientId: first.clientId });
malformed['sent twice, though both are equal'] = [fine, fine];
for (const [what, header] of Object.entries(malformed)) {
  await fact(`a payment header is refused with the offers repeated: ${what}`, async () => {
    assertRefused(await raw(header), 'invalid_payment');
  });
}

await fact('a currency that is not offered is malformed, whatever the price', async () => {
  const { clientId } = first;
  const payment = { stripe402Version: 1, clientId, currency: 'eur', maxAmount: 1 };
  assertRefused(await raw(encode(payment)), 'invalid_payment');
});

await fact('a payment that names nothing to pay with is an unpaid call', async () => {
  const answer = await raw(encode({ stripe402Version: 1 }));
  assert.deepEqual([answer.status, JSON.parse(answer.text).error], [402, undefined]);
});

await fact('base64 without padding, with the URL alphabet, and unknown fields are read', async () => {
  const payment = encode({ stripe402Version: 1, clientId: first.clientId, more: { deep: '??>>~~' }, s: 1 });
  const urlSafe = payment.replaceAll('+', '-').replaceAll('/', '_');
  assert.notEqual(urlSafe, payment);
  const bare = urlSafe.replaceAll('=', '');
  for (const header of [payment, urlSafe, bare]) assert.equal((await raw(header)).status, 200);
});

await fact('without topUpAmount the smallest top-up is taken', async () => {
  const answer = await joke(client({ topUpAmount: undefined }));
  assert.deepEqual([answer.status, answer.paid.creditsRemaining], [200, 49_900]);
});

await fact('a topUpAmount is charged in whole cents and credited in full', async () => {
  const payer = client({ topUpAmount: 123_401 });
  assert.equal((await joke(payer)).paid.creditsRemaining, 123_500 - 100);
  assert.deepEqual((await chargesOf(payerOf(payer))).map((one) => one.amount), [1_235]);
});

await fact('a top-up that is too small or too large is refused and not charged', async () => {
  const paymentMethodId = await newMethod();
  assertRefused(await joke(client({ paymentMethodId, topUpAmount: 49_900 })), 'top_up_below_minimum');
  assertRefused(await joke(client({ paymentMethodId, topUpAmount: 1_000_100 })), 'top_up_above_maximum');
  const payer = client({ paymentMethodId });
  assert.equal((await joke(payer)).paid.creditsRemaining, 49_900);
  assert.equal((await chargesOf(payerOf(payer))).length, 1);
});

await fact('a topUpAmount is rounded up before it is compared with minTopUp', async () => {
  const answer = await joke(client({ topUpAmount: 49_901 }));
  assert.deepEqual([answer.status, answer.paid?.creditsRemaining], [200, 49_900], answer.text);
});

await fact('credit that covers the price is spent, whatever topUpAmount says', async () => {
  const { clientId, paymentMethodId } = first;
  for (const topUpAmount of [100, 90_000_000]) {
    const answer = await raw(encode({ stripe402Version: 1, clientId, paymentMethodId, topUpAmount }));
    assert.equal(answer.status, 200, answer.text);
  }
});

await fact('a topUpAmount in another form than digits is refused; null is absent', async () => {
  const paymentMethodId = await newMethod();
  const withAmount = (amount) =>
    rawJson(`{"stripe402Version":1,"paymentMethodId":"${paymentMethodId}","topUpAmount":${amount}}`);
  for (const amount of ['50000.0', '50000.5', '5e4', '"50000"', '-50000', '050000', '0', 'true', '1e400']) {
    assertRefused(await withAmount(amount), 'invalid_payment');
  }
  const answer = await withAmount('null');
  assert.equal(decode(answer.headers['payment-response']).creditsRemaining, 49_900);
});

await fact('/account/balance tells the credit of a clientId', async () => {
  const answer = await raw(encode({ stripe402Version: 1, clientId: first.clientId }), '/account/balance');
  const { creditsRemaining } = JSON.parse(answer.text).accounts[0];
  const next = await joke(first);
  assert.equal(next.paid.creditsRemaining, creditsRemaining - 100);
});
