/**
 * PCM16 as Realtime services speak it: 24 kHz, mono, little-endian.
 *
 * Typed arrays have the machine's byte order, which is little-endian wherever browsers run.
 */

/** Samples in a second of Realtime audio. */
export const SAMPLE_RATE = 24_000;

/**
 * @param {Float32Array} samples from -1 to 1; what is beyond is clipped
 * @returns {Int16Array<ArrayBuffer>}
 */
export function toPcm16(samples) {
  const pcm = new Int16Array(samples.length);
  for (let index = 0; index < samples.length; index += 1) {
    const scaled = Math.round((samples[index] ?? 0) * 32_768);
    pcm[index] = Math.max(-32_768, Math.min(32_767, scaled));
  }
  return pcm;
}

/**
 * @param {Int16Array} pcm
 * @returns {Float32Array<ArrayBuffer>}
 */
export function fromPcm16(pcm) {
  const samples = new Float32Array(pcm.length);
  for (let index = 0; index < pcm.length; index += 1) {
    samples[index] = (pcm[index] ?? 0) / 32_768;
  }
  return samples;
}

/**
 * Joins pieces of PCM16 that may be cut anywhere, even in the middle of a sample.
 */
export class Pcm16Joiner {
  /** @type {number | null} */
  #half = null;

  /**
   * @param {Uint8Array} bytes
   * @returns {Int16Array<ArrayBuffer>} the whole samples there are so far
   */
  push(bytes) {
    const carried = this.#half === null ? 0 : 1;
    const whole = (bytes.length + carried) & ~1;
    const joined = new Uint8Array(whole);
    if (this.#half !== null && whole > 0) joined[0] = this.#half;
    joined.set(bytes.subarray(0, whole - (whole > 0 ? carried : 0)), whole > 0 ? carried : 0);
    if (whole > 0 || carried === 0) {
      const rest = bytes.length + carried - whole;
      this.#half = rest === 1 ? (bytes[bytes.length - 1] ?? null) : null;
    }
    return new Int16Array(joined.buffer);
  }
}

/**
 * Whole milliseconds in a number of samples, rounded down: a service refuses to truncate behind the
 * end of what it sent.
 *
 * @param {number} samples
 * @param {number} [rate]
 * @returns {number}
 */
export function milliseconds(samples, rate = SAMPLE_RATE) {
  return Math.floor((samples * 1_000) / rate);
}
