/**
 * The microphone: 24 kHz chunks whatever the device and the browser.
 */

import { SAMPLE_RATE } from './pcm.js';
import { failure, microphoneFailure } from './failure.js';
import { browser } from './environment.js';

/** Where the worklet is unless told otherwise: beside this file. */
const WORKLET = new URL('./capture-worklet.js', import.meta.url);

/**
 * @typedef {object} MicrophoneOptions
 * @property {string} [deviceId] of `enumerateDevices`; else the system's choice
 * @property {number} [chunkMilliseconds] 20 to 40
 * @property {URL | string} [workletUrl]
 * @property {(pcm: Int16Array<ArrayBuffer>, level: number) => void} onchunk
 * @property {() => void} [onlost] the device went away
 * @property {import('./environment.js').Environment} [environment]
 */

export class Microphone {
  #options;
  #environment;
  /** @type {AudioContext | undefined} */
  #context;
  /** @type {AudioWorkletNode | undefined} */
  #node;
  /** @type {MediaStream | undefined} */
  #stream;
  /** @type {MediaStreamAudioSourceNode | undefined} */
  #source;
  /** Sees what the microphone hears. @type {AnalyserNode | undefined} */
  analyser;

  /** @param {MicrophoneOptions} options */
  constructor(options) {
    this.#options = options;
    this.#environment = options.environment ?? browser();
  }

  /**
   * Asks for the microphone and begins to listen. Call it from a click or a key, as browsers want it.
   *
   * @throws {import('./failure.js').TalkFailure}
   */
  async open() {
    if (!this.#environment.isSecureContext || !this.#environment.mediaDevices) {
      throw failure('insecure_context');
    }
    try {
      this.#stream = await this.#ask(this.#options.deviceId);
      await this.#listen(this.#stream);
    } catch (error) {
      await this.close();
      throw microphoneFailure(error);
    }
  }

  /**
   * Goes on with another device.
   *
   * @param {string | undefined} deviceId
   * @throws {import('./failure.js').TalkFailure} the old device is kept then
   */
  async choose(deviceId) {
    try {
      const stream = await this.#ask(deviceId);
      // It may have been closed while the browser asked.
      if (!this.#context) return stop(stream);
      const old = this.#stream;
      this.#stream = stream;
      this.#connect(stream);
      stop(old);
    } catch (error) {
      throw microphoneFailure(error);
    }
  }

  /** Rate at which the audio thread runs, in Hz. */
  get rate() {
    return this.#context?.sampleRate ?? 0;
  }

  /** Id of the device in use, as far as the browser tells. */
  get deviceId() {
    return this.#stream?.getAudioTracks()[0]?.getSettings().deviceId;
  }

  /** Ends listening and gives the device back. */
  async close() {
    stop(this.#stream);
    this.#stream = undefined;
    this.#node?.port.close();
    const context = this.#context;
    this.#context = undefined;
    if (context && context.state !== 'closed') await context.close();
  }

  /** @param {string | undefined} deviceId */
  #ask(deviceId) {
    const { mediaDevices } = this.#environment;
    if (!mediaDevices) throw failure('insecure_context');
    return mediaDevices.getUserMedia({
      audio: {
        channelCount: 1,
        echoCancellation: true,
        noiseSuppression: true,
        autoGainControl: true,
        ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
      },
    });
  }

  /**
   * Chromium and Safari resample a microphone to the context's rate. Firefox refuses a context of
   * another rate than the device's, so there the worklet resamples.
   *
   * @param {MediaStream} stream
   */
  async #listen(stream) {
    try {
      await this.#start(new this.#environment.AudioContext({ sampleRate: SAMPLE_RATE }), stream);
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'NotSupportedError') throw error;
      await this.#context?.close();
      await this.#start(new this.#environment.AudioContext(), stream);
    }
  }

  /**
   * @param {AudioContext} context
   * @param {MediaStream} stream
   */
  async #start(context, stream) {
    this.#context = context;
    this.#connect(stream);
    await context.audioWorklet.addModule(String(this.#options.workletUrl ?? WORKLET)).catch((error) => {
      // It has the name of a device's failure.
      throw failure('audio_unavailable', { cause: error });
    });
    const node = new this.#environment.AudioWorkletNode(context, 'talkline-capture', {
      numberOfInputs: 1,
      numberOfOutputs: 1,
      processorOptions: { chunkMilliseconds: this.#options.chunkMilliseconds },
    });
    node.port.onmessage = ({ data }) => this.#options.onchunk(data.pcm, data.level);
    this.#node = node;
    this.#source?.connect(node);
    // A node that leads nowhere is not run by every browser. It puts out silence.
    node.connect(context.destination);
    await context.resume();
  }

  /** @param {MediaStream} stream */
  #connect(stream) {
    const context = this.#context;
    if (!context) return;
    const source = context.createMediaStreamSource(stream);
    this.#source?.disconnect();
    this.#source = source;
    this.analyser ??= context.createAnalyser();
    if (this.analyser.context !== context) this.analyser = context.createAnalyser();
    source.connect(this.analyser);
    if (this.#node) source.connect(this.#node);
    for (const track of stream.getAudioTracks()) {
      track.addEventListener('ended', () => {
        if (this.#stream === stream) this.#options.onlost?.();
      });
    }
  }
}

/** @param {MediaStream | undefined} stream */
function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
