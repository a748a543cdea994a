/** All that crosses the socket, within bounds, to be searched, opened and copied. */

import { element, make } from './dom.js';

/** @typedef {import('../client/src/session.js').ServiceEvent} ServiceEvent */

/** Events that are kept; audio counts once for a run of it. */
const EVENTS_MAX = 500;
/** Characters of a text in an event that are kept: audio is long and says nothing. */
const TEXT_MAX = 400;
/** Events that come by the dozen in a second, and are counted on one line. */
const STREAMED = new Set([
  'input_audio_buffer.append',
  'response.output_audio.delta',
  'response.audio.delta',
]);

/**
 * @typedef {object} Entry
 * @property {number} at milliseconds from the start of the page
 * @property {boolean} sent
 * @property {string} type
 * @property {string} json
 * @property {number} size characters on the wire
 * @property {number} count
 * @property {HTMLElement} row
 * @property {HTMLElement} sizeCell
 */

export class EventLog {
  #list = element('events', HTMLOListElement);
  #count = element('log-count', HTMLElement);
  #search = element('search', HTMLInputElement);
  /** @type {Entry[]} */
  #entries = [];
  #total = 0;

  constructor() {
    this.#search.addEventListener('input', () => this.#filter());
    const copy = element('copy-log', HTMLButtonElement);
    copy.addEventListener('click', () => void copyText(copy, this.#text()));
    element('clear-log', HTMLButtonElement).addEventListener('click', () => this.#clear());
  }

  /** @param {{ sent: boolean, event: ServiceEvent }} crossing */
  add({ sent, event }) {
    this.#total += 1;
    const json = JSON.stringify(event, shortened);
    const size = JSON.stringify(event).length;
    const last = this.#entries.at(-1);
    if (last && last.type === event.type && last.sent === sent && STREAMED.has(event.type)) {
      last.count += 1;
      last.size += size;
      last.json = json;
      last.sizeCell.textContent = `× ${last.count}`;
    } else {
      this.#append({ at: performance.now(), sent, type: event.type, json, size, count: 1 });
    }
    this.#count.textContent = `${this.#total} so far; the last ${EVENTS_MAX} are kept, audio shortened`;
  }

  /** @param {Omit<Entry, 'row' | 'sizeCell'>} fields */
  #append(fields) {
    const sizeCell = make('span', 'size', `${fields.size} B`);
    const way = make('span', 'way', fields.sent ? '↑' : '↓');
    way.setAttribute('role', 'img');
    way.setAttribute('aria-label', fields.sent ? 'sent' : 'received');
    const summary = make(
      'summary',
      '',
      make('span', 'at', `${(fields.at / 1_000).toFixed(2)} s`),
      way,
      make('span', 'type', fields.type),
      sizeCell,
    );
    const details = make('details', '', summary);
    const kind = fields.type === 'error' ? ' error' : '';
    const row = make('li', `event ${fields.sent ? 'sent' : 'received'}${kind}`, details);
    /** @type {Entry} */
    const entry = { ...fields, row, sizeCell };
    // Written out only when somebody looks.
    details.addEventListener('toggle', () => this.#open(details, entry));
    row.hidden = !matches(entry, this.#search.value);
    this.#entries.push(entry);
    this.#list.prepend(row);
    if (this.#entries.length > EVENTS_MAX) this.#entries.shift()?.row.remove();
  }

  /**
   * @param {HTMLElement} details
   * @param {Entry} entry
   */
  #open(details, entry) {
    details.querySelector('.body')?.remove();
    if (!(/** @type {HTMLDetailsElement} */ (details).open)) return;
    const copy = make('button', '', 'Copy');
    const pretty = JSON.stringify(JSON.parse(entry.json), null, 2);
    copy.addEventListener('click', () => void copyText(copy, pretty));
    details.append(make('div', 'body', make('pre', '', pretty), copy));
  }

  #filter() {
    for (const entry of this.#entries) entry.row.hidden = !matches(entry, this.#search.value);
  }

  #clear() {
    this.#entries = [];
    this.#list.replaceChildren();
    this.#count.textContent = `${this.#total} so far, cleared`;
  }

  #text() {
    return this.#entries
      .filter((entry) => matches(entry, this.#search.value))
      .map(({ at, sent, json, count }) => `{"at":${Math.round(at)},"sent":${sent},"count":${count},"event":${json}}`)
      .join('\n');
  }
}

/**
 * @param {{ type: string, json: string }} entry
 * @param {string} wanted
 */
function matches({ json }, wanted) {
  return json.toLowerCase().includes(wanted.trim().toLowerCase());
}

/**
 * @param {string} _key
 * @param {unknown} value
 */
function shortened(_key, value) {
  if (typeof value !== 'string' || value.length <= TEXT_MAX) return value;
  return `${value.slice(0, 60)}… (${value.length} characters)`;
}

/**
 * @param {HTMLElement} button
 * @param {string} text
 */
async function copyText(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Not allowed';
  }
  setTimeout(() => {
    button.textContent = label;
  }, 1_200);
}
