// Samples in, samples out: nothing here needs a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fromBase64, fromBase64Slowly, toBase64, toBase64Slowly } from '../src/base64.js';
import { Chunker } from '../src/chunker.js';
import { Pcm16Joiner, SAMPLE_RATE, fromPcm16, milliseconds, toPcm16 } from '../src/pcm.js';
import { Resampler } from '../src/resampler.js';

function tone(hertz, rate, seconds, level = 0.5) {
  const step = (2 * Math.PI * hertz) / rate;
  return Float32Array.from({ length: Math.round(rate * seconds) }, (_, at) => level * Math.sin(step * at));
}

function level(samples) {
  return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
}

function resampled(input, from, to, piece) {
  const resampler = new Resampler(from, to);
  const output = [];
  for (let at = 0; at < input.length; at += piece) output.push(...resampler.push(input.subarray(at, at + piece)));
  output.push(...resampler.finish());
  return Float32Array.from(output);
}

test('PCM16 survives the way through floats unchanged', () => {
  const all = Int16Array.from({ length: 65_536 }, (_, index) => index - 32_768);
  assert.deepEqual(toPcm16(fromPcm16(all)), all);
  assert.deepEqual([...toPcm16(Float32Array.of(2, -2, 1, -1, 0))], [32_767, -32_768, 32_767, -32_768, 0]);
});

test('PCM16 that is cut in the middle of a sample is joined again', () => {
  const pcm = Int16Array.from({ length: 50 }, (_, index) => index * 321 - 8_000);
  const bytes = new Uint8Array(pcm.buffer);
  for (const piece of [1, 2, 3, 7, 99, 100]) {
    const joiner = new Pcm16Joiner();
    const whole = [];
    for (let at = 0; at < bytes.length; at += piece) whole.push(...joiner.push(bytes.subarray(at, at + piece)));
    assert.deepEqual(whole, [...pcm], `pieces of ${piece}`);
  }
});

test('base64 with and without the browser’s help', () => {
  for (const length of [0, 1, 2, 3, 960, 8_191, 8_192, 8_193, 100_000]) {
    const bytes = Uint8Array.from({ length }, (_, index) => (index * 7) % 256);
    const expected = Buffer.from(bytes).toString('base64');
    assert.equal(toBase64(bytes), expected);
    assert.equal(toBase64Slowly(bytes), expected);
    assert.deepEqual(new Uint8Array(fromBase64(expected)), bytes);
    assert.deepEqual(fromBase64Slowly(expected), bytes);
  }
  assert.throws(() => fromBase64Slowly('***'));
});

test('milliseconds are rounded down', () => {
  const check = (samples, expected, rate) => assert.equal(milliseconds(samples, rate), expected);
  check(0, 0);
  check(23, 0);
  check(24, 1);
  check(47_999, 1_999);
  check(48_000, 1_000, 48_000);
});

test('a resampled tone keeps its pitch, its level and its length', () => {
  for (const [from, to] of [[48_000, 24_000], [44_100, 24_000], [24_000, 48_000], [24_000, 44_100], [16_000, 24_000], [96_000, 24_000]]) {
    const output = resampled(tone(440, from, 1), from, to, 128);
    assert.ok(Math.abs(output.length - to) <= 2, `${from} → ${to}: ${output.length} samples`);
    const middle = output.subarray(to / 4, (to * 3) / 4);
    const expected = tone(440, to, 1).subarray(to / 4, (to * 3) / 4);
    const error = level(middle.map((sample, at) => sample - expected[at]));
    assert.ok(error < 0.001, `${from} → ${to}: off by ${error}`);
  }
});

test('what the new rate cannot hold is removed, not folded back', () => {
  for (const hertz of [13_500, 16_000, 20_000]) {
    const output = resampled(tone(hertz, 48_000, 1), 48_000, 24_000, 128);
    assert.ok(level(output.subarray(2_400, 21_600)) < 0.001, `${hertz} Hz: ${level(output)}`);
  }
});

test('a resampled stream does not depend on how it was cut', () => {
  const input = tone(1_000, 44_100, 0.2);
  const whole = resampled(input, 44_100, 24_000, input.length);
  for (const piece of [1, 5, 128, 441]) assert.deepEqual(resampled(input, 44_100, 24_000, piece), whole);
  assert.throws(() => new Resampler(0, 24_000), RangeError);
});

test('a rate that stays is not touched', () => {
  const input = tone(440, SAMPLE_RATE, 0.01);
  assert.deepEqual(resampled(input, SAMPLE_RATE, SAMPLE_RATE, 128), input);
});

test('chunks have the length that was asked for, at any rate', () => {
  for (const rate of [24_000, 48_000, 44_100]) {
    for (const chunkMilliseconds of [20, 40]) {
      const chunks = [];
      const chunker = new Chunker({ rate, chunkMilliseconds, emit: (chunk) => chunks.push(chunk) });
      const input = tone(440, rate, 1);
      for (let at = 0; at < input.length; at += 128) chunker.push([input.subarray(at, at + 128)]);
      const expected = 1_000 / chunkMilliseconds;
      assert.ok(chunks.length >= expected - 1 && chunks.length <= expected, `${rate}: ${chunks.length}`);
      for (const { pcm } of chunks) assert.equal(pcm.length, 24 * chunkMilliseconds);
      assert.ok(Math.abs(chunks.at(-1).level - 0.5 / Math.SQRT2) < 0.02);
    }
  }
});

test('two channels become one', () => {
  const chunks = [];
  const chunker = new Chunker({ rate: 24_000, emit: (chunk) => chunks.push(chunk) });
  chunker.push([new Float32Array(480).fill(0.5), new Float32Array(480).fill(-0.25)]);
  assert.deepEqual([...chunks[0].pcm], Array(480).fill(4_096));
  chunker.push([]);
});
