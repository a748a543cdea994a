/**
 * When each moment of the sent audio was captured.
 *
 * A service counts milliseconds of the audio that it was sent; this finds the time on our own clock.
 */
export declare class SentClock {
    #private;
    /**
     * @param {number} milliseconds that were sent
     * @param {number} now when the last of them was captured
     */
    sent(milliseconds: number, now: number): void;
    /**
     * @param {number} position milliseconds from the start of the session
     * @returns {number | null} `null` when that is not known (any more)
     */
    at(position: number): number | null;
}
