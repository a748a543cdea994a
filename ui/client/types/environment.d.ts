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
export type Environment = {
    AudioContext: typeof AudioContext;
    AudioWorkletNode: typeof AudioWorkletNode;
    mediaDevices: Pick<MediaDevices, 'getUserMedia' | 'enumerateDevices' | 'addEventListener' | 'removeEventListener'> | undefined;
    WebSocket: typeof WebSocket;
    fetch: typeof fetch;
    isSecureContext: boolean;
};
/** @returns {Environment} this browser's */
export declare function browser(): Environment;
