/** The few things that every module does with the document. */

/**
 * The element with this id, of this class.
 *
 * @template {typeof HTMLElement} Class
 * @param {string} id
 * @param {Class} kind
 * @returns {InstanceType<Class>}
 */
export function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} with id ${id}`);
  return /** @type {InstanceType<Class>} */ (found);
}

/**
 * Makes an element.
 *
 * @param {string} tag
 * @param {string} className
 * @param {(Node | string)[]} children
 */
export function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/**
 * Text whose commands stand between backticks.
 *
 * @param {string} text
 */
export function marked(text) {
  return text.split('`').map((piece, index) => (index % 2 === 0 ? piece : make('code', '', piece)));
}
