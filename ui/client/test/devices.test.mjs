// A microphone and a session with a browser made of paper, Firefox's peculiarity included.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Microphone } from '../src/microphone.js';
import { TalkSession } from '../src/session.js';
import { Speaker } from '../src/speaker.js';

/** An error as browsers name it. */
function named(name) {
  const error = new Error(name);
  error.name = name;
  return error;
}

class Track extends EventTarget {
  stopped = false;

  stop() {
    this.stopped = true;
  }

  getSettings() {
    return { deviceId: 'm1' };
  }
}

/** What this browser did is in `log`. */
function paperBrowser({ microphoneError, mixesRates = true, answers = [] } = {}) {
  const log = [];
  const tracks = [];
  const nodes = [];
  const asked = [];
  const plug = { devices: true };
  class Context {
    state = 'running';
    destination = {};
    audioWorklet = { addModule: async (url) => log.push(`module ${String(url).split('/').at(-1)}`) };

    constructor({ sampleRate = 48_000 } = {}) {
      this.sampleRate = sampleRate;
      log.push(`context ${sampleRate}`);
    }

    createMediaStreamSource() {
      if (!mixesRates && this.sampleRate !== 48_000) throw named('NotSupportedError');
      return { connect() {}, disconnect() {} };
    }

    createAnalyser() {
      return { context: this, connect() {} };
    }

    async resume() {}

    async close() {
      this.state = 'closed';
      log.push(`closed ${this.sampleRate}`);
    }
  }
  class Node {
    port = { postMessage: (order) => log.push(`order ${order.kind}`), close() {}, onmessage: null };

    constructor(context, name) {
      log.push(`${name} at ${context.sampleRate}`);
      this.name = name;
      nodes.push(this);
    }

    connect() {}
  }
  class Socket {
    static CONNECTING = 0;
    static OPEN = 1;
    static last = null;
    readyState = 0;
    bufferedAmount = 0;
    sent = [];

    constructor(url, protocols) {
      log.push(`socket ${url} ${protocols}`);
      Socket.last = this;
    }

    send(data) {
      this.sent.push(JSON.parse(data));
    }

    close(code) {
      this.readyState = 3;
      log.push(`socket closed ${code}`);
    }
  }
  const environment = {
    AudioContext: Context,
    AudioWorkletNode: Node,
    WebSocket: Socket,
    isSecureContext: true,
    mediaDevices: Object.assign(new EventTarget(), {
      async getUserMedia(constraints) {
        asked.push(constraints.audio.deviceId?.exact);
        if (!plug.devices) throw named('NotFoundError');
        if (microphoneError) throw named(microphoneError);
        const track = new Track();
        tracks.push(track);
        return { getAudioTracks: () => [track], getTracks: () => [track] };
      },
    }),
    fetch: async () => {
      const answer = answers.shift();
      if (!answer) throw new TypeError('Failed to fetch');
      return { ok: answer.status === 200, status: answer.status, json: async () => answer.body };
    },
  };
  return { environment, log, tracks, nodes, asked, plug, Socket };
}

const TICKET = { status: 200, body: { transport: 'gateway-relay', url: 'ws://relay.test/v1/realtime', protocols: ['realtime', 'k'] } };

test('the microphone runs at 24 kHz where the browser resamples', async () => {
  const { environment, log, tracks } = paperBrowser();
  const microphone = new Microphone({ environment, onchunk() {} });
  await microphone.open();
  assert.deepEqual(log, ['context 24000', 'module capture-worklet.js', 'talkline-capture at 24000']);
  assert.equal(microphone.rate, 24_000);
  await microphone.close();
  assert.ok(tracks[0].stopped);
});

test('in Firefox it runs at the device’s rate, and the worklet resamples', async () => {
  const { environment, log } = paperBrowser({ mixesRates: false });
  const microphone = new Microphone({ environment, onchunk() {} });
  await microphone.open();
  assert.deepEqual(log, ['context 24000', 'closed 24000', 'context 48000', 'module capture-worklet.js', 'talkline-capture at 48000']);
  assert.equal(microphone.rate, 48_000);
});

test('why there is no microphone', async () => {
  const check = async (microphoneError, code) => {
    const { environment } = paperBrowser({ microphoneError });
    await assert.rejects(new Microphone({ environment, onchunk() {} }).open(), { code });
  };
  await check('NotAllowedError', 'microphone_denied');
  await check('NotFoundError', 'microphone_missing');
  await check('NotReadableError', 'microphone_busy');
  await check('TypeError', 'audio_unavailable');
  const environment = { ...paperBrowser().environment, isSecureContext: false };
  await assert.rejects(new Microphone({ environment, onchunk() {} }).open(), { code: 'insecure_context' });
  await assert.rejects(new Speaker({ environment }).open(), { code: 'insecure_context' });
});

/** A session up to its `session.created`. */
async function connected(options = {}) {
  const browser = paperBrowser({ answers: [TICKET] });
  const session = new TalkSession({ relay: 'http://relay.test/', environment: browser.environment, ...options });
  const states = [];
  session.on('state', (state) => states.push(state));
  const closed = new Promise((resolve) => session.on('closed', resolve));
  const connecting = session.connect();
  while (!browser.Socket.last) await new Promise((resolve) => setImmediate(resolve));
  const socket = browser.Socket.last;
  const receive = (event) => socket.onmessage({ data: JSON.stringify(event) });
  socket.readyState = 1;
  socket.onopen();
  return { ...browser, session, states, closed, connecting, socket, receive };
}

const CREATED = { type: 'session.created', session: { type: 'realtime', audio: { input: { turn_detection: { type: 'server_vad' } } } } };

test('a session connects with the relay’s ticket and says what it wants', async () => {
  const { session, connecting, socket, receive, log, states } = await connected({ settings: { voice: 'marin' } });
  receive(CREATED);
  await connecting;
  assert.ok(log.includes('socket ws://relay.test/v1/realtime realtime,k'));
  assert.deepEqual(states, ['connecting', 'listening']);
  assert.equal(socket.sent[0].session.audio.output.voice, 'marin');
  await session.close();
  assert.equal(session.state, 'closed');
  assert.ok(log.includes('socket closed 1000'));
});

/** The microphone's next chunk. */
function speak(nodes, value) {
  const capture = nodes.find(({ name }) => name === 'talkline-capture');
  capture.port.onmessage({ data: { pcm: new Int16Array(480).fill(value), level: 0.1 } });
}

/** All that was sent of the microphone, as samples. */
function appended(socket) {
  return socket.sent
    .filter(({ type }) => type === 'input_audio_buffer.append')
    .map(({ audio }) => [...new Int16Array(Uint8Array.from(atob(audio), (letter) => letter.charCodeAt(0)).buffer)]);
}

test('chunks are sent, unless muted: then a second of silence and no more', async () => {
  const { session, connecting, socket, receive, nodes } = await connected();
  receive(CREATED);
  await connecting;
  speak(nodes, 7);
  assert.equal(appended(socket).length, 1);
  session.mute(true);
  for (let count = 0; count < 80; count += 1) speak(nodes, 7);
  assert.equal(appended(socket).length, 1 + 50);
  assert.ok(appended(socket).at(-1).every((sample) => sample === 0));
  session.mute(false);
  speak(nodes, 7);
  assert.equal(appended(socket).length, 52);
});

test('what is said while the session is being made is not lost, and goes out as one event', async () => {
  const { connecting, socket, receive, nodes } = await connected();
  for (const value of [1, 2, 3]) speak(nodes, value);
  assert.deepEqual(appended(socket), []);
  receive(CREATED);
  await connecting;
  assert.equal(appended(socket).length, 1);
  assert.deepEqual(appended(socket)[0].filter((_, index) => index % 480 === 0), [1, 2, 3]);
  speak(nodes, 4);
  assert.equal(appended(socket).length, 2);

  const patient = await connected();
  for (let value = 0; value < 400; value += 1) speak(patient.nodes, value);
  patient.receive(CREATED);
  await patient.connecting;
  const [kept] = appended(patient.socket);
  assert.deepEqual([kept.length, kept[0], kept.at(-1)], [5 * 24_000, 150, 399], 'the last five seconds');

  for (const options of [{ muted: true }, { pushToTalk: true }]) {
    const quiet = await connected(options);
    speak(quiet.nodes, 1);
    quiet.receive(CREATED);
    await quiet.connecting;
    assert.deepEqual(appended(quiet.socket), []);
  }
  for (const hush of [(it) => it.mute(true), (it) => it.setPushToTalk(true)]) {
    const hushed = await connected();
    speak(hushed.nodes, 1);
    hush(hushed.session);
    hushed.receive(CREATED);
    await hushed.connecting;
    assert.deepEqual(appended(hushed.socket), [], 'whoever mutes takes it back');
  }
});

test('a microphone that is unplugged is replaced, at once or when there is one again', async () => {
  const { session, connecting, receive, tracks, asked, plug, environment } = await connected({ microphoneId: 'm1' });
  receive(CREATED);
  await connecting;
  const notices = [];
  const noticed = (count) =>
    new Promise((resolve) => {
      const off = session.on('notice', () => notices.length === count && resolve(off()));
    });
  session.on('notice', ({ code }) => notices.push(code));
  let told = noticed(1);
  tracks.at(-1).dispatchEvent(new Event('ended'));
  await told;
  assert.deepEqual(asked, ['m1', undefined]);

  plug.devices = false;
  told = noticed(2);
  tracks.at(-1).dispatchEvent(new Event('ended'));
  await told;
  environment.mediaDevices.dispatchEvent(new Event('devicechange'));
  plug.devices = true;
  told = noticed(3);
  environment.mediaDevices.dispatchEvent(new Event('devicechange'));
  await told;
  assert.deepEqual(notices, ['microphone_changed', 'microphone_lost', 'microphone_changed']);
  const before = asked.length;
  environment.mediaDevices.dispatchEvent(new Event('devicechange'));
  assert.equal(asked.length, before, 'one that works is left alone');
  await session.close();
  assert.ok(tracks.every((track) => track.stopped));
});

test('the system’s choice can be gone back to', async () => {
  const { session, connecting, receive, asked, socket } = await connected({ microphoneId: 'm1' });
  receive(CREATED);
  await connecting;
  await session.chooseMicrophone(undefined);
  socket.onclose({ code: 1006, reason: '' });
  await session.connect().catch(() => {});
  assert.deepEqual(asked, ['m1', undefined, undefined]);
});

test('an interruption flushes, and truncates by the player’s report', async () => {
  const { connecting, socket, receive, nodes, log } = await connected({ microphone: false });
  receive(CREATED);
  await connecting;
  receive({ type: 'response.created', response: { id: 'r' } });
  receive({ type: 'response.output_audio.delta', response_id: 'r', item_id: 'i', delta: 'AAAAAA==' });
  receive({ type: 'input_audio_buffer.speech_started', item_id: 'u' });
  assert.ok(log.includes('order flush'));
  nodes[0].port.onmessage({ data: { kind: 'flushed', ticket: 1, positions: [{ item: 'i', played: 2_400, received: 4_800 }] } });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(socket.sent.at(-1), { type: 'conversation.item.truncate', item_id: 'i', content_index: 0, audio_end_ms: 100 });
});

test('why a conversation did not begin, or ended', async () => {
  const check = async (act, code) => {
    const { connecting, closed, session, ...rest } = await connected();
    const outcome = connecting.catch(() => {});
    await act(rest);
    await outcome;
    const failure = await closed;
    assert.equal(failure?.code ?? null, code);
    assert.ok(failure.summary !== '' && failure.nextStep !== '', code);
    assert.equal(session.state, 'closed');
  };
  const refused = { type: 'error', error: { code: 'azure_key_invalid', message: 'The key is wrong. Next step: Get another.' } };
  await check(({ receive, socket }) => {
    receive(refused);
    socket.onclose({ code: 1008, reason: 'azure_key_invalid' });
  }, 'azure_key_invalid');
  await check(({ receive, socket }) => {
    receive(CREATED);
    socket.onclose({ code: 1006, reason: '' });
  }, 'connection_lost');
  await check(({ receive, socket }) => {
    receive(CREATED);
    receive({ type: 'error', error: { code: 'invalid_value', message: 'of no account' } });
    socket.onclose({ code: 1006, reason: '' });
  }, 'connection_lost');
  await check(({ receive, socket }) => {
    receive(CREATED);
    socket.onclose({ code: 1001, reason: 'relay_shutting_down' });
  }, 'relay_shutting_down');
});

test('a relay that is not there, and one that says no', async () => {
  const check = async (answers, code) => {
    const { environment } = paperBrowser({ answers });
    const session = new TalkSession({ relay: 'http://relay.test/', microphone: false, environment });
    await assert.rejects(session.connect(), { code });
    assert.equal(session.state, 'closed');
  };
  await check([], 'relay_unreachable');
  await check([{ status: 401, body: { error: { code: 'client_key_missing', message: 'no' } } }], 'client_key_missing');
  await check([{ status: 429, body: { error: { code: 'too_many', message: 'Slow down.' } } }], 'too_many');
  await check([{ status: 502, body: null }], 'session_refused');
  await check([{ status: 200, body: { transport: 'webrtc', url: 'https://elsewhere.test' } }], 'transport_unsupported');
});

test('a conversation that is given up while it begins leaves no microphone on', async () => {
  const browser = paperBrowser({ answers: [TICKET] });
  let allow;
  const { getUserMedia } = browser.environment.mediaDevices;
  browser.environment.mediaDevices.getUserMedia = async () => {
    await new Promise((resolve) => {
      allow = resolve;
    });
    return getUserMedia();
  };
  const session = new TalkSession({ relay: 'http://relay.test/', environment: browser.environment });
  const connecting = session.connect();
  while (!allow) await new Promise((resolve) => setImmediate(resolve));
  await session.close();
  allow();
  await assert.rejects(connecting);
  assert.equal(session.state, 'closed');
  assert.ok(browser.tracks.every((track) => track.stopped));
  assert.equal(browser.Socket.last, null);

  const late = await connected();
  await late.session.close();
  late.socket.onclose({ code: 1000, reason: '' });
  await assert.rejects(late.connecting);
  assert.ok(late.tracks.every((track) => track.stopped));
});

test('after its end a session can be connected again', async () => {
  const { session, connecting, receive, socket } = await connected();
  receive(CREATED);
  await connecting;
  socket.onclose({ code: 1006, reason: '' });
  assert.equal(session.state, 'closed');
  await assert.rejects(session.connect(), { code: 'relay_unreachable' });
});
