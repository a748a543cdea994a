/**
 * Cuts a microphone's stream in chunks of Realtime audio.
 */

import { SAMPLE_RATE, toPcm16 } from './pcm.js';
import { Resampler } from './resampler.js';

/** Length of a chunk unless told otherwise. */
export const CHUNK_MILLISECONDS = 20;

/**
 * @typedef {object} Chunk
 * @property {Int16Array<ArrayBuffer>} pcm 24 kHz, mono
 * @property {number} level root mean square, full scale being 1
 */

export class Chunker {
  #resampler;
  #chunk;
  #filled = 0;
  #emit;

  /**
   * @param {object} options
   * @param {number} options.rate of the stream, in Hz
   * @param {number} [options.chunkMilliseconds] 20 to 40 is what services advise
   * @param {(chunk: Chunk) => void} options.emit
   */
  constructor({ rate, chunkMilliseconds = CHUNK_MILLISECONDS, emit }) {
    this.#resampler = new Resampler(Math.round(rate), SAMPLE_RATE);
    this.#chunk = new Float32Array(Math.round((SAMPLE_RATE * chunkMilliseconds) / 1_000));
    this.#emit = emit;
  }

  /**
   * @param {readonly Float32Array[]} channels of equal length; they are mixed
   */
  push(channels) {
    const samples = this.#resampler.push(mixed(channels));
    let from = 0;
    while (from < samples.length) {
      const room = this.#chunk.length - this.#filled;
      const piece = samples.subarray(from, from + room);
      this.#chunk.set(piece, this.#filled);
      this.#filled += piece.length;
      from += piece.length;
      if (this.#filled === this.#chunk.length) {
        this.#filled = 0;
        this.#emit({ pcm: toPcm16(this.#chunk), level: rms(this.#chunk) });
      }
    }
  }
}

/** @param {readonly Float32Array[]} channels */
function mixed(channels) {
  const [first, ...others] = channels;
  if (!first) return new Float32Array(0);
  if (others.length === 0) return first;
  return first.map(
    (sample, index) =>
      others.reduce((sum, other) => sum + (other[index] ?? 0), sample) / channels.length,
  );
}

/** @param {Float32Array} samples */
export function rms(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length));
}
