// The browser's half of openai-node, as its documentation says to use it: only the URL is Talkline's.

import OpenAI from 'openai';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';

/** Asks one question in writing and waits for the spoken answer. */
window.talk = ({ url, token }) =>
  new Promise((resolve, reject) => {
    const base = new URL(url);
    const client = new OpenAI({
      apiKey: token,
      baseURL: `https://${base.host}/v1`,
      dangerouslyAllowBrowser: true,
    });
    const realtime = new OpenAIRealtimeWebSocket(
      { model: base.searchParams.get('model'), dangerouslyAllowBrowser: true },
      client,
    );
    let audioBytes = 0;
    realtime.on('error', (error) => reject(new Error(error.message)));
    realtime.on('session.created', () => {
      realtime.send({
        type: 'conversation.item.create',
        item: { type: 'message', role: 'user', content: [{ type: 'input_text', text: 'Are you there?' }] },
      });
      realtime.send({ type: 'response.create' });
    });
    realtime.on('response.output_audio.delta', (event) => {
      audioBytes += atob(event.delta).length;
    });
    realtime.on('response.done', (event) => {
      realtime.close();
      resolve({ status: event.response.status, audioBytes });
    });
  });
