/**
 * Changes the sample rate of a stream: a windowed sinc, one set of weights for each phase.
 *
 * Needed where an audio context cannot run at 24 kHz beside a microphone of another rate, as in
 * Firefox. Going down it also cuts what is above the new rate's Nyquist frequency, which would fold
 * back as noise.
 */
export declare class Resampler {
    #private;
    /**
     * @param {number} from rate of what is pushed, in Hz
     * @param {number} to rate of what is returned, in Hz
     */
    constructor(from: number, to: number);
    /**
     * @param {Float32Array} input
     * @returns {Float32Array<ArrayBuffer>} all output that the input so far permits; it lags by a
     *   millisecond or less
     */
    push(input: Float32Array): Float32Array<ArrayBuffer>;
    /**
     * Ends the stream.
     *
     * @returns {Float32Array<ArrayBuffer>} what was held back
     */
    finish(): Float32Array<ArrayBuffer>;
}
