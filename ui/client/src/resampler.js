/**
 * Changes the sample rate of a stream: a windowed sinc, one set of weights for each phase.
 *
 * Needed where an audio context cannot run at 24 kHz beside a microphone of another rate, as in
 * Firefox. Going down it also cuts what is above the new rate's Nyquist frequency, which would fold
 * back as noise.
 */

/** Zero crossings of the sinc on each side. */
const CROSSINGS = 16;
/** Where the filter begins to cut, as a part of the lower Nyquist frequency. */
const PASS = 0.94;

export class Resampler {
  #up;
  #down;
  #half;
  #cutoff;
  /** @type {Map<number, Float32Array>} */
  #phases = new Map();
  /** Input that later output still needs. */
  #history;
  /** Position of the next output in the history, in units of 1/up of an input sample. */
  #next = 0;

  /**
   * @param {number} from rate of what is pushed, in Hz
   * @param {number} to rate of what is returned, in Hz
   */
  constructor(from, to) {
    if (!(Number.isInteger(from) && Number.isInteger(to) && from > 0 && to > 0)) {
      throw new RangeError(`sample rates are whole numbers of Hz: ${from}, ${to}`);
    }
    const common = gcd(from, to);
    this.#up = to / common;
    this.#down = from / common;
    const lower = Math.min(1, to / from);
    this.#cutoff = lower === 1 ? PASS : lower * PASS;
    this.#half = Math.ceil(CROSSINGS / lower);
    this.#history = new Float32Array(this.#half - 1);
    this.#next = (this.#half - 1) * this.#up;
  }

  /**
   * @param {Float32Array} input
   * @returns {Float32Array<ArrayBuffer>} all output that the input so far permits; it lags by a
   *   millisecond or less
   */
  push(input) {
    if (this.#up === this.#down) return new Float32Array(input);
    const held = new Float32Array(this.#history.length + input.length);
    held.set(this.#history);
    held.set(input, this.#history.length);

    const last = (held.length - this.#half) * this.#up;
    const count = Math.max(0, Math.ceil((last - this.#next) / this.#down));
    const output = new Float32Array(count);
    for (let index = 0; index < count; index += 1) {
      output[index] = this.#at(held, this.#next);
      this.#next += this.#down;
    }

    const keepFrom = Math.max(0, Math.floor(this.#next / this.#up) - this.#half + 1);
    this.#history = held.slice(keepFrom);
    this.#next -= keepFrom * this.#up;
    return output;
  }

  /**
   * Ends the stream.
   *
   * @returns {Float32Array<ArrayBuffer>} what was held back
   */
  finish() {
    if (this.#up === this.#down) return new Float32Array(0);
    return this.push(new Float32Array(this.#half));
  }

  /**
   * @param {Float32Array} held
   * @param {number} position
   */
  #at(held, position) {
    const phase = position % this.#up;
    const first = (position - phase) / this.#up - this.#half + 1;
    const weights = this.#weights(phase);
    let sum = 0;
    for (let tap = 0; tap < weights.length; tap += 1) {
      sum += (held[first + tap] ?? 0) * (weights[tap] ?? 0);
    }
    return sum;
  }

  /** @param {number} phase */
  #weights(phase) {
    let weights = this.#phases.get(phase);
    if (!weights) {
      weights = sincs(this.#half, phase / this.#up, this.#cutoff);
      this.#phases.set(phase, weights);
    }
    return weights;
  }
}

/**
 * @param {number} half taps on each side
 * @param {number} offset of the output behind the middle, 0 to 1
 * @param {number} cutoff as a part of the input's Nyquist frequency
 */
function sincs(half, offset, cutoff) {
  const weights = new Float32Array(2 * half);
  let sum = 0;
  for (let tap = 0; tap < weights.length; tap += 1) {
    const x = tap - half + 1 - offset;
    const weight = sinc(cutoff * x) * blackman(x / half);
    weights[tap] = weight;
    sum += weight;
  }
  // Every phase passes a constant unchanged; else the phases' differences would be heard as a tone.
  return weights.map((weight) => weight / sum);
}

/** @param {number} x */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** @param {number} x -1 to 1 */
function blackman(x) {
  if (Math.abs(x) >= 1) return 0;
  return 0.42 + 0.5 * Math.cos(Math.PI * x) + 0.08 * Math.cos(2 * Math.PI * x);
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}
