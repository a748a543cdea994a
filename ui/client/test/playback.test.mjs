// The queue, driven as the audio thread drives it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PlaybackQueue } from '../src/playback-queue.js';

const QUANTUM = 128;

function queue(options = {}) {
  const log = [];
  const made = new PlaybackQueue({
    startSamples: 0,
    started: (item) => log.push(`started ${item}`),
    finished: ({ item, played }) => log.push(`finished ${item} ${played}`),
    ...options,
  });
  return { queue: made, log };
}

function render(made, quanta, size = QUANTUM) {
  const output = [];
  for (let at = 0; at < quanta; at += 1) {
    const block = new Float32Array(size).fill(9);
    made.render(block);
    output.push(...block);
  }
  return output;
}

const count = (from, length) => Float32Array.from({ length }, (_, at) => from + at);

test('what is pushed is played, sample by sample, whatever the pieces', () => {
  for (const piece of [1, 7, 127, 128, 129, 1_000]) {
    const { queue: made, log } = queue();
    for (let at = 0; at < 1_000; at += piece) made.push('a', count(at + 1, Math.min(piece, 1_000 - at)));
    made.end('a');
    const output = render(made, 9);
    assert.deepEqual(output.slice(0, 1_000), [...count(1, 1_000)], `pieces of ${piece}`);
    assert.ok(output.slice(1_000).every((sample) => sample === 0));
    assert.deepEqual(log, ['started a', 'finished a 1000']);
    assert.deepEqual(made.stats(), { played: 1_000, gaps: 0, gapSamples: 0 });
  }
});

test('an item waits for a while, or until there is more than a while’s worth, or all of it', () => {
  const { queue: made, log } = queue({ startSamples: 300 });
  made.push('a', count(1, 200));
  assert.ok(render(made, 3).every((sample) => sample === 0), 'held for 384 samples, in whole quanta');
  assert.equal(render(made, 1)[0], 1);
  const { queue: burst } = queue({ startSamples: 300 });
  burst.push('a', count(1, 200));
  burst.push('a', count(201, 200));
  assert.equal(render(burst, 1)[0], 0);
  burst.push('a', count(401, 100));
  assert.equal(render(burst, 1)[0], 1, 'a piece and 300 samples are there');
  const { queue: short } = queue({ startSamples: 300 });
  short.push('a', count(1, 10));
  assert.equal(render(short, 1)[0], 0);
  short.end('a');
  assert.deepEqual(render(short, 1).slice(0, 11), [...count(1, 10), 0]);
  assert.deepEqual(log, ['started a']);
});

test('pieces that come just in time, each late by up to what is held back, leave no gap', () => {
  const { queue: made } = queue({ startSamples: 2_880 });
  const heard = [];
  let pushed = 0;
  for (let quantum = 0; pushed < 50; quantum += 1) {
    // 200 ms every 200 ms, up to 100 ms late.
    const due = pushed * 4_800 + (pushed % 3) * 1_200;
    if (quantum * QUANTUM >= due) {
      made.push('a', count(pushed * 4_800 + 1, 4_800));
      pushed += 1;
    }
    heard.push(...render(made, 1));
  }
  made.end('a');
  heard.push(...render(made, 400));
  const first = heard.indexOf(1);
  assert.deepEqual(heard.slice(first, first + 240_000), [...count(1, 240_000)]);
  assert.equal(made.stats().gaps, 0);
});

test('a minute that comes at once is played to its end', () => {
  const { queue: made } = queue();
  const minute = 60 * 24_000;
  for (let at = 0; at < minute; at += 4_800) made.push('a', new Float32Array(4_800).fill(1));
  made.end('a');
  const output = render(made, Math.ceil(minute / QUANTUM));
  assert.equal(output.filter((sample) => sample === 1).length, minute);
  assert.deepEqual(made.stats(), { played: minute, gaps: 0, gapSamples: 0 });
});

test('items follow each other without a gap', () => {
  const { queue: made, log } = queue({ startSamples: 100 });
  made.push('a', count(1, 150));
  made.push('b', count(151, 50));
  made.end('b');
  assert.deepEqual(render(made, 2).slice(0, 200), [...count(1, 200)]);
  assert.deepEqual(log, ['started a', 'finished a 150', 'started b', 'finished b 50']);
});

test('an item that runs dry is counted, and held back longer the next time', () => {
  const { queue: made } = queue({ startSamples: 100, startSamplesMax: 150 });
  made.push('a', count(1, 128));
  render(made, 1);
  assert.equal(render(made, 1)[0], 1);
  render(made, 2);
  assert.equal(made.stats().gaps, 0, 'nobody knows yet whether it was the end');
  made.push('a', count(129, 1_000));
  assert.deepEqual(made.stats(), { played: 128, gaps: 1, gapSamples: 0 });
  assert.equal(render(made, 2)[0], 0, 'held back for 150 samples');
  assert.equal(render(made, 1)[0], 129);
  assert.deepEqual(made.stats(), { played: 256, gaps: 1, gapSamples: 4 * 128 });
});

test('an end that comes late is no gap', () => {
  const { queue: made, log } = queue();
  made.push('a', count(1, 100));
  render(made, 2);
  made.end('a');
  render(made, 1);
  assert.deepEqual(log, ['started a', 'finished a 100']);
  assert.equal(made.stats().gaps, 0);
});

test('a flush tells how far each item got, and nothing of them is heard any more', () => {
  const { queue: made, log } = queue();
  made.push('a', count(1, 1_000));
  made.push('b', count(1, 500));
  render(made, 2);
  assert.deepEqual(made.position(), { item: 'a', played: 256, received: 1_000 });
  assert.deepEqual(made.flush(), [
    { item: 'a', played: 256, received: 1_000 },
    { item: 'b', played: 0, received: 500 },
  ]);
  assert.ok(render(made, 2).every((sample) => sample === 0));
  assert.deepEqual(made.flush(), []);
  assert.equal(made.position(), null);
  assert.deepEqual(log, ['started a']);
});

test('a flush dies away in samples that count as played', () => {
  const { queue: made } = queue({ fadeSamples: 4 });
  made.push('a', new Float32Array(1_000).fill(1));
  render(made, 1);
  assert.deepEqual(made.flush(), [{ item: 'a', played: 132, received: 1_000 }]);
  assert.deepEqual(render(made, 1).slice(0, 6), [0.75, 0.5, 0.25, 0, 0, 0]);
});

test('what comes after a flush is played', () => {
  const { queue: made } = queue({ fadeSamples: 120 });
  made.push('a', new Float32Array(1_000).fill(1));
  render(made, 1);
  made.flush();
  made.push('b', new Float32Array(200).fill(0.5));
  made.end('b');
  const output = render(made, 4);
  assert.equal(output.filter((sample) => sample === 0.5).length, 200 + 1, 'and the fade passes 0.5 once');
});
