// The agent at a version 1 server and at paid-api:
// `agent-facts.mjs v1-server|paid-api`.

import assert from 'node:assert/strict';
import { agent } from './agent.mjs';
import { AUTHENTICATES, DECLINED, env, fact, newCard } from './facts.mjs';

const stripeBase = env('STRIPE_API_BASE');

function assertPaid(ran) {
  assert.equal(ran.exit, 0, ran.stderr);
  assert.doesNotMatch(ran.stdout, /not paid|refused|not known/);
}

async function atV1Server() {
  const { V1Server } = await import('./v1-server.mjs');
  const keys = { secretKey: env('STRIPE_SECRET_KEY'), publishableKey: env('STRIPE_PUBLISHABLE_KEY') };
  /** Each fact has a server of its own. */
  const at = (words, check, options = {}) =>
    fact(words, async () => {
      const server = await new V1Server({ stripeBase, ...keys, ...options }).start();
      try {
        await check(server, (path) => `${server.url}${path}`);
      } finally {
        server.stop();
      }
    });
  const count = (server, path) => server.trips.filter((trip) => trip.path === path).length;

  await at('five calls are one charge, five deductions, two trips and then one each', async (server, url) => {
    const ran = await agent(Array(5).fill(url('/api/joke')));
    assertPaid(ran);
    assert.equal(ran.lines.filter((line) => line.includes('200 OK: A joke of version 1.')).length, 5);
    assert.match(ran.lines.at(-1), /^ {2}4\.95 usd left$/);
    assert.equal(server.topUps.length, 1);
    assert.equal(server.topUps[0].amount, 50_000);
    assert.deepEqual(server.deductions.map((one) => one.amount), [100, 100, 100, 100, 100]);
    assert.deepEqual(server.trips.map((trip) => trip.status), [402, 200, 200, 200, 200, 200]);
  });

  await at('later calls carry the bare clientId of version 1 and no card', async (server, url) => {
    assertPaid(await agent([url('/api/joke'), url('/api/joke')]));
    const [unpaid, card, credit] = server.trips.map((trip) => trip.payment);
    assert.equal(unpaid, undefined);
    assert.equal(card.topUpAmount, 50_000);
    assert.match(credit.clientId, /^[0-9a-f]{64}$/);
    assert.equal(credit.paymentMethodId, undefined);
  });

  await at('another route is asked for its price first, for the server knows no maxAmount', async (server, url) => {
    const ran = await agent(['/api/joke', '/api/weather', '/api/joke', '/api/weather'].map(url));
    assertPaid(ran);
    assert.equal(server.topUps.length, 1);
    assert.deepEqual([count(server, '/api/joke'), count(server, '/api/weather')], [3, 3]);
    assert.match(ran.lines.at(-1), /^ {2}4\.88 usd left$/);
  });

  await at('a handler that fails after the payment is told with what is left', async (server, url) => {
    const ran = await agent([url('/api/fail'), url('/api/joke')]);
    assertPaid(ran);
    assert.match(ran.stdout, /500 Internal Server Error: It broke\.\n {2}4\.99 usd left/);
    assert.match(ran.stdout, /200 OK: A joke of version 1\.\n {2}4\.98 usd left/);
    assert.equal(server.topUps.length, 1);
  });

  await at('what the server passes through unpaid is free', async (server, url) => {
    const ran = await agent([url('/api/joke/'), url('/open')]);
    assertPaid(ran);
    assert.deepEqual(ran.lines.filter((line) => line === '  free').length, 2);
    assert.equal(server.topUps.length, 0);
  });

  await at('a declined card is reported, not retried, and charges nothing', async (server, url) => {
    const ran = await agent([url('/api/joke')], DECLINED);
    assert.equal(ran.exit, 0);
    assert.match(ran.stdout, /\/api\/joke: the payment was refused: The card was declined\n/);
    assert.deepEqual([server.topUps.length, server.trips.length], [0, 2]);
  });

  await at('payment_failed leaves the outcome unknown, and the day\'s limit bounds repeats', async (server, url) => {
    const ran = await agent(Array(6).fill(url('/api/joke')), AUTHENTICATES);
    assert.equal(ran.exit, 0);
    assert.match(ran.lines[0], /\/api\/joke: the outcome of the payment is not known yet/);
    const cards = new Set(server.trips.filter((trip) => trip.payment).map((trip) => trip.payment.paymentMethodId));
    assert.equal(cards.size, 1);
    assert.ok(server.trips.filter((trip) => trip.payment).length <= 4, 'four top-ups of 5 dollars are a day');
  });

  const forgetful = { forgetful: true };
  await at('a server that charges and forgets gets no more than the day\'s limit', async (server, url) => {
    const ran = await agent(Array(6).fill(url('/api/joke')));
    assert.equal(ran.exit, 0);
    assert.match(ran.lines[0], /\/api\/joke: the outcome of the payment is not known yet/);
    assert.match(ran.lines[5], /not paid: .* is above the limit per day/);
    const taken = server.topUps.reduce((total, one) => total + one.amount, 0);
    assert.ok(taken >= 50_000 && taken <= 200_000, `${taken} units`);
  }, forgetful);

  await at('a price above the limit per request is not paid', async (server, url) => {
    const ran = await agent([url('/api/dear')]);
    assert.equal(ran.exit, 0);
    assert.match(ran.stdout, /not paid: .*0\.50 usd is above the limit per request/);
    assert.deepEqual(server.trips, [{ path: '/api/dear', payment: undefined, status: 402 }]);
  });
}

async function atPaidApi() {
  const url = (path) => `${env('PAID_API')}${path}`;

  await fact('the agent pays once and spends credit on several routes', async () => {
    const ran = await agent(['/api/joke', '/api/joke', '/api/weather', '/'].map(url));
    assertPaid(ran);
    const told = ran.lines.filter((line) => line.startsWith('  '));
    assert.deepEqual(told, [
      '  cost 0.01 usd, 4.99 usd left',
      '  cost 0.01 usd, 4.98 usd left',
      '  cost 0.05 usd, 4.93 usd left',
      '  free',
    ]);
  });

  await fact('the agent is not charged for what fails', async () => {
    const ran = await agent(['/api/fail', '/api/joke'].map(url));
    assertPaid(ran);
    assert.match(ran.stdout, /500 Internal Server Error: .*\n {2}cost 0\.00 usd, 5\.00 usd left/);
    assert.match(ran.lines.at(-1), /cost 0\.01 usd, 4\.99 usd left/);
  });

  await fact('a second agent with the same card finds the credit of the first', async () => {
    const { number } = newCard();
    assertPaid(await agent([url('/api/joke')], number));
    const ran = await agent([url('/api/joke')], number);
    assert.equal(ran.lines.at(-1), '  cost 0.01 usd, 4.98 usd left');
  });

  await fact('the agent reports a declined card', async () => {
    const ran = await agent([url('/api/joke')], DECLINED);
    assert.equal(ran.exit, 0);
    assert.match(ran.stdout, /the payment was refused: The card was declined\n/);
  });

  await fact('the agent reports a card that needs its holder', async () => {
    const ran = await agent([url('/api/joke')], AUTHENTICATES);
    assert.match(ran.stdout, /the payment was refused: The card needs its holder to authenticate\n/);
  });
}

await (process.argv[2] === 'v1-server' ? atV1Server() : atPaidApi());
