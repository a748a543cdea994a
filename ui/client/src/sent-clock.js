/**
 * When each moment of the sent audio was captured.
 *
 * A service counts milliseconds of the audio that it was sent; this finds the time on our own clock.
 */

/** Moments that are remembered: half a minute of 20 ms chunks. */
const MOMENTS_MAX = 1_500;

export class SentClock {
  #sent = 0;
  /** @type {{ end: number, at: number }[]} */
  #moments = [];

  /**
   * @param {number} milliseconds that were sent
   * @param {number} now when the last of them was captured
   */
  sent(milliseconds, now) {
    this.#sent += milliseconds;
    this.#moments.push({ end: this.#sent, at: now });
    if (this.#moments.length > MOMENTS_MAX) this.#moments.shift();
  }

  /**
   * @param {number} position milliseconds from the start of the session
   * @returns {number | null} `null` when that is not known (any more)
   */
  at(position) {
    const moment = this.#moments.find(({ end }) => end >= position);
    const first = this.#moments[0];
    if (!moment || !first || position < first.end - 1_000) return null;
    return moment.at - (moment.end - position);
  }
}
