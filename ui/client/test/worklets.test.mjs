// The audio thread of a browser that runs at the device's rate, as Firefox does beside a 48 kHz microphone.

import assert from 'node:assert/strict';
import { test } from 'node:test';

const RATE = 48_000;
const BLOCK = 128;

/** @type {Map<string, new (options: object) => any>} */
const processors = new Map();
Object.assign(globalThis, {
  sampleRate: RATE,
  currentTime: 0,
  AudioWorkletProcessor: class {
    port = { said: [], postMessage: (message) => this.port.said.push(message), onmessage: null };
  },
  registerProcessor: (name, processor) => processors.set(name, processor),
});
await import('../src/capture-worklet.js');
await import('../src/playback-worklet.js');

const tone = (length, rate) => Float32Array.from({ length }, (_, at) => 0.5 * Math.sin((2 * Math.PI * 440 * at) / rate));

/** How often it goes up through zero. */
function cycles(samples) {
  let count = 0;
  for (let at = 1; at < samples.length; at += 1) if (samples[at - 1] < 0 && samples[at] >= 0) count += 1;
  return count;
}

test('the microphone’s 48 kHz become chunks of 24 kHz', () => {
  const capture = new (processors.get('talkline-capture'))({ processorOptions: { chunkMilliseconds: 20 } });
  const second = tone(RATE, RATE);
  for (let from = 0; from < RATE; from += BLOCK) capture.process([[second.subarray(from, from + BLOCK)]]);
  const chunks = capture.port.said;
  assert.ok(chunks.length >= 49 && chunks.every(({ pcm }) => pcm.length === 480), `${chunks.length} chunks`);
  const heard = chunks.flatMap(({ pcm }) => [...pcm]);
  const expected = (440 * heard.length) / 24_000;
  assert.ok(Math.abs(cycles(heard) - expected) <= 2, `${cycles(heard)} cycles, not ${expected}`);
});

/** A player at 48 kHz that was given a second of a tone. */
function player() {
  const playback = new (processors.get('talkline-playback'))({ processorOptions: { startSeconds: 0.12 } });
  const pcm = Int16Array.from(tone(24_000, 24_000), (sample) => sample * 32_767);
  const heard = [];
  const run = (blocks) => {
    for (let block = 0; block < blocks; block += 1) {
      const output = new Float32Array(BLOCK);
      playback.process([], [[output]]);
      heard.push(...output);
    }
  };
  const tell = (order) => playback.port.onmessage({ data: order });
  const said = (kind) => playback.port.said.find((message) => message.kind === kind);
  for (let from = 0; from < pcm.length; from += 4_800) tell({ kind: 'push', item: 'i', pcm: pcm.slice(from, from + 4_800) });
  return { heard, run, tell, said };
}

test('a reply of 24 kHz keeps its length and its pitch at 48 kHz', () => {
  const { heard, run, tell, said } = player();
  tell({ kind: 'end', item: 'i' });
  run(RATE / BLOCK + 100);
  const { played, received } = said('finished');
  assert.deepEqual([played, received], [24_000, 24_000], 'in samples as they were sent');
  assert.ok(Math.abs(cycles(heard) - 440) <= 2, `${cycles(heard)} cycles`);
});

test('a cut at 48 kHz is told in the service’s own samples', () => {
  const { heard, run, tell, said } = player();
  run(150);
  tell({ kind: 'flush', ticket: 1 });
  const [{ played, received }] = said('flushed').positions;
  const loud = heard.length - heard.findIndex((sample) => sample !== 0);
  const faded = 0.005 * RATE;
  assert.ok(Math.abs(played - (loud + faded) / 2) <= 24, `${played} of ${loud / 2} and what dies away`);
  assert.ok(received <= 24_000 && received > 23_900, `${received}`);
  run(20);
  assert.ok(heard.slice(-BLOCK * 15).every((sample) => sample === 0), 'silent');
});
