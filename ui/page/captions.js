/** Both sides in writing, in the order in which they spoke. */

import { element, make } from './dom.js';

/** @typedef {import('../client/src/session.js').Caption} Caption */

/** Lines that are kept on the page. */
const LINES_MAX = 200;

export class Captions {
  #list = element('captions', HTMLOListElement);
  #scroller = element('scroller', HTMLElement);
  #empty = element('empty', HTMLElement);
  #spoken = element('spoken', HTMLElement);
  /** @type {Map<string, { line: HTMLElement, words: HTMLElement, aside: HTMLElement, said: boolean }>} */
  #lines = new Map();

  /** @param {Caption} caption */
  show(caption) {
    const line = this.#lines.get(caption.item) ?? this.#add(caption);
    const follows = this.#isAtEnd();
    line.words.textContent = caption.text;
    line.aside.textContent = aside(caption);
    if (caption.final && !line.said) {
      line.said = true;
      // Word by word a screen reader would stumble; it is told each line once, when it is whole.
      this.#say(`${who(caption)}: ${caption.text || line.aside.textContent}`);
    }
    if (follows) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** A line across: what follows is another conversation. */
  divide() {
    if (this.#lines.size === 0) return;
    this.#lines.clear();
    this.#list.append(make('li', 'note', 'A new conversation'));
  }

  /** @param {Caption} caption */
  #add(caption) {
    const words = make('span', 'words');
    const about = make('span', 'aside');
    const line = make('li', `caption ${caption.role}`, make('span', 'who', who(caption)), words, about);
    const entry = { line, words, aside: about, said: false };
    this.#lines.set(caption.item, entry);
    this.#list.append(line);
    this.#empty.hidden = true;
    while (this.#list.childElementCount > LINES_MAX) this.#list.firstElementChild?.remove();
    return entry;
  }

  /** @param {string} text */
  #say(text) {
    this.#spoken.append(make('p', '', text));
    while (this.#spoken.childElementCount > 20) this.#spoken.firstElementChild?.remove();
  }

  #isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < 60;
  }
}

/** @param {Caption} caption */
function who({ role }) {
  return role === 'user' ? 'You' : 'Reply';
}

/** @param {Caption} caption */
function aside({ interrupted, failure, text, final, role }) {
  if (failure !== undefined) return 'Your words were heard, but could not be written down.';
  if (interrupted) return 'interrupted';
  if (final && text === '' && role === 'user') return 'no words were made out';
  return '';
}
