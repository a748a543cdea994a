// @openai/agents-realtime in a page, as its documentation says to use it: only the URL is Talkline's.

/** Asks one question in writing and waits for the spoken answer. */
export const talkWith = ({ OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession }) => async ({ url, token }) => {
  const agent = new RealtimeAgent({ name: 'Page', instructions: 'Answer briefly.' });
  const session = new RealtimeSession(agent, { transport: new OpenAIRealtimeWebSocket({ url }) });
  let audioBytes = 0;
  session.on('audio', (event) => {
    audioBytes += event.data.byteLength;
  });
  const done = new Promise((resolve, reject) => {
    session.on('error', ({ error }) => reject(new Error(JSON.stringify(error?.error ?? String(error)))));
    session.on('transport_event', (event) => {
      if (event.type === 'response.done') resolve(event.response.status);
    });
  });
  await session.connect({ apiKey: token });
  session.sendMessage('Are you there?');
  const status = await done;
  session.close();
  return { status, audioBytes };
};
