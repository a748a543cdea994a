/**
 * Runs in the audio thread: plays the queue, and says how far it got.
 */

import { PlaybackQueue } from './playback-queue.js';
import { SAMPLE_RATE, fromPcm16 } from './pcm.js';
import { Resampler } from './resampler.js';

/** From one report of progress to the next. */
const REPORT_SECONDS = 0.05;

/**
 * @typedef {{ kind: 'push', item: string, pcm: Int16Array }
 *   | { kind: 'end', item: string }
 *   | { kind: 'flush', ticket: number }} Order
 */

class PlaybackProcessor extends AudioWorkletProcessor {
  #queue;
  /** @type {Resampler | null} */
  #resampler = null;
  #resampled = '';
  #reportAt = 0;

  /** @param {{ processorOptions?: Record<string, any> }} options */
  constructor(options) {
    super();
    const startSeconds = options.processorOptions?.startSeconds ?? 0.12;
    this.#queue = new PlaybackQueue({
      startSamples: Math.round(startSeconds * sampleRate),
      startSamplesMax: sampleRate,
      fadeSamples: Math.round(0.005 * sampleRate),
      started: (item) => this.port.postMessage({ kind: 'started', item }),
      finished: (position) =>
        this.port.postMessage({ kind: 'finished', ...this.#inSource(position), stats: this.#queue.stats() }),
    });
    this.port.onmessage = ({ data }) => this.#obey(data);
  }

  /** @param {Order} order */
  #obey(order) {
    switch (order.kind) {
      case 'push':
        this.#queue.push(order.item, this.#inRate(order.item, fromPcm16(order.pcm)));
        break;
      case 'end':
        if (this.#resampler && this.#resampled === order.item) {
          this.#queue.push(order.item, this.#resampler.finish());
        }
        this.#queue.end(order.item);
        break;
      case 'flush': {
        this.#resampled = '';
        const positions = this.#queue.flush().map((position) => this.#inSource(position));
        this.port.postMessage({ kind: 'flushed', ticket: order.ticket, positions });
        break;
      }
    }
  }

  /**
   * @param {string} item
   * @param {Float32Array} samples
   */
  #inRate(item, samples) {
    if (sampleRate === SAMPLE_RATE) return samples;
    if (this.#resampled !== item) {
      this.#resampler = new Resampler(SAMPLE_RATE, sampleRate);
      this.#resampled = item;
    }
    return this.#resampler?.push(samples) ?? samples;
  }

  /**
   * A position in samples as they were sent.
   *
   * @param {import('./playback-queue.js').Position} position
   */
  #inSource({ item, played, received }) {
    const scale = SAMPLE_RATE / sampleRate;
    return { item, played: Math.floor(played * scale), received: Math.floor(received * scale) };
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, outputs) {
    const [first, ...others] = outputs[0] ?? [];
    if (!first) return true;
    this.#queue.render(first);
    for (const other of others) other.set(first);
    const position = this.#queue.position();
    if (position && currentTime >= this.#reportAt) {
      this.#reportAt = currentTime + REPORT_SECONDS;
      this.port.postMessage({ kind: 'progress', ...this.#inSource(position), stats: this.#queue.stats() });
    }
    return true;
  }
}

registerProcessor('talkline-playback', PlaybackProcessor);
