// What one spoken turn must have been: at the client, and at the far end.

import assert from 'node:assert/strict';

import { clip } from './clip.mjs';
import { DEPLOYMENT } from './line.mjs';

// Headers of a WebSocket upgrade, and the ones that Talkline may add of its own.
const EXPECTED_HEADERS = [
  'api-key',
  'connection',
  'host',
  'sec-websocket-key',
  'sec-websocket-version',
  'upgrade',
];
const OWN_HEADERS = ['traceparent', 'user-agent', 'x-ms-client-request-id'];

/** The reply came whole: its words, its audio to the byte, and what it cost. */
export function assertWhole(turn) {
  const question = clip('question');
  const reply = clip('reply-1');
  const audio = Buffer.from(turn.audio, 'base64');
  assert.equal(turn.heard, question.text);
  assert.equal(turn.said, reply.text);
  assert.equal(audio.length, reply.pcm.length);
  assert.ok(audio.equals(reply.pcm), 'the audio differs from what was sent');
  assert.equal(turn.status, 'completed');
  const { usage } = turn;
  assert.ok(usage.input_tokens > 0 && usage.output_tokens > 0, JSON.stringify(usage));
  assert.equal(usage.total_tokens, usage.input_tokens + usage.output_tokens);
  assert.ok(usage.input_token_details.audio_tokens > 0, JSON.stringify(usage));
  assert.ok(usage.output_token_details.audio_tokens > 0, JSON.stringify(usage));
}

/** One request, with the server's key in one place, and nothing that the client sent. */
export function assertOnlyTheServersCredential(line, ...moreOfTheClient) {
  const requests = line.requests();
  assert.equal(requests.length, 1, JSON.stringify(requests));
  const [request] = requests;
  assert.equal(request.method, 'GET');
  assert.equal(request.path, '/openai/v1/realtime');
  assert.equal(request.query, `model=${DEPLOYMENT}`);
  assert.equal(request.status, 101);

  const headers = request.headers.map(([name, value]) => [name.toLowerCase(), value]);
  const names = headers.map(([name]) => name).filter((name) => !OWN_HEADERS.includes(name));
  assert.deepEqual(names.sort(), EXPECTED_HEADERS);
  const values = Object.fromEntries(headers);
  assert.equal(values['api-key'], line.azureKey);
  assert.doesNotMatch(values['user-agent'] ?? '', /openai/i);

  const whole = JSON.stringify(request).toLowerCase();
  assert.equal(whole.split(line.azureKey).length - 1, 1, 'one credential in one place');
  for (const secret of [line.clientKey, 'x-stainless', 'openai-beta', ...moreOfTheClient]) {
    assert.ok(!whole.includes(secret.toLowerCase()), `the far end saw ${secret}`);
  }
}
