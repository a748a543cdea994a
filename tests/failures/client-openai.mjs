// openai-node meets every scenario, and prints what it was told: one line of JSON for each.

import { text } from 'node:stream/consumers';

import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';

const AT_ONCE = 8;
const SCENARIO_MS = 30_000;

const plan = JSON.parse(await text(process.stdin));
const client = new OpenAI({
  baseURL: `https://localhost:${plan.port}/v1`,
  apiKey: process.env.TALKLINE_CLIENT_KEY,
});

/** Opens a session and listens until it ends, as an application would. */
function meet(scenario) {
  const seen = { scenario: scenario.name, errors: [], responses: [], closed: null, raised: null };
  const start = performance.now();
  return new Promise((resolve) => {
    let hangsUp = false;
    const realtime = new OpenAIRealtimeWS({ model: scenario.name }, client);
    const end = () => {
      clearTimeout(deadline);
      resolve({ ...seen, seconds: (performance.now() - start) / 1000 });
    };
    const deadline = setTimeout(() => {
      seen.raised = 'nothing in time';
      realtime.close();
      end();
    }, SCENARIO_MS);
    const note = ({ event_id: _, ...error }) => seen.errors.push(error);
    realtime.on('error', (error) => {
      if (error.error) note(error.error);
      else seen.raised = `${error.constructor.name}: ${error.message}`;
    });
    realtime.on('event', (event) => {
      switch (event.type) {
        case 'session.created':
          for (const each of scenario.sends) realtime.send(each);
          break;
        case 'conversation.item.input_audio_transcription.failed':
          note(event.error);
          break;
        case 'response.done': {
          const { status, status_details: details } = event.response;
          seen.responses.push({ status, details: details ?? null });
          break;
        }
        default:
          break;
      }
      if (event.type !== scenario.until) return;
      // The SDK tells of an error event after this.
      setImmediate(() => {
        hangsUp = true;
        realtime.close();
        end();
      });
    });
    realtime.socket.on('close', (code, reason) => {
      if (hangsUp) return;
      seen.closed = { code, reason: reason.toString() };
      end();
    });
  });
}

const waiting = [...plan.scenarios];
async function work() {
  for (let scenario = waiting.shift(); scenario; scenario = waiting.shift()) {
    console.log(JSON.stringify(await meet(scenario)));
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, work));
