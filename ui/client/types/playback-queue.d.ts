/**
 * What is still to be played, sample by sample, and exactly how much has been.
 *
 * Replies come faster than they are spoken, so the queue has no limit: a limit would cut long
 * replies short. It is filled item by item; an item is what the service can truncate.
 */
export type Position = {
    item: string;
    /**
     * samples
     */
    played: number;
    /**
     * samples
     */
    received: number;
};
export type Stats = {
    /**
     * samples of all items
     */
    played: number;
    /**
     * times that an item ran dry before its end
     */
    gaps: number;
    /**
     * silence in the midst of items
     */
    gapSamples: number;
};
export type Options = {
    /**
     * of time for which an item is held back before it starts, against
     * jitter; less when more than that and one piece is there at once
     */
    startSamples: number;
    /**
     * to which that grows when items run dry all the same
     */
    startSamplesMax?: number;
    /**
     * in which a flush dies away; a hard cut clicks
     */
    fadeSamples?: number;
    started?: (item: string) => void;
    finished?: (position: Position) => void;
};
export declare class PlaybackQueue {
    #private;
    /** @param {Options} options */
    constructor({ startSamples, startSamplesMax, fadeSamples, started, finished }: Options);
    /**
     * @param {string} item
     * @param {Float32Array} samples kept, not copied
     */
    push(item: string, samples: Float32Array): void;
    /**
     * Nothing more comes for an item.
     *
     * @param {string} item
     */
    end(item: string): void;
    /**
     * Forgets what has not been played.
     *
     * @returns {Position[]} how far each unfinished item got
     */
    flush(): Position[];
    /**
     * Fills `output`, with silence where there is nothing to play.
     *
     * @param {Float32Array} output
     */
    render(output: Float32Array): void;
    /** @returns {Position | null} of the item that is being played */
    position(): Position | null;
    /** @returns {Stats} */
    stats(): Stats;
}
