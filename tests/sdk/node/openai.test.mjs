import test from 'node:test';

import { Line } from './line.mjs';
import { assertOnlyTheServersCredential, assertWhole } from './spoken.mjs';

const LIMITS = { timeout: 120_000 };

test('openai-node holds a spoken turn over wss', LIMITS, () =>
  Line.with(async (line) => {
    assertWhole(await line.talk('./client-openai.mjs', 'ga'));
    assertOnlyTheServersCredential(line, 'localhost');
  }));

test('openai-node in Azure mode holds a spoken turn over wss', LIMITS, () =>
  Line.with(async (line) => {
    assertWhole(await line.talk('./client-openai.mjs', 'azure'));
    assertOnlyTheServersCredential(line, 'localhost', '2025-04-01-preview');
  }));
