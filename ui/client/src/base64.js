/**
 * Base64 by the browser, where it does that by itself.
 */

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function toBase64(bytes) {
  const native = /** @type {{ toBase64?: () => string }} */ (bytes).toBase64;
  return native ? native.call(bytes) : toBase64Slowly(bytes);
}

/**
 * For browsers without `Uint8Array.prototype.toBase64`.
 *
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function toBase64Slowly(bytes) {
  // An argument list has a limit, of which engines say nothing; this is far below all of them.
  const step = 8_192;
  let text = '';
  for (let from = 0; from < bytes.length; from += step) {
    text += String.fromCharCode(...bytes.subarray(from, from + step));
  }
  return btoa(text);
}

/**
 * @param {string} text
 * @returns {Uint8Array}
 * @throws {Error} when the text is not base64
 */
export function fromBase64(text) {
  const native = /** @type {{ fromBase64?: (text: string) => Uint8Array }} */ (
    /** @type {unknown} */ (Uint8Array)
  ).fromBase64;
  return native ? native.call(Uint8Array, text) : fromBase64Slowly(text);
}

/**
 * For browsers without `Uint8Array.fromBase64`.
 *
 * @param {string} text
 * @returns {Uint8Array}
 */
export function fromBase64Slowly(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index);
  return bytes;
}
