/**
 * What is used of a browser, so that tests can give something else.
 *
 * @typedef {object} Environment
 * @property {typeof AudioContext} AudioContext
 * @property {typeof AudioWorkletNode} AudioWorkletNode
 * @property {Pick<MediaDevices, 'getUserMedia' | 'enumerateDevices' | 'addEventListener' | 'removeEventListener'> | undefined} mediaDevices
 * @property {typeof WebSocket} WebSocket
 * @property {typeof fetch} fetch
 * @property {boolean} isSecureContext
 */

/** @returns {Environment} this browser's */
export function browser() {
  return {
    AudioContext: globalThis.AudioContext,
    AudioWorkletNode: globalThis.AudioWorkletNode,
    mediaDevices: globalThis.navigator?.mediaDevices,
    WebSocket: globalThis.WebSocket,
    fetch: globalThis.fetch?.bind(globalThis),
    isSecureContext: globalThis.isSecureContext,
  };
}
