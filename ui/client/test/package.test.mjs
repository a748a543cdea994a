// The package by its own name, as whoever installs it has it.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const { exports, files } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

test('all that is exported is there, with its declarations', async () => {
  const client = await import('@talkline/client');
  for (const name of ['TalkSession', 'TalkFailure', 'Microphone', 'Speaker', 'Turns', 'PlaybackQueue', 'Resampler']) {
    assert.equal(typeof client[name], 'function', name);
  }
  for (const entry of Object.values(exports)) {
    for (const path of typeof entry === 'string' ? [entry] : Object.values(entry)) {
      assert.ok(existsSync(new URL(`../${path}`, import.meta.url)), path);
      assert.ok(files.includes(path.split('/')[1]), `${path} is published`);
    }
  }
  assert.match(import.meta.resolve('@talkline/client/playback-worklet.js'), /src\/playback-worklet\.js$/);
});

test('what is documented exists, and nothing else', () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const session = readFileSync(new URL('../types/session.d.ts', import.meta.url), 'utf8');
  const methods = [...readme.matchAll(/`(\w+)\(\w*\)`/g)].map(([, name]) => name);
  assert.ok(methods.length >= 12);
  for (const name of new Set(methods)) assert.match(session, new RegExp(`\\b${name}\\(`), name);
});
