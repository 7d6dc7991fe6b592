// Runs a k6 script with node: `node run.mjs SCRIPT ITERATIONS`. The modules of k6 that it imports are the few
// functions below, which do what k6's documentation says of them, one request after the other. It says as JSON what
// the script declared and measured, and fails where k6 would.

import { spawnSync } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';

const measured = { metrics: {}, checks: {}, requests: {} };

class Metric {
  constructor(name) {
    this.values = measured.metrics[name] = [];
  }
  add(value) {
    if (typeof value !== 'number' || Number.isNaN(value)) throw new Error(`not a number: ${value}`);
    this.values.push(value);
  }
}

// k6 waits for each answer; node can only let another process wait.
function request(method, url, body, params) {
  const code = `
    const { method, url, body, headers } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
    fetch(url, { method, body, headers }).then(async (answer) =>
      console.log(JSON.stringify({ status: answer.status, body: await answer.text() })));`;
  const input = JSON.stringify({ method, url, body, headers: params.headers });
  const said = spawnSync(process.execPath, ['-e', code], { input, encoding: 'utf8' });
  if (said.status !== 0) return { status: 0, body: null, json: () => undefined };
  const { status, body: text } = JSON.parse(said.stdout);
  const name = params.tags?.name ?? url;
  measured.requests[name] = (measured.requests[name] ?? 0) + 1;
  const json = (path) => (path ?? '').split('.').filter(Boolean).reduce((value, key) => value?.[key], JSON.parse(text));
  return { status, body: text, json };
}

const scenario = { iterationInTest: 0 };
globalThis.k6 = {
  k6: {
    check: (value, checks) =>
      Object.entries(checks).map(([name, holds]) => {
        const passed = Boolean(holds(value));
        const counts = (measured.checks[name] ??= { passes: 0, fails: 0 });
        counts[passed ? 'passes' : 'fails'] += 1;
        return passed;
      }).every(Boolean),
    fail: (reason) => { throw new Error(reason); },
  },
  'k6/crypto': { default: {
    hmac: (algorithm, secret, data, encoding) => {
      if (encoding !== 'base64rawurl') throw new Error(`unknown encoding ${encoding}`);
      return createHmac(algorithm, secret).update(data).digest('base64url');
    },
    randomBytes: (size) => Uint8Array.from(randomBytes(size)).buffer,
  } },
  'k6/encoding': { default: {
    b64encode: (text, kind) => {
      if (kind !== 'rawurl') throw new Error(`unknown kind ${kind}`);
      return Buffer.from(text).toString('base64url');
    },
  } },
  'k6/execution': { default: { scenario } },
  'k6/http': { default: {
    get: (url, params) => request('GET', url, undefined, params),
    post: (url, body, params) => request('POST', url, body, params),
  } },
  'k6/metrics': { Counter: Metric, Trend: Metric },
};
globalThis.__ENV = process.env;

// An import of k6's becomes a constant; whatever else is imported, node does not find.
const source = readFileSync(process.argv[2], 'utf8').replace(
  /^import (.+) from '(k6[^']*)';$/gm,
  (_, names, module) => `const ${names} = globalThis.k6['${module}']${names.startsWith('{') ? '' : '.default'};`,
);
const script = await import(`data:text/javascript,${encodeURIComponent(source)}`);
// Between its stages k6 hands data over as JSON.
const world = JSON.parse(JSON.stringify(script.setup()));
for (; scenario.iterationInTest < Number(process.argv[3]); scenario.iterationInTest += 1) {
  script.default(world);
}
console.log(JSON.stringify({ options: script.options, ...measured }));
