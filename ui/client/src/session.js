/**
 * A conversation through Talkline: asks the relay for a way in, connects, listens, plays.
 */

import { toBase64 } from './base64.js';
import { browser } from './environment.js';
import { dialectOf, sessionUpdate } from './dialect.js';
import { Emitter } from './emitter.js';
import { closeFailure, eventFailure, failure, refusalFailure, TalkFailure } from './failure.js';
import { Microphone } from './microphone.js';
import { SAMPLE_RATE } from './pcm.js';
import { SentClock } from './sent-clock.js';
import { Speaker } from './speaker.js';
import { Turns } from './turns.js';

/** Longest wait for `session.created`, counted from the open socket. */
const CREATED_MILLISECONDS = 15_000;
/** Longest wait for the relay's answer. */
const ASK_MILLISECONDS = 15_000;
/** Silence sent after the last word, so that the service notices the end of the turn. */
const TRAILING_SILENCE_MILLISECONDS = 1_000;
/** Least audio that a service takes as a turn. */
const TURN_MILLISECONDS_MIN = 100;
/** Of what is said before the service takes audio, as much as is kept. */
const EARLY_MILLISECONDS_MAX = 5_000;
/** Bytes that may wait in the socket before chunks are dropped: eight seconds of audio. */
const WAITING_BYTES_MAX = 512 * 1_024;

/**
 * @typedef {import('./turns.js').Phase} Phase
 * @typedef {import('./turns.js').Caption} Caption
 * @typedef {import('./turns.js').Latency} Latency
 * @typedef {import('./turns.js').Usage} Usage
 * @typedef {import('./turns.js').Notice} Notice
 * @typedef {import('./dialect.js').Settings} Settings
 * @typedef {import('./dialect.js').ServiceEvent} ServiceEvent
 */

/** @typedef {'idle' | 'connecting' | Phase | 'closed'} State */

/**
 * What the relay answers to `POST /talk/session`.
 *
 * @typedef {object} Ticket
 * @property {string} transport
 * @property {string} [reason]
 * @property {string} [message]
 * @property {string} url
 * @property {string} [model]
 * @property {string[]} [protocols]
 * @property {{ value: string, expires_at: number }} [client_secret]
 * @property {number | null} [session_seconds_max]
 * @property {Record<string, any> | null} [prices]
 */

/**
 * @typedef {object} Options
 * @property {URL | string} [relay] where the relay is; else where this page came from
 * @property {string} [key] the client key, where the relay wants one
 * @property {string} [model] one of the relay's models; else its default
 * @property {Settings} [settings] of the conversation
 * @property {boolean} [microphone] `false` for a conversation in writing; default `true`
 * @property {string} [microphoneId]
 * @property {string} [speakerId]
 * @property {boolean} [pushToTalk] whether a turn is what is said between `press` and `release`
 * @property {boolean} [halfDuplex] whether the microphone rests while a reply is played
 * @property {boolean} [muted]
 * @property {number} [chunkMilliseconds]
 * @property {number} [startMilliseconds] of a reply that are held back against jitter
 * @property {URL | string} [captureWorkletUrl]
 * @property {URL | string} [playbackWorkletUrl]
 * @property {import('./environment.js').Environment} [environment]
 */

/**
 * @typedef {object} Connected
 * @property {Ticket} ticket
 * @property {Record<string, any>} session as the service describes it
 * @property {number} milliseconds from the click to the open session
 */

/**
 * @typedef {object} Events
 * @property {State} state
 * @property {Connected} connected
 * @property {Caption} caption
 * @property {Latency} latency
 * @property {Usage} usage of one response
 * @property {{ item: string, audioEndMs: number }[]} interrupted
 * @property {Notice} notice something went wrong, and the conversation goes on
 * @property {{ sent: boolean, event: ServiceEvent }} event all that crosses the socket
 * @property {TalkFailure | null} closed why the conversation ended; `null` when `close` was called
 */

/**
 * A chunk of the microphone's.
 *
 * @typedef {object} Heard
 * @property {Int16Array<ArrayBuffer>} pcm
 * @property {number} at when the last of it was captured
 */

/** @extends {Emitter<Events>} */
export class TalkSession extends Emitter {
  /** @type {State} */
  state = 'idle';
  #options;
  #environment;
  /** @type {Microphone | undefined} */
  #microphone;
  /** @type {Speaker | undefined} */
  #speaker;
  /** @type {WebSocket | undefined} */
  #socket;
  #turns = new Turns();
  #clock = new SentClock();
  /** @type {import('./dialect.js').Dialect} */
  #dialect = 'ga';
  /** Whether the service takes audio. */
  #open = false;
  #muted;
  #halfDuplex;
  #pushToTalk;
  #pressed = false;
  #pressedMilliseconds = 0;
  #silenceLeft = 0;
  /** What was said before the service took audio. @type {Heard[]} */
  #early = [];
  /** Ends the wait for a microphone in place of one that was lost. */
  #endMicrophoneWait = () => {};
  /** The last `error`, which says more than the close that follows. @type {Record<string, any> | null} */
  #lastError = null;
  /** Raised with every connection, so that what belongs to an old one is not taken for the new. */
  #generation = 0;

  /** @param {Options} [options] */
  constructor(options = {}) {
    super();
    this.#options = options;
    this.#environment = options.environment ?? browser();
    this.#muted = options.muted ?? false;
    this.#halfDuplex = options.halfDuplex ?? false;
    this.#pushToTalk = options.pushToTalk ?? false;
  }

  /**
   * Opens microphone and player, asks the relay for a session, and connects. May be called again
   * after the conversation has ended; a new one begins then.
   *
   * Call it from a click or a key, as browsers want it.
   *
   * @returns {Promise<void>} once the service is listening
   * @throws {TalkFailure}
   */
  async connect() {
    if (this.state !== 'idle' && this.state !== 'closed') return;
    this.#generation += 1;
    const generation = this.#generation;
    const begun = performance.now();
    this.#turns = new Turns();
    this.#clock = new SentClock();
    this.#lastError = null;
    this.#early = [];
    this.#become('connecting');
    const speaker = this.#makeSpeaker();
    const microphone = this.#makeMicrophone();
    try {
      this.#speaker = speaker;
      this.#microphone = microphone;
      const asked = this.#ask();
      // All at once, so that the prompt for the microphone does not wait for the network.
      const outcomes = await Promise.allSettled([asked, microphone?.open(), speaker.open()]);
      const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [asFailure(outcome.reason)] : []));
      // Without the relay the worklets cannot be loaded either; else the user's own devices come first.
      const worst =
        failures.find(({ code }) => code === 'relay_unreachable') ??
        failures.find(({ code }) => code.startsWith('microphone_')) ??
        failures[0];
      if (worst) throw worst;
      this.#check(generation);
      const ticket = await asked;
      const session = await this.#dial(ticket, generation);
      this.#check(generation);
      this.#settle(session);
      this.#open = true;
      this.emit('connected', { ticket, session, milliseconds: performance.now() - begun });
      this.#become(this.#turns.phase);
      this.#append(this.#early);
      this.#early = [];
    } catch (error) {
      if (generation === this.#generation) await this.#end(asFailure(error));
      // Whoever was asked for the microphone may have answered after the conversation was given up.
      await Promise.all([microphone?.close(), speaker.close()]);
      throw asFailure(error);
    }
  }

  /**
   * Says something in writing.
   *
   * @param {string} text
   */
  sendText(text) {
    if (this.#open) this.#do(this.#turns.write(text, performance.now()));
  }

  /** Stops the reply, as speaking does. */
  interrupt() {
    if (this.#open) this.#do(this.#turns.interrupt());
  }

  /** Begins a turn, with push-to-talk. */
  press() {
    if (!this.#open || this.#pressed) return;
    this.#pressed = true;
    this.#pressedMilliseconds = 0;
    this.#do(this.#turns.press());
  }

  /** Ends the turn, with push-to-talk. */
  release() {
    if (!this.#open || !this.#pressed) return;
    this.#pressed = false;
    const long = this.#pressedMilliseconds >= TURN_MILLISECONDS_MIN;
    this.#do(long ? this.#turns.commit(performance.now()) : this.#turns.retract());
  }

  /**
   * @param {boolean} muted whether nothing of the microphone is sent
   */
  mute(muted) {
    this.#muted = muted;
    if (muted) this.#early = [];
  }

  /** @param {boolean} on */
  setHalfDuplex(on) {
    this.#halfDuplex = on;
  }

  /** @param {boolean} on */
  setPushToTalk(on) {
    if (this.#pressed) this.release();
    this.#pushToTalk = on;
    if (on) this.#early = [];
    if (this.#open) this.#set({ turnDetection: !on });
  }

  /**
   * @param {string | undefined} deviceId
   * @throws {TalkFailure} the old microphone is kept then
   */
  async chooseMicrophone(deviceId) {
    const { microphoneId: _, ...options } = this.#options;
    this.#options = { ...options, ...(deviceId === undefined ? {} : { microphoneId: deviceId }) };
    await this.#microphone?.choose(deviceId);
    this.#endMicrophoneWait();
  }

  /** @param {string} deviceId */
  async chooseSpeaker(deviceId) {
    this.#options = { ...this.#options, speakerId: deviceId };
    await this.#speaker?.choose(deviceId);
  }

  /** What is seen of the microphone. */
  get inputAnalyser() {
    return this.#microphone?.analyser;
  }

  /** What is seen of the player. */
  get outputAnalyser() {
    return this.#speaker?.analyser;
  }

  /** How playing went: samples, gaps. */
  get playback() {
    return this.#speaker?.stats ?? { played: 0, gaps: 0, gapSamples: 0 };
  }

  /**
   * Sends any event of the Realtime protocol.
   *
   * @param {ServiceEvent} event
   */
  send(event) {
    if (this.#socket?.readyState !== this.#environment.WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify(event));
    this.emit('event', { sent: true, event });
  }

  /** Ends the conversation and gives the devices back. */
  async close() {
    if (this.state === 'idle' || this.state === 'closed') return;
    await this.#end(null);
  }

  /**
   * How long a request takes to the relay and back, without connecting.
   *
   * @returns {Promise<number | null>} milliseconds; `null` when the relay is of another origin
   */
  async measureRelay() {
    const url = this.#at(`/healthz?at=${performance.now()}`);
    try {
      const answer = await this.#environment.fetch(url, { cache: 'no-store' });
      await answer.text();
    } catch {
      return null;
    }
    const timing = await timingOf(url.href);
    // The browser keeps 250 entries and then no more.
    performance.clearResourceTimings();
    if (!timing?.requestStart) return null;
    return timing.responseStart - timing.requestStart;
  }

  #makeSpeaker() {
    const { speakerId, startMilliseconds, playbackWorkletUrl } = this.#options;
    return new Speaker({
      environment: this.#environment,
      ...(speakerId === undefined ? {} : { deviceId: speakerId }),
      ...(startMilliseconds === undefined ? {} : { startMilliseconds }),
      ...(playbackWorkletUrl === undefined ? {} : { workletUrl: playbackWorkletUrl }),
      onstarted: (item) => this.#do(this.#turns.started(item, performance.now())),
      onfinished: ({ item }) => this.#do(this.#turns.finished(item)),
    });
  }

  #makeMicrophone() {
    const { microphone = true, microphoneId, chunkMilliseconds, captureWorkletUrl } = this.#options;
    if (!microphone) return undefined;
    return new Microphone({
      environment: this.#environment,
      ...(microphoneId === undefined ? {} : { deviceId: microphoneId }),
      ...(chunkMilliseconds === undefined ? {} : { chunkMilliseconds }),
      ...(captureWorkletUrl === undefined ? {} : { workletUrl: captureWorkletUrl }),
      onchunk: (pcm) => this.#heard(pcm),
      onlost: () => void this.#lost(),
    });
  }

  /** @returns {Promise<Ticket>} */
  async #ask() {
    const { key, model } = this.#options;
    const body = { transport: 'gateway-relay', ...(model === undefined ? {} : { model }) };
    let response;
    try {
      response = await this.#environment.fetch(this.#at('/talk/session'), {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(key ? { authorization: `Bearer ${key}` } : {}),
        },
        body: JSON.stringify(body),
        cache: 'no-store',
        signal: AbortSignal.timeout(ASK_MILLISECONDS),
      });
    } catch (error) {
      throw failure('relay_unreachable', { cause: error });
    }
    const said = await response.json().catch(() => null);
    if (!response.ok) throw refusalFailure(response.status, said);
    if (said?.transport !== 'gateway-relay' || typeof said.url !== 'string') {
      throw failure('transport_unsupported');
    }
    return said;
  }

  /**
   * @param {Ticket} ticket
   * @param {number} generation
   * @returns {Promise<Record<string, any>>} the session, once the service has made it
   */
  #dial(ticket, generation) {
    return new Promise((resolve, reject) => {
      const protocols = ticket.protocols?.length ? ticket.protocols : ['realtime'];
      const socket = new this.#environment.WebSocket(ticket.url, protocols);
      this.#socket = socket;
      let opened = false;
      let created = false;
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let deadline;
      socket.onopen = () => {
        opened = true;
        deadline = setTimeout(() => {
          reject(failure('session_silent'));
          socket.close();
        }, CREATED_MILLISECONDS);
      };
      socket.onmessage = ({ data }) => {
        if (generation !== this.#generation) return;
        const event = parsed(data);
        if (!event) return;
        this.emit('event', { sent: false, event });
        if (event.type === 'error') this.#lastError = event['error'] ?? null;
        if (event.type === 'session.created' && !created) {
          created = true;
          clearTimeout(deadline);
          this.#do(this.#turns.receive(event, performance.now()));
          resolve(event['session'] ?? {});
          return;
        }
        if (created) this.#receive(event);
      };
      socket.onclose = ({ code, reason }) => {
        clearTimeout(deadline);
        if (generation !== this.#generation) return reject(failure('session_ended'));
        const error = this.#lastError;
        const why =
          error && (!created || code !== 1006) && closes(error, reason)
            ? eventFailure(error)
            : closeFailure({ code, reason, opened });
        if (created) void this.#end(why);
        else reject(why);
      };
    });
  }

  /** @param {Record<string, any>} session */
  #settle(session) {
    this.#dialect = dialectOf(session);
    this.#set({
      ...this.#options.settings,
      ...(this.#pushToTalk ? { turnDetection: false } : {}),
    });
  }

  /** @param {Settings} settings */
  #set(settings) {
    const update = sessionUpdate(this.#dialect, settings);
    if (update) this.send(update);
  }

  /** @param {ServiceEvent} event */
  #receive(event) {
    const now = performance.now();
    this.#do(this.#turns.receive(event, now, (position) => this.#clock.at(position)));
  }

  /** @param {import('./turns.js').Effect[]} effects */
  #do(effects) {
    for (const effect of effects) {
      switch (effect.do) {
        case 'play':
          this.#play(effect.item, effect.audio);
          break;
        case 'end':
          this.#speaker?.end(effect.item);
          break;
        case 'flush':
          void this.#speaker?.flush().then((positions) => this.#do(this.#turns.flushed(positions)));
          break;
        case 'send':
          this.send(effect.event);
          break;
        case 'phase':
          if (this.#open) this.#become(effect.phase);
          break;
        case 'caption':
          this.emit('caption', effect.caption);
          break;
        case 'latency':
          this.emit('latency', effect.latency);
          break;
        case 'usage':
          this.emit('usage', effect.usage);
          break;
        case 'interrupted':
          this.emit('interrupted', effect.items);
          break;
        case 'notice':
          this.emit('notice', effect.notice);
          break;
      }
    }
  }

  /**
   * @param {string} item
   * @param {string} audio
   */
  #play(item, audio) {
    try {
      this.#speaker?.play(item, audio);
    } catch {
      this.emit('notice', { code: 'audio_damaged', message: 'A piece of the reply was no audio and was left out.' });
    }
  }

  /** @param {Int16Array<ArrayBuffer>} pcm */
  #heard(pcm) {
    const heard = { pcm, at: performance.now() };
    const length = duration(pcm);
    if (!this.#open) {
      this.#keepEarly(heard);
    } else if (this.#pushToTalk) {
      if (this.#pressed && !this.#muted) {
        this.#pressedMilliseconds += length;
        this.#append([heard]);
      }
    } else if (!this.#muted && !(this.#halfDuplex && this.#turns.isPlaying)) {
      this.#silenceLeft = TRAILING_SILENCE_MILLISECONDS;
      this.#append([heard]);
    } else if (this.#silenceLeft > 0) {
      this.#silenceLeft -= length;
      pcm.fill(0);
      this.#append([heard]);
    }
  }

  /**
   * Who has pressed the button speaks, whether the service is ready or not.
   *
   * @param {Heard} heard
   */
  #keepEarly(heard) {
    if (this.state !== 'connecting' || this.#pushToTalk || this.#muted) return;
    this.#early.push(heard);
    if (this.#early.length * duration(heard.pcm) > EARLY_MILLISECONDS_MAX) this.#early.shift();
  }

  /**
   * Sends chunks as one event: relays and services count events.
   *
   * @param {readonly Heard[]} chunks
   */
  #append(chunks) {
    // A network that has stood still for seconds must not be talked at for minutes.
    if (chunks.length === 0 || (this.#socket?.bufferedAmount ?? 0) > WAITING_BYTES_MAX) return;
    const samples = new Int16Array(chunks.reduce((sum, { pcm }) => sum + pcm.length, 0));
    let from = 0;
    for (const { pcm, at } of chunks) {
      samples.set(pcm, from);
      from += pcm.length;
      this.#clock.sent(duration(pcm), at);
    }
    this.send({ type: 'input_audio_buffer.append', audio: toBase64(new Uint8Array(samples.buffer)) });
  }

  /** The microphone went away: the system's choice may be another one. */
  async #lost() {
    const microphone = this.#microphone;
    const found = await took(microphone);
    if (microphone !== this.#microphone) return;
    if (found) {
      const message = 'The microphone was unplugged; another one is used.';
      this.emit('notice', { code: 'microphone_changed', message });
    } else {
      const { code, message } = failure('microphone_lost');
      this.emit('notice', { code, message });
      this.#waitForMicrophone();
    }
  }

  /** Takes the first microphone that is plugged in. */
  #waitForMicrophone() {
    this.#endMicrophoneWait();
    const { mediaDevices } = this.#environment;
    const microphone = this.#microphone;
    const look = async () => {
      if (!(await took(microphone)) || microphone !== this.#microphone) return;
      this.#endMicrophoneWait();
      this.emit('notice', { code: 'microphone_changed', message: 'There is a microphone again.' });
    };
    mediaDevices?.addEventListener('devicechange', look);
    this.#endMicrophoneWait = () => mediaDevices?.removeEventListener('devicechange', look);
  }

  /** @param {string} path */
  #at(path) {
    return new URL(path, this.#options.relay ?? globalThis.location?.href);
  }

  /** @param {number} generation */
  #check(generation) {
    if (generation !== this.#generation) throw failure('session_ended');
  }

  /** @param {State} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.emit('state', state);
  }

  /** @param {TalkFailure | null} why */
  async #end(why) {
    this.#generation += 1;
    this.#open = false;
    this.#pressed = false;
    this.#early = [];
    this.#endMicrophoneWait();
    const { readyState } = this.#socket ?? {};
    const { CONNECTING, OPEN } = this.#environment.WebSocket;
    if (readyState === CONNECTING || readyState === OPEN) this.#socket?.close(1000);
    this.#socket = undefined;
    const [microphone, speaker] = [this.#microphone, this.#speaker];
    this.#microphone = undefined;
    this.#speaker = undefined;
    this.#become('closed');
    this.emit('closed', why);
    await Promise.all([microphone?.close(), speaker?.close()]);
  }
}

/**
 * Whether a microphone could go on with the system's choice.
 *
 * @param {Microphone | undefined} microphone
 */
async function took(microphone) {
  try {
    await microphone?.choose(undefined);
    return microphone !== undefined;
  } catch {
    return false;
  }
}

/**
 * @param {Int16Array} pcm
 * @returns {number} milliseconds
 */
function duration(pcm) {
  return (pcm.length * 1_000) / SAMPLE_RATE;
}

/**
 * Whether an `error` event is what a close is about: the relay names its code as the reason, a
 * service repeats its message or says nothing.
 *
 * @param {Record<string, any>} error
 * @param {string} reason
 */
function closes(error, reason) {
  return reason === '' || reason === error['code'] || String(error['message']).startsWith(reason);
}

/**
 * The browser's own clock of a request; it is written down a moment after the answer was read.
 *
 * @param {string} url
 * @returns {Promise<PerformanceResourceTiming | undefined>}
 */
async function timingOf(url) {
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const found = performance.getEntriesByName(url).at(-1);
    if (found) return /** @type {PerformanceResourceTiming} */ (found);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return undefined;
}

/**
 * @param {unknown} data
 * @returns {ServiceEvent | null}
 */
function parsed(data) {
  if (typeof data !== 'string') return null;
  try {
    const event = JSON.parse(data);
    return typeof event?.type === 'string' ? event : null;
  } catch {
    return null;
  }
}

/** @param {unknown} error */
function asFailure(error) {
  return error instanceof TalkFailure ? error : failure('session_ended', { cause: error });
}
