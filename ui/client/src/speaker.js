/**
 * The player: a queue in the audio thread.
 */

import { fromBase64 } from './base64.js';
import { Pcm16Joiner, SAMPLE_RATE } from './pcm.js';
import { failure } from './failure.js';
import { browser } from './environment.js';

const WORKLET = new URL('./playback-worklet.js', import.meta.url);

/**
 * @typedef {import('./playback-queue.js').Position} Position
 * @typedef {import('./playback-queue.js').Stats} Stats
 */

/**
 * @typedef {object} SpeakerOptions
 * @property {string} [deviceId]
 * @property {number} [startMilliseconds] held back before a reply starts, against jitter
 * @property {URL | string} [workletUrl]
 * @property {(item: string) => void} [onstarted]
 * @property {(position: Position) => void} [onfinished]
 * @property {(position: Position) => void} [onprogress]
 * @property {import('./environment.js').Environment} [environment]
 */

export class Speaker {
  #options;
  #environment;
  /** @type {AudioContext | undefined} */
  #context;
  /** @type {AudioWorkletNode | undefined} */
  #node;
  #joiner = new Pcm16Joiner();
  #joining = '';
  #tickets = 0;
  /** @type {Map<number, (positions: Position[]) => void>} */
  #flushes = new Map();
  /** Sees what is played. @type {AnalyserNode | undefined} */
  analyser;
  /** How playing went so far. @type {Stats} */
  stats = { played: 0, gaps: 0, gapSamples: 0 };

  /** @param {SpeakerOptions} options */
  constructor(options) {
    this.#options = options;
    this.#environment = options.environment ?? browser();
  }

  /**
   * Begins to play what is queued. Call it from a click or a key, as browsers want it.
   *
   * @throws {import('./failure.js').TalkFailure}
   */
  async open() {
    // Worklets are for secure pages alone, as microphones are.
    if (!this.#environment.isSecureContext) throw failure('insecure_context');
    try {
      const context = this.#makeContext();
      this.#context = context;
      await context.audioWorklet.addModule(String(this.#options.workletUrl ?? WORKLET));
      const node = new this.#environment.AudioWorkletNode(context, 'talkline-playback', {
        numberOfInputs: 0,
        numberOfOutputs: 1,
        outputChannelCount: [1],
        processorOptions: { startSeconds: (this.#options.startMilliseconds ?? 120) / 1_000 },
      });
      node.port.onmessage = ({ data }) => this.#hear(data);
      this.#node = node;
      this.analyser = context.createAnalyser();
      node.connect(this.analyser);
      node.connect(context.destination);
      if (this.#options.deviceId) await this.choose(this.#options.deviceId);
      await context.resume();
    } catch (error) {
      await this.close();
      throw failure('audio_unavailable', { cause: error });
    }
  }

  #makeContext() {
    const { AudioContext } = this.#environment;
    try {
      return new AudioContext({ sampleRate: SAMPLE_RATE, latencyHint: 'interactive' });
    } catch {
      // The worklet resamples then.
      return new AudioContext({ latencyHint: 'interactive' });
    }
  }

  /** Whether this browser can play on another device than the system's choice. */
  get canChoose() {
    return 'setSinkId' in (this.#environment.AudioContext?.prototype ?? {});
  }

  /**
   * Goes on with another device.
   *
   * @param {string} deviceId empty for the system's choice
   */
  async choose(deviceId) {
    const context = /** @type {AudioContext & { setSinkId?: (id: string) => Promise<void> }} */ (
      this.#context
    );
    await context?.setSinkId?.(deviceId);
  }

  /**
   * Queues audio of an item.
   *
   * @param {string} item
   * @param {string} audio PCM16 at 24 kHz in base64
   * @throws {Error} when it is not base64
   */
  play(item, audio) {
    if (this.#joining !== item) {
      this.#joining = item;
      this.#joiner = new Pcm16Joiner();
    }
    const pcm = this.#joiner.push(fromBase64(audio));
    if (pcm.length > 0) this.#node?.port.postMessage({ kind: 'push', item, pcm }, [pcm.buffer]);
  }

  /**
   * Nothing more comes for an item.
   *
   * @param {string} item
   */
  end(item) {
    this.#node?.port.postMessage({ kind: 'end', item });
  }

  /**
   * Falls silent at once and forgets the queue.
   *
   * @returns {Promise<Position[]>} how far each item got, in samples at 24 kHz
   */
  flush() {
    const node = this.#node;
    if (!node) return Promise.resolve([]);
    this.#tickets += 1;
    const ticket = this.#tickets;
    this.#joining = '';
    return new Promise((resolve) => {
      this.#flushes.set(ticket, resolve);
      node.port.postMessage({ kind: 'flush', ticket });
    });
  }

  /** Ends playing and gives the device back. */
  async close() {
    this.#node?.port.close();
    this.#node = undefined;
    for (const resolve of this.#flushes.values()) resolve([]);
    this.#flushes.clear();
    const context = this.#context;
    this.#context = undefined;
    if (context && context.state !== 'closed') await context.close();
  }

  /** @param {any} report */
  #hear(report) {
    if (report.stats) this.stats = report.stats;
    const { item, played, received } = report;
    switch (report.kind) {
      case 'started':
        this.#options.onstarted?.(item);
        break;
      case 'progress':
        this.#options.onprogress?.({ item, played, received });
        break;
      case 'finished':
        this.#options.onfinished?.({ item, played, received });
        break;
      case 'flushed':
        this.#flushes.get(report.ticket)?.(report.positions);
        this.#flushes.delete(report.ticket);
        break;
    }
  }
}
