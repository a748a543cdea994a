/** Latencies, playback, tokens and what they cost. */

import { element, make } from './dom.js';

/**
 * @typedef {import('../client/src/session.js').Usage} Usage
 * @typedef {import('../client/src/session.js').Latency} Latency
 * @typedef {import('../client/src/playback-queue.js').Stats} Stats
 * @typedef {import('../client/src/turns.js').TokenCount} TokenCount
 */

/**
 * Prices for a million tokens, as the relay gives them.
 *
 * @typedef {object} Prices
 * @property {string} [currency]
 * @property {Partial<TokenCount>} [input]
 * @property {Partial<TokenCount>} [cached]
 * @property {Partial<TokenCount>} [output]
 */

const KINDS = /** @type {const} */ (['text', 'audio', 'image']);
const ROWS = /** @type {const} */ ([
  ['input', 'Input'],
  ['cached', 'of it cached'],
  ['output', 'Output'],
]);

export class Figures {
  #speech = element('speech-latency', HTMLElement);
  #speechNote = element('speech-latency-note', HTMLElement);
  #turn = element('turn-latency', HTMLElement);
  #relay = element('relay-latency', HTMLElement);
  #connect = element('connect-time', HTMLElement);
  #played = element('played', HTMLElement);
  #gaps = element('gaps', HTMLElement);
  #tokens = element('tokens', HTMLTableSectionElement);
  #cost = element('cost', HTMLElement);
  /** @type {Prices | null} */
  #prices = null;
  /** @type {number[]} */
  #turns = [];
  /** @type {Usage} */
  #sum = none();

  constructor() {
    this.#show();
  }

  /**
   * Another conversation begins.
   *
   * @param {unknown} prices
   */
  begin(prices) {
    this.#prices = /** @type {Prices | null} */ (prices && typeof prices === 'object' ? prices : null);
    this.#sum = none();
    this.#turns = [];
    this.#show();
  }

  /** @param {number} time */
  connected(time) {
    this.#connect.textContent = milliseconds(time);
  }

  /** @param {number | null} time */
  relay(time) {
    this.#relay.textContent = time === null ? '–' : milliseconds(time);
  }

  /** @param {Latency} latency */
  turn({ turnEnd, speechEnd }) {
    const shown = speechEnd ?? turnEnd;
    this.#turns.push(shown);
    this.#speech.textContent = milliseconds(shown);
    this.#turn.textContent = milliseconds(turnEnd);
    const sorted = [...this.#turns].sort((one, other) => one - other);
    const median = sorted[Math.floor((sorted.length - 1) / 2)] ?? shown;
    this.#speechNote.textContent =
      this.#turns.length > 1 ? `median of ${this.#turns.length} turns: ${milliseconds(median)}` : 'of the last turn';
  }

  /** @param {Stats} stats */
  playback({ played, gaps, gapSamples }) {
    this.#played.textContent = played === 0 ? '–' : `${(played / 24_000).toFixed(1)} s`;
    this.#gaps.textContent = gaps === 0 ? 'no gaps' : `${gaps} gaps, ${Math.round(gapSamples / 24)} ms`;
  }

  /** @param {Usage} usage of one response */
  use(usage) {
    for (const [row] of ROWS) for (const kind of KINDS) this.#sum[row][kind] += usage[row][kind];
    this.#show();
  }

  #show() {
    const sum = this.#sum;
    this.#tokens.replaceChildren(
      ...ROWS.map(([row, name]) => {
        const head = make('th', '', name);
        head.setAttribute('scope', 'row');
        const cells = KINDS.map((kind) => make('td', '', sum[row][kind].toLocaleString('en')));
        return make('tr', '', head, ...cells);
      }),
    );
    const cost = costOf(sum, this.#prices);
    this.#cost.hidden = cost === null;
    if (cost !== null) this.#cost.textContent = `Cost by the relay’s price list: ${cost}`;
  }
}

/** @returns {Usage} */
function none() {
  const zero = () => ({ text: 0, audio: 0, image: 0 });
  return { input: zero(), cached: zero(), output: zero() };
}

/**
 * @param {Usage} sum
 * @param {Prices | null} prices
 * @returns {string | null} `null` when a price is missing for what was used
 */
export function costOf(sum, prices) {
  if (!prices) return null;
  let cost = 0;
  for (const kind of KINDS) {
    const fresh = sum.input[kind] - sum.cached[kind];
    const parts = /** @type {const} */ ([
      [fresh, prices.input?.[kind]],
      [sum.cached[kind], prices.cached?.[kind] ?? prices.input?.[kind]],
      [sum.output[kind], prices.output?.[kind]],
    ]);
    for (const [tokens, price] of parts) {
      if (tokens === 0) continue;
      if (typeof price !== 'number') return null;
      cost += (tokens * price) / 1_000_000;
    }
  }
  return `${prices.currency ?? 'USD'} ${cost.toFixed(4)}`;
}

/** @param {number} time */
function milliseconds(time) {
  return time < 10 ? `${time.toFixed(1)} ms` : `${Math.round(time)} ms`;
}
