// Farebox's example `agent`, a program of its own.

import { execFile } from 'node:child_process';
import { env, newCard } from './facts.mjs';

/** Runs the agent; every URL gives one entry with the lines it printed. */
export function agent(urls, number = newCard().number) {
  const options = {
    env: { FAREBOX_CARD: `${number}:12:34:123`, STRIPE_API_BASE: env('STRIPE_API_BASE') },
    timeout: 60_000,
  };
  return new Promise((resolve) => {
    execFile(env('AGENT'), urls, options, (error, stdout, stderr) => {
      const lines = stdout.trimEnd().split('\n');
      resolve({ exit: error ? (error.code ?? error.signal) : 0, lines, stdout, stderr });
    });
  });
}
