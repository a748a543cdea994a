// @openai/agents-realtime with its own defaults, pointed at Talkline: speaks one question, lets
// voice activity decide whose turn it is, and prints the turn as JSON.

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from '@openai/agents-realtime';

import { clip, pieces, silence } from './clip.mjs';

const DEPLOYMENT = 'gpt-realtime';
const { TALKLINE_PORT: port, TALKLINE_CLIENT_KEY: apiKey } = process.env;

const turn = { said: '', audio: Buffer.alloc(0) };
const agent = new RealtimeAgent({ name: 'Line', instructions: 'Answer briefly.' });
const url = `wss://localhost:${port}/v1/realtime?model=${DEPLOYMENT}`;
const session = new RealtimeSession(agent, {
  transport: new OpenAIRealtimeWebSocket({ url }),
  tracingDisabled: true,
});
session.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
session.on('audio', (event) => {
  turn.audio = Buffer.concat([turn.audio, Buffer.from(event.data)]);
});
session.on('transport_event', (event) => {
  switch (event.type) {
    case 'conversation.item.input_audio_transcription.completed':
      turn.heard = event.transcript;
      return endIfWhole();
    case 'response.output_audio_transcript.done':
      turn.said = event.transcript;
      return undefined;
    case 'response.done':
      turn.status = event.response.status;
      turn.usage = event.response.usage;
      return endIfWhole();
    default:
      return undefined;
  }
});

await session.connect({ apiKey });
for (const piece of pieces(Buffer.concat([clip('question').pcm, silence(1.5)]))) {
  const { buffer, byteOffset, byteLength } = piece;
  session.sendAudio(buffer.slice(byteOffset, byteOffset + byteLength));
}

function endIfWhole() {
  if (turn.heard === undefined || turn.status === undefined) return;
  console.log(JSON.stringify({ ...turn, audio: turn.audio.toString('base64') }));
  session.close();
}
