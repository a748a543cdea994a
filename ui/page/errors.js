/** All codes that a conversation can end with. */

import { explained } from '../client/src/failure.js';
import { DIAGNOSES } from './diagnoses.js';
import { element, make, marked } from './dom.js';

/** Whose fault, in words. */
const BLAME = {
  client: 'the client’s',
  operator: 'the operator’s: the relay’s configuration or the upstream resource',
  azure: 'Azure’s',
  upstream: 'the upstream service’s',
  network: 'the network’s between relay and upstream',
};
const PERMANENCE = {
  permanent: 'It stays until somebody changes something.',
  throttled: 'It passes when a limit allows it.',
  transient: 'It may pass by itself.',
};

const holder = element('codes', HTMLElement);
const search = element('search', HTMLInputElement);

/** @type {Map<string, HTMLElement[]>} */
const sections = new Map();

/**
 * @param {string} section
 * @param {string} code
 * @param {string} summary
 * @param {[string, string][]} rest
 */
function add(section, code, summary, rest) {
  const link = /** @type {HTMLAnchorElement} */ (make('a', '', code));
  link.href = `#${code}`;
  const paragraphs = rest.map(([name, text]) => make('p', '', make('strong', '', `${name}: `), ...marked(text)));
  const article = make('article', 'card', make('h3', '', link), make('p', '', ...marked(summary)), ...paragraphs);
  article.id = code;
  const articles = sections.get(section) ?? [];
  sections.set(section, [...articles, article]);
}

for (const { code, summary, nextStep } of explained()) {
  if (!(code in DIAGNOSES)) add('In the browser', code, summary, [['What to do', nextStep]]);
}
for (const [code, { section, blame, permanence, summary, confirm, nextStep }] of Object.entries(DIAGNOSES)) {
  add(section, code, summary, [
    ['Whose fault', `${BLAME[blame]}. ${PERMANENCE[permanence]}`],
    ['How to confirm', confirm],
    ['What to do', nextStep],
  ]);
}
for (const [title, articles] of sections) holder.append(make('section', '', make('h2', '', title), ...articles));

search.addEventListener('input', () => {
  const wanted = search.value.trim().toLowerCase();
  for (const section of holder.children) {
    let shown = 0;
    for (const article of section.querySelectorAll('article')) {
      article.hidden = !(article.textContent ?? '').toLowerCase().includes(wanted);
      if (!article.hidden) shown += 1;
    }
    /** @type {HTMLElement} */ (section).hidden = shown === 0;
  }
});

// The articles were not there when the browser looked for the anchor.
const asked = document.getElementById(location.hash.slice(1));
if (asked) {
  location.replace(location.hash);
  asked.scrollIntoView();
}
