// openai-node, as its documentation says to use it, pointed at Talkline: asks one spoken
// question as push-to-talk and prints the turn as JSON. Argument: `ga` or `azure`.

import OpenAI, { AzureOpenAI } from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';

import { clip, pieces } from './clip.mjs';

const DEPLOYMENT = 'gpt-realtime';
const { TALKLINE_PORT: port, TALKLINE_CLIENT_KEY: apiKey } = process.env;

const connect = {
  async ga() {
    const client = new OpenAI({ baseURL: `https://localhost:${port}/v1`, apiKey });
    return new OpenAIRealtimeWS({ model: DEPLOYMENT }, client);
  },
  async azure() {
    const client = new AzureOpenAI({
      endpoint: `https://localhost:${port}`,
      apiVersion: '2025-04-01-preview',
      deployment: DEPLOYMENT,
      apiKey,
    });
    return OpenAIRealtimeWS.azure(client);
  },
};

const turn = { said: '', audio: Buffer.alloc(0) };
const realtime = await connect[process.argv[2]]();
realtime.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
realtime.on('session.created', () => {
  realtime.send({
    type: 'session.update',
    session: {
      type: 'realtime',
      output_modalities: ['audio'],
      audio: {
        input: {
          format: { type: 'audio/pcm', rate: 24_000 },
          turn_detection: null,
          transcription: { model: 'gpt-4o-mini-transcribe' },
        },
        output: { format: { type: 'audio/pcm', rate: 24_000 } },
      },
    },
  });
});
realtime.on('session.updated', () => {
  for (const piece of pieces(clip('question').pcm)) {
    realtime.send({ type: 'input_audio_buffer.append', audio: piece.toString('base64') });
  }
  realtime.send({ type: 'input_audio_buffer.commit' });
  realtime.send({ type: 'response.create' });
});
realtime.on('response.output_audio.delta', (event) => {
  turn.audio = Buffer.concat([turn.audio, Buffer.from(event.delta, 'base64')]);
});
realtime.on('response.output_audio_transcript.delta', (event) => {
  turn.said += event.delta;
});
realtime.on('conversation.item.input_audio_transcription.completed', (event) => {
  turn.heard = event.transcript;
  endIfWhole();
});
realtime.on('response.done', (event) => {
  turn.status = event.response.status;
  turn.usage = event.response.usage;
  endIfWhole();
});

function endIfWhole() {
  if (turn.heard === undefined || turn.status === undefined) return;
  console.log(JSON.stringify({ ...turn, audio: turn.audio.toString('base64') }));
  realtime.close();
}
