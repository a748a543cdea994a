// A browser's own WebSocket meets every scenario; prints what a page is told: one line of JSON for each.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';

import { chromium } from 'playwright-core';

const plan = JSON.parse(await text(process.stdin));
const profile = mkdtempSync(join(tmpdir(), 'talkline-browser-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.TALKLINE_CHROMIUM,
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    // The page, and nothing else: what a browser looks up by itself is not Talkline's doing.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
    // A page cannot be told to trust one CA.
    '--ignore-certificate-errors',
  ],
});
try {
  const page = context.pages()[0] ?? (await context.newPage());
  await page.exposeFunction('report', (seen) => console.log(JSON.stringify(seen)));
  await page.goto(plan.page);
  await page.evaluate(meetAll, { ...plan, key: process.env.TALKLINE_CLIENT_KEY });
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}

/** Runs in the page: it can use nothing from around it. */
async function meetAll({ port, key, scenarios }) {
  const AT_ONCE = 8;
  const SCENARIO_MS = 30_000;

  function meet(scenario) {
    const seen = { scenario: scenario.name, errors: [], responses: [], closed: null, raised: null };
    const start = performance.now();
    return new Promise((resolve) => {
      const url = `wss://localhost:${port}/v1/realtime?model=${encodeURIComponent(scenario.name)}`;
      const socket = new WebSocket(url, ['realtime', `openai-insecure-api-key.${key}`]);
      let hangsUp = false;
      const end = () => {
        clearTimeout(deadline);
        resolve({ ...seen, seconds: (performance.now() - start) / 1000 });
      };
      const deadline = setTimeout(() => {
        seen.raised = 'nothing in time';
        socket.close();
        end();
      }, SCENARIO_MS);
      socket.onerror = () => {
        seen.raised = 'error event';
      };
      socket.onclose = ({ code, reason }) => {
        if (hangsUp) return;
        seen.closed = { code, reason };
        end();
      };
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        switch (event.type) {
          case 'session.created':
            for (const each of scenario.sends) socket.send(JSON.stringify(each));
            break;
          case 'error':
          case 'conversation.item.input_audio_transcription.failed': {
            const { event_id: _, ...error } = event.error;
            seen.errors.push(error);
            break;
          }
          case 'response.done': {
            const { status, status_details: details } = event.response;
            seen.responses.push({ status, details: details ?? null });
            break;
          }
          default:
            break;
        }
        if (event.type === scenario.until) {
          hangsUp = true;
          socket.close();
          end();
        }
      };
    });
  }

  const waiting = [...scenarios];
  async function work() {
    for (let scenario = waiting.shift(); scenario; scenario = waiting.shift()) {
      await window.report(await meet(scenario));
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}
