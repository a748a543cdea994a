/** What went wrong, in a sentence, with what to do and where more is said. */

import { explained } from '../client/src/index.js';
import { DIAGNOSES } from './diagnoses.js';
import { element, marked } from './dom.js';

/** @typedef {import('../client/src/failure.js').TalkFailure} TalkFailure */

/** Where the browser's own errors are explained: errors.html has a part for them. */
const PAGE = 'errors.html';
const EXPLAINED = new Set([...Object.keys(DIAGNOSES), ...explained().map(({ code }) => code)]);

export class Problem {
  #box = element('problem', HTMLElement);
  #summary = element('problem-summary', HTMLElement);
  #step = element('problem-step', HTMLElement);
  #said = element('problem-said', HTMLElement);
  #code = element('problem-code', HTMLElement);
  #link = element('problem-link', HTMLAnchorElement);
  #retry = element('retry', HTMLButtonElement);
  #write = element('write-instead', HTMLButtonElement);

  /** @param {TalkFailure} failure */
  show({ code, summary, nextStep }) {
    const known = DIAGNOSES[code];
    const [what, said] = (summary || known?.summary || 'The conversation ended.').split(/\s*Upstream said:\s*/, 2);
    this.#summary.replaceChildren(...marked(what ?? ''));
    this.#step.replaceChildren(...marked(nextStep || known?.nextStep || ''));
    this.#said.textContent = said ? `The upstream said: ${said}` : '';
    this.#said.hidden = !said;
    this.#code.textContent = code;
    this.#link.href = `${PAGE}#${code}`;
    this.#link.hidden = !EXPLAINED.has(code);
    const microphone = code.startsWith('microphone_');
    this.#write.hidden = !microphone;
    // The page would have to come from elsewhere.
    this.#retry.hidden = code === 'insecure_context';
    this.#retry.textContent = microphone ? 'Try again' : 'Connect again';
    this.#box.hidden = false;
  }

  hide() {
    this.#box.hidden = true;
  }
}
