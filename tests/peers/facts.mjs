// What every Node peer needs: facts, one per line, and card numbers nobody has used yet.

import { randomInt } from 'node:crypto';

/** Runs a check and prints `ok   words`, or `FAIL words: why`. Later facts run all the same. */
export async function fact(words, check) {
  try {
    await check();
    console.log(`ok   ${words}`);
  } catch (error) {
    const why = error.code === 'ERR_ASSERTION' ? error.message : String(error.stack ?? error);
    console.log(`FAIL ${words}: ${why.split('\n').slice(0, 12).join(' | ')}`);
    process.exitCode = 1;
  }
}

/** A variable that the runner sets. */
export function env(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: start this with tests/peers/run or scripts/conformance`);
  return value;
}

/** A card that works and that no other payer has: 424242, nine random digits, a check digit. */
export function newCard() {
  const digits = `424242${String(randomInt(1e9)).padStart(9, '0')}`;
  const sum = [...digits].reduce((total, digit, at) => {
    const value = at % 2 === 0 ? digit * 2 : Number(digit);
    return total + (value > 9 ? value - 9 : value);
  }, 0);
  return cardOf(`${digits}${(10 - (sum % 10)) % 10}`);
}

export function cardOf(number) {
  return { number, exp_month: '12', exp_year: '2034', cvc: '123' };
}

export const DECLINED = '4000000000000002';
export const AUTHENTICATES = '4000002760003184';
export const WRONG_CVC = '4000000000000101';

/** Every payment at Stripe, read with the secret key. */
export async function intents() {
  const found = [];
  for (let after = ''; ; ) {
    const url = `${env('STRIPE_API_BASE')}/v1/payment_intents?limit=100${after}`;
    const headers = { authorization: `Bearer ${env('STRIPE_SECRET_KEY')}` };
    const page = await (await fetch(url, { headers })).json();
    found.push(...page.data);
    if (!page.has_more) return found;
    after = `&starting_after=${page.data.at(-1).id}`;
  }
}

/** The payments at Stripe that succeeded for a payer. */
export const chargesOf = async (payer) =>
  (await intents()).filter((one) => one.status === 'succeeded' && one.metadata.payer === payer);
