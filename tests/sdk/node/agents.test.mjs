import test from 'node:test';

import { Line } from './line.mjs';
import { assertOnlyTheServersCredential, assertWhole } from './spoken.mjs';

test('@openai/agents-realtime holds a spoken turn over wss', { timeout: 120_000 }, () =>
  Line.with(async (line) => {
    assertWhole(await line.talk('./client-agents.mjs'));
    assertOnlyTheServersCredential(line, 'localhost', 'agents');
  }));
