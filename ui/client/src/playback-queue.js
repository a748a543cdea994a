/**
 * What is still to be played, sample by sample, and exactly how much has been.
 *
 * Replies come faster than they are spoken, so the queue has no limit: a limit would cut long
 * replies short. It is filled item by item; an item is what the service can truncate.
 */

/**
 * @typedef {object} Position
 * @property {string} item
 * @property {number} played samples
 * @property {number} received samples
 */

/**
 * @typedef {object} Stats
 * @property {number} played samples of all items
 * @property {number} gaps times that an item ran dry before its end
 * @property {number} gapSamples silence in the midst of items
 */

/**
 * @typedef {object} Options
 * @property {number} startSamples of time for which an item is held back before it starts, against
 *   jitter; less when more than that and one piece is there at once
 * @property {number} [startSamplesMax] to which that grows when items run dry all the same
 * @property {number} [fadeSamples] in which a flush dies away; a hard cut clicks
 * @property {(item: string) => void} [started]
 * @property {(position: Position) => void} [finished]
 */

/** One item's audio. */
class Segment {
  /** @type {Float32Array[]} */
  blocks = [];
  /** Where in the first block the next sample is. */
  offset = 0;
  received = 0;
  played = 0;
  ended = false;
  /** The longest piece so far. Pieces that come just in time are late by up to their own length. */
  longest = 0;
  /** Silence played since there was something to wait with. */
  held = 0;
  /** Silence played since it ran dry. */
  dry = 0;

  /** @param {string} item */
  constructor(item) {
    this.item = item;
  }

  get waiting() {
    return this.received - this.played;
  }

  /**
   * @param {Float32Array} output
   * @param {number} from
   * @returns {number} where the output is filled to
   */
  copy(output, from) {
    let at = from;
    let done = 0;
    for (const block of this.blocks) {
      const piece = block.subarray(this.offset, this.offset + output.length - at);
      output.set(piece, at);
      at += piece.length;
      this.offset += piece.length;
      if (this.offset < block.length) break;
      this.offset = 0;
      done += 1;
    }
    if (done > 0) this.blocks.splice(0, done);
    this.played += at - from;
    return at;
  }

  /** @returns {Position} */
  position() {
    return { item: this.item, played: this.played, received: this.received };
  }
}

export class PlaybackQueue {
  /** @type {Segment[]} */
  #segments = [];
  #start;
  #startMax;
  #fade;
  /** The end of what was flushed. */
  #tail = new Float32Array(0);
  #started;
  #finished;
  /** Whether the first item is held back until there is enough of it. */
  #holding = true;
  /** @type {Stats} */
  #stats = { played: 0, gaps: 0, gapSamples: 0 };

  /** @param {Options} options */
  constructor({ startSamples, startSamplesMax = startSamples * 8, fadeSamples = 0, started, finished }) {
    this.#start = startSamples;
    this.#startMax = startSamplesMax;
    this.#fade = fadeSamples;
    this.#started = started;
    this.#finished = finished;
  }

  /**
   * @param {string} item
   * @param {Float32Array} samples kept, not copied
   */
  push(item, samples) {
    if (samples.length === 0) return;
    let segment = this.#segments.at(-1);
    if (segment?.item !== item) {
      // An item that another one follows gets no more.
      if (segment) segment.ended = true;
      segment = new Segment(item);
      this.#segments.push(segment);
    }
    if (segment.dry > 0 && segment.waiting === 0) {
      this.#stats.gaps += 1;
      this.#start = Math.min(this.#start * 2, this.#startMax);
    }
    segment.blocks.push(samples);
    segment.received += samples.length;
    segment.longest = Math.max(segment.longest, samples.length);
  }

  /**
   * Nothing more comes for an item.
   *
   * @param {string} item
   */
  end(item) {
    for (const segment of this.#segments) {
      if (segment.item === item) segment.ended = true;
    }
  }

  /**
   * Forgets what has not been played.
   *
   * @returns {Position[]} how far each unfinished item got
   */
  flush() {
    const [first] = this.#segments;
    if (first && first.played > 0 && !this.#holding) {
      const tail = new Float32Array(Math.min(this.#fade, first.waiting));
      first.copy(tail, 0);
      // Dying away, they are still heard, so they count.
      this.#tail = tail.map((sample, index) => sample * (1 - (index + 1) / tail.length));
    }
    const positions = this.#segments.map((segment) => segment.position());
    this.#segments = [];
    this.#holding = true;
    return positions;
  }

  /**
   * Fills `output`, with silence where there is nothing to play.
   *
   * @param {Float32Array} output
   */
  render(output) {
    let at = this.#renderTail(output);
    while (at < output.length) {
      const [segment] = this.#segments;
      if (!segment) {
        this.#holding = true;
        break;
      }
      if (!this.#mayPlay(segment)) {
        this.#holding = true;
        const rest = output.length - at;
        if (segment.waiting > 0) segment.held += rest;
        if (segment.played > 0) segment.dry += rest;
        break;
      }
      this.#holding = false;
      segment.held = 0;
      if (!segment.ended || segment.waiting > 0) this.#stats.gapSamples += segment.dry;
      segment.dry = 0;
      if (segment.played === 0 && segment.waiting > 0) this.#started?.(segment.item);
      at = segment.copy(output, at);
      if (segment.waiting > 0) continue;
      if (segment.ended) {
        this.#segments.shift();
        this.#stats.played += segment.played;
        this.#finished?.(segment.position());
      }
    }
    output.fill(0, at);
  }

  /** @param {Segment} segment the first */
  #mayPlay(segment) {
    if (segment.ended) return true;
    if (segment.waiting === 0) return false;
    if (!this.#holding) return true;
    return segment.held >= this.#start || segment.waiting >= this.#start + segment.longest;
  }

  /** @param {Float32Array} output */
  #renderTail(output) {
    const piece = this.#tail.subarray(0, output.length);
    output.set(piece);
    this.#tail = this.#tail.subarray(piece.length);
    return piece.length;
  }

  /** @returns {Position | null} of the item that is being played */
  position() {
    return this.#segments[0]?.position() ?? null;
  }

  /** @returns {Stats} */
  stats() {
    const current = this.#segments[0]?.played ?? 0;
    return { ...this.#stats, played: this.#stats.played + current };
  }
}
