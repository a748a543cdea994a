/**
 * PCM16 as Realtime services speak it: 24 kHz, mono, little-endian.
 *
 * Typed arrays have the machine's byte order, which is little-endian wherever browsers run.
 */
/** Samples in a second of Realtime audio. */
export declare const SAMPLE_RATE = 24000;
/**
 * @param {Float32Array} samples from -1 to 1; what is beyond is clipped
 * @returns {Int16Array<ArrayBuffer>}
 */
export declare function toPcm16(samples: Float32Array): Int16Array<ArrayBuffer>;
/**
 * @param {Int16Array} pcm
 * @returns {Float32Array<ArrayBuffer>}
 */
export declare function fromPcm16(pcm: Int16Array): Float32Array<ArrayBuffer>;
/**
 * Joins pieces of PCM16 that may be cut anywhere, even in the middle of a sample.
 */
export declare class Pcm16Joiner {
    #private;
    /**
     * @param {Uint8Array} bytes
     * @returns {Int16Array<ArrayBuffer>} the whole samples there are so far
     */
    push(bytes: Uint8Array): Int16Array<ArrayBuffer>;
}
/**
 * Whole milliseconds in a number of samples, rounded down: a service refuses to truncate behind the
 * end of what it sent.
 *
 * @param {number} samples
 * @param {number} [rate]
 * @returns {number}
 */
export declare function milliseconds(samples: number, rate?: number): number;
