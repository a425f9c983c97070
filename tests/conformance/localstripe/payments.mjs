// Payers of paid-api with localstripe in the place of Stripe: what a card is charged and what a
// payer is credited is the same whoever stands in.

import assert from 'node:assert/strict';
import { AUTHENTICATES, cardOf, chargesOf, env, fact, intents, newCard } from '../../peers/facts.mjs';
import { V1Client, overFetch, tokenize } from '../../peers/v1-client.mjs';
import { agent } from '../../peers/agent.mjs';

const api = env('PAID_API');
const stripe = env('STRIPE_API_BASE');
/** It attaches, and its charges are declined. */
const CHARGES_DECLINED = '4000000000000341';

const joke = (payer, options) => payer.request(`${api}/api/joke`, options);
const newPayer = async (card = newCard()) => {
  const paymentMethodId = await tokenize(stripe, env('STRIPE_PUBLISHABLE_KEY'), card);
  return new V1Client({ stripe, paymentMethodId, topUpAmount: 50_000 });
};
/** What localstripe knows of a payer's card: the state and the amount of every payment. */
const payments = async ({ paymentMethodId }) =>
  (await intents())
    .filter((one) => one.payment_method === paymentMethodId)
    .map((one) => `${one.status} ${one.amount}`);
const ONE = ['succeeded 500'];
const tell = async (verb, payer, what) => {
  const url = `${stripe}/_${verb}/${payer.paymentMethodId}`;
  return (await (await fetch(url, { method: 'POST', body: what })).json()).lost;
};

/** Begins at once, for the server gives up on Stripe only after 20 seconds. */
const longOutage = (async () => {
  const payer = await newPayer();
  await tell('lose', payer, 'answers');
  const answer = await joke(payer);
  return { payer, answer, lost: await tell('find', payer) };
})();

await fact('the agent pays once and spends credit on several routes', async () => {
  const ran = await agent(['/api/joke', '/api/weather', '/api/fail'].map((path) => `${api}${path}`));
  assert.equal(ran.exit, 0, ran.stderr);
  assert.deepEqual(ran.lines.filter((line) => line.startsWith('  ')), [
    '  cost 0.01 usd, 4.99 usd left',
    '  cost 0.05 usd, 4.94 usd left',
    '  cost 0.00 usd, 4.94 usd left',
  ]);
});

const first = await newPayer();
await fact('a first payment charges the card once and credits all of it', async () => {
  const answer = await joke(first);
  assert.deepEqual([answer.status, answer.paid?.creditsRemaining], [200, 49_900], answer.text);
  assert.deepEqual(await payments(first), ONE);
  assert.deepEqual((await chargesOf(first.clientId.split('.')[0])).map((one) => one.id), [answer.paid.chargeId]);
});

await fact('99 calls are paid from credit, and only then is the card charged again', async () => {
  const weather = () => first.request(`${api}/api/weather`);
  for (let left = 49_400; left >= 400; left -= 500) {
    const answer = await weather();
    assert.deepEqual([answer.status, answer.paid.creditsRemaining], [200, left]);
  }
  assert.deepEqual(await payments(first), ONE);
  assert.equal((await weather()).paid.creditsRemaining, 400 + 50_000 - 500);
  assert.deepEqual(await payments(first), [...ONE, ...ONE]);
});

await fact('a charge that is declined is a 402 card_declined and takes nothing', async () => {
  const payer = await newPayer(cardOf(CHARGES_DECLINED));
  const answer = await joke(payer);
  assert.deepEqual([answer.status, JSON.parse(answer.text).errorCode], [402, 'card_declined']);
  assert.deepEqual(await payments(payer), ['requires_payment_method 500']);
});

await fact('a card that needs its holder is refused, and its payment does not stay open', async () => {
  const payer = await newPayer(cardOf(AUTHENTICATES));
  const answer = await joke(payer);
  assert.deepEqual([answer.status, JSON.parse(answer.text).errorCode], [402, 'authentication_required']);
  assert.deepEqual(await payments(payer), ['canceled 500']);
});

for (const what of ['requests', 'answers']) {
  await fact(`Stripe's ${what} are lost for a second: the payer waits, and is charged once`, async () => {
    const payer = await newPayer();
    await tell('lose', payer, what);
    const asked = joke(payer);
    await new Promise((passed) => setTimeout(passed, 1_000));
    assert.ok((await tell('find', payer)) >= 2);
    const answer = await asked;
    assert.deepEqual([answer.status, answer.paid?.creditsRemaining], [200, 49_900], answer.text);
    assert.deepEqual(await payments(payer), ONE);
  });
}

await fact('a payer who gives up while the answer is lost finds the credit later, charged once', async () => {
  const payer = await newPayer();
  await tell('lose', payer, 'answers');
  const impatient = (url, init) => overFetch(url, { ...init, signal: AbortSignal.timeout(700) });
  payer.send = impatient;
  await assert.rejects(joke(payer), { name: 'TimeoutError' });
  await tell('find', payer);
  payer.send = overFetch;
  const answer = await joke(payer);
  assert.deepEqual([answer.status, answer.paid?.creditsRemaining], [200, 49_900], answer.text);
  assert.deepEqual(await payments(payer), ONE);
});

await fact('an outcome that stays unknown is a 503 payment_pending, never a no; then one charge counts', async () => {
  const { payer, answer, lost } = await longOutage;
  const refused = JSON.parse(answer.text);
  assert.deepEqual([answer.status, refused.errorCode], [503, 'payment_pending']);
  assert.ok(lost >= 2 && Number(answer.headers['retry-after']) > 0);
  const again = await joke(payer);
  assert.deepEqual([again.status, again.paid?.creditsRemaining], [200, 49_900], again.text);
  assert.deepEqual(await payments(payer), ONE);
});
