/**
 * Base64 by the browser, where it does that by itself.
 */
/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export declare function toBase64(bytes: Uint8Array): string;
/**
 * For browsers without `Uint8Array.prototype.toBase64`.
 *
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export declare function toBase64Slowly(bytes: Uint8Array): string;
/**
 * @param {string} text
 * @returns {Uint8Array}
 * @throws {Error} when the text is not base64
 */
export declare function fromBase64(text: string): Uint8Array;
/**
 * For browsers without `Uint8Array.fromBase64`.
 *
 * @param {string} text
 * @returns {Uint8Array}
 */
export declare function fromBase64Slowly(text: string): Uint8Array;
