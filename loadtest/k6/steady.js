// The `steady` scenario of `loadtest`, for those who use k6 (1.0 or newer):
//
//   k6 run -e BALAS_URL=http://127.0.0.1:8080 -e JWT_SECRET=… -e RATE=20 -e SECONDS=60 loadtest/k6/steady.js
//
// Arrivals are open-loop as there. k6 has no stable WebSocket of its own loop beside an arrival rate, so that the end of a
// reply is learnt by long poll: `balas_reply` has one more request in it than the push that `loadtest` measures.

import { check, fail } from 'k6';
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';

const url = __ENV.BALAS_URL || 'http://127.0.0.1:8080';
const secret = (__ENV.JWT_SECRET || '').split(',')[0].trim();
const rate = Number(__ENV.RATE || 20);
const seconds = Number(__ENV.SECONDS || 60);
const people = Number(__ENV.USERS || 200);
// Directives for the simulator; MARKER= (empty) for a real model.
const marker = __ENV.MARKER === undefined ? 'ttft=200,rate=100,tokens=40' : __ENV.MARKER;
// Seconds after which a reply counts as lost.
const patience = Number(__ENV.PATIENCE || 60);

const accepting = new Trend('balas_accept', true);
const replying = new Trend('balas_reply', true);
const completed = new Counter('balas_completed');
const lost = new Counter('balas_lost');

export const options = {
  scenarios: {
    steady: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: `${seconds}s`,
      preAllocatedVUs: Math.max(10, Math.ceil(rate * 3)),
      maxVUs: Math.max(50, Math.ceil(rate * patience)),
      gracefulStop: `${patience}s`,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    balas_lost: ['count==0'],
    dropped_iterations: ['count==0'],
  },
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'p(99.9)', 'max', 'count'],
};

// A random UUID, version 4.
function uuid() {
  const bytes = new Uint8Array(crypto.randomBytes(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

// A token of a user who has never been there before.
function token() {
  const part = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');
  const exp = Math.floor(Date.now() / 1000) + 6 * 3600;
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: uuid(), tier: 'free', role: 'user', exp })}`;
  return `${signed}.${crypto.hmac('sha256', secret, signed, 'base64rawurl')}`;
}

function params(bearer, name) {
  return {
    headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json' },
    tags: { name },
    timeout: '65s',
  };
}

// The users and their conversations, before the clock starts.
export function setup() {
  if (secret === '') {
    fail('JWT_SECRET is needed to sign the users\' tokens');
  }
  return Array.from({ length: people }, () => {
    const bearer = token();
    const body = JSON.stringify({ title: 'Load run', context_type: 'general' });
    const made = http.post(`${url}/api/chat/conversations`, body, params(bearer, 'create_conversation'));
    if (made.status !== 201) {
      fail(`creating a conversation answered ${made.status}: ${made.body}`);
    }
    return { bearer, conversation: made.json('id') };
  });
}

export default function (world) {
  const number = exec.scenario.iterationInTest;
  const { bearer, conversation } = world[number % world.length];
  const began = Date.now();
  const content = `Load k6 message ${number}: which step should I take next?${marker ? ` [[sim:${marker}]]` : ''}`;
  const posted = http.post(
    `${url}/api/chat/conversations/${conversation}/messages`,
    JSON.stringify({ content }),
    params(bearer, 'post_message'),
  );
  if (!check(posted, { 'accepted with 202': (answer) => answer.status === 202 })) {
    return;
  }
  accepting.add(Date.now() - began);
  const self = posted.json('links.self');
  let status = posted.json('generation.status');
  while ((status === 'queued' || status === 'in_progress') && Date.now() - began < patience * 1000) {
    const looked = http.get(`${url}${self}?wait=20`, params(bearer, 'wait_for_generation'));
    if (!check(looked, { 'generation found': (answer) => answer.status === 200 })) {
      return;
    }
    status = looked.json('status');
  }
  if (status === 'completed' || status === 'incomplete') {
    replying.add(Date.now() - began);
    completed.add(1);
  } else {
    lost.add(1, { status });
  }
}
