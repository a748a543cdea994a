/**
 * The player: a queue in the audio thread.
 */
export type Position = import('./playback-queue.js').Position;
export type Stats = import('./playback-queue.js').Stats;
export type SpeakerOptions = {
    deviceId?: string;
    /**
     * held back before a reply starts, against jitter
     */
    startMilliseconds?: number;
    workletUrl?: URL | string;
    onstarted?: (item: string) => void;
    onfinished?: (position: Position) => void;
    onprogress?: (position: Position) => void;
    environment?: import('./environment.js').Environment;
};
/**
 * @typedef {import('./playback-queue.js').Position} Position
 * @typedef {import('./playback-queue.js').Stats} Stats
 */
/**
 * @typedef {object} SpeakerOptions
 * @property {string} [deviceId]
 * @property {number} [startMilliseconds] held back before a reply starts, against jitter
 * @property {URL | string} [workletUrl]
 * @property {(item: string) => void} [onstarted]
 * @property {(position: Position) => void} [onfinished]
 * @property {(position: Position) => void} [onprogress]
 * @property {import('./environment.js').Environment} [environment]
 */
export declare class Speaker {
    #private;
    /** Sees what is played. @type {AnalyserNode | undefined} */
    analyser: AnalyserNode | undefined;
    /** How playing went so far. @type {Stats} */
    stats: Stats;
    /** @param {SpeakerOptions} options */
    constructor(options: SpeakerOptions);
    /**
     * Begins to play what is queued. Call it from a click or a key, as browsers want it.
     *
     * @throws {import('./failure.js').TalkFailure}
     */
    open(): Promise<void>;
    /** Whether this browser can play on another device than the system's choice. */
    get canChoose(): boolean;
    /**
     * Goes on with another device.
     *
     * @param {string} deviceId empty for the system's choice
     */
    choose(deviceId: string): Promise<void>;
    /**
     * Queues audio of an item.
     *
     * @param {string} item
     * @param {string} audio PCM16 at 24 kHz in base64
     * @throws {Error} when it is not base64
     */
    play(item: string, audio: string): void;
    /**
     * Nothing more comes for an item.
     *
     * @param {string} item
     */
    end(item: string): void;
    /**
     * Falls silent at once and forgets the queue.
     *
     * @returns {Promise<Position[]>} how far each item got, in samples at 24 kHz
     */
    flush(): Promise<Position[]>;
    /** Ends playing and gives the device back. */
    close(): Promise<void>;
}
