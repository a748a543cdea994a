/**
 * Cuts a microphone's stream in chunks of Realtime audio.
 */
/** Length of a chunk unless told otherwise. */
export declare const CHUNK_MILLISECONDS = 20;
export type Chunk = {
    /**
     * 24 kHz, mono
     */
    pcm: Int16Array<ArrayBuffer>;
    /**
     * root mean square, full scale being 1
     */
    level: number;
};
/**
 * @typedef {object} Chunk
 * @property {Int16Array<ArrayBuffer>} pcm 24 kHz, mono
 * @property {number} level root mean square, full scale being 1
 */
export declare class Chunker {
    #private;
    /**
     * @param {object} options
     * @param {number} options.rate of the stream, in Hz
     * @param {number} [options.chunkMilliseconds] 20 to 40 is what services advise
     * @param {(chunk: Chunk) => void} options.emit
     */
    constructor({ rate, chunkMilliseconds, emit }: {
        rate: number;
        chunkMilliseconds?: number;
        emit: (chunk: Chunk) => void;
    });
    /**
     * @param {readonly Float32Array[]} channels of equal length; they are mixed
     */
    push(channels: readonly Float32Array[]): void;
}
/** @param {Float32Array} samples */
export declare function rms(samples: Float32Array): number;
