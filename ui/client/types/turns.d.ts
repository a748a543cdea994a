/**
 * Who speaks when: a state machine over a service's events and the player's reports.
 *
 * It does nothing itself. Every method returns what is to be done, in order, so that all of it can be
 * tried out without a socket or a sound card.
 */
export type ServiceEvent = import('./dialect.js').ServiceEvent;
export type Position = import('./playback-queue.js').Position;
export type Phase = 'listening' | 'hearing' | 'thinking' | 'speaking';
export type Caption = {
    item: string;
    role: 'user' | 'assistant';
    /**
     * all of it so far
     */
    text: string;
    final: boolean;
    interrupted: boolean;
    /**
     * why there are no words
     */
    failure?: string;
};
export type Latency = {
    /**
     * milliseconds from the moment when the service took the turn for ended
     * to the first sound of its answer
     */
    turnEnd: number;
    /**
     * the same from the end of the user's words, as far as that is
     * known
     */
    speechEnd: number | null;
};
export type Usage = {
    input: TokenCount;
    output: TokenCount;
    /**
     * of the input
     */
    cached: TokenCount;
};
export type TokenCount = {
    text: number;
    audio: number;
    image: number;
};
export type Notice = {
    code: string;
    message: string;
};
export type Effect = {
    do: 'play';
    item: string;
    audio: string;
} | {
    do: 'end';
    item: string;
} | {
    do: 'flush';
} | {
    do: 'send';
    event: ServiceEvent;
} | {
    do: 'phase';
    phase: Phase;
} | {
    do: 'caption';
    caption: Caption;
} | {
    do: 'latency';
    latency: Latency;
} | {
    do: 'usage';
    usage: Usage;
} | {
    do: 'interrupted';
    items: {
        item: string;
        audioEndMs: number;
    }[];
} | {
    do: 'notice';
    notice: Notice;
};
export declare class Turns {
    #private;
    /** @type {Phase} */
    phase: Phase;
    /** @type {import('./dialect.js').TurnDetection} */
    detection: import('./dialect.js').TurnDetection;
    /**
     * An event of the service.
     *
     * @param {ServiceEvent} event
     * @param {number} now milliseconds of any steady clock
     * @param {(audioEndMs: number) => number | null} [spokenAt] when a sample was captured, by the
     *   service's own count of milliseconds
     * @returns {Effect[]}
     */
    receive(event: ServiceEvent, now: number, spokenAt?: (audioEndMs: number) => number | null): Effect[];
    /**
     * The first sample of an item went out.
     *
     * @param {string} item
     * @param {number} now
     * @returns {Effect[]}
     */
    started(item: string, now: number): Effect[];
    /**
     * The last sample of an item went out.
     *
     * @param {string} item
     * @returns {Effect[]}
     */
    finished(item: string): Effect[];
    /**
     * The player dropped what it had.
     *
     * @param {readonly Position[]} positions how far each item got
     * @returns {Effect[]}
     */
    flushed(positions: readonly Position[]): Effect[];
    /**
     * The user wants the answer to stop.
     *
     * @returns {Effect[]}
     */
    interrupt(): Effect[];
    /**
     * The user wrote something.
     *
     * @param {string} text
     * @param {number} now
     * @returns {Effect[]}
     */
    write(text: string, now: number): Effect[];
    /**
     * The user released the key: the turn ends here.
     *
     * @param {number} now
     * @returns {Effect[]}
     */
    commit(now: number): Effect[];
    /**
     * The user pressed the key: the turn begins here.
     *
     * @returns {Effect[]}
     */
    press(): Effect[];
    /**
     * The user released the key without having said anything.
     *
     * @returns {Effect[]}
     */
    retract(): Effect[];
    /** Whether an answer is being made or played. */
    get isAnswering(): boolean;
    /** Whether anything is queued or playing. */
    get isPlaying(): boolean;
}
/**
 * The tokens of a response by modality.
 *
 * @param {Record<string, any>} usage of `response.done`
 * @returns {Usage}
 */
export declare function usageOf(usage: Record<string, any>): Usage;
