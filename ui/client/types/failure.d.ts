/**
 * What can go wrong on the way to a conversation and in it, each with a code, a sentence and what to
 * do.
 */
export type Explanation = {
    /**
     * stable; either one of this module or one of the relay's own
     */
    code: string;
    /**
     * what happened
     */
    summary: string;
    /**
     * what to do
     */
    nextStep: string;
    /**
     * whether trying again cannot help until somebody changes something
     */
    permanent?: boolean;
};
/**
 * @typedef {object} Explanation
 * @property {string} code stable; either one of this module or one of the relay's own
 * @property {string} summary what happened
 * @property {string} nextStep what to do
 * @property {boolean} [permanent] whether trying again cannot help until somebody changes something
 */
export declare class TalkFailure extends Error {
    code: string;
    summary: string;
    nextStep: string;
    permanent: boolean;
    /**
     * @param {Explanation} explanation
     * @param {{ cause?: unknown }} [options]
     */
    constructor(explanation: Explanation, options?: {
        cause?: unknown;
    });
}
/**
 * @param {string} code
 * @param {{ cause?: unknown }} [options]
 * @returns {TalkFailure}
 */
export declare function failure(code: string, options?: {
    cause?: unknown;
}): TalkFailure;
/**
 * Why there is no microphone.
 *
 * @param {unknown} error of `getUserMedia` or of the audio context
 * @returns {TalkFailure}
 */
export declare function microphoneFailure(error: unknown): TalkFailure;
/**
 * What an HTTP answer of the relay says when it gives no session.
 *
 * @param {number} status
 * @param {unknown} body parsed JSON, if it was that
 * @returns {TalkFailure}
 */
export declare function refusalFailure(status: number, body: unknown): TalkFailure;
/**
 * What an `error` event says that is followed by the end of the connection.
 *
 * @param {Record<string, any>} error
 * @returns {TalkFailure}
 */
export declare function eventFailure(error: Record<string, any>): TalkFailure;
/**
 * Why a connection ended, when no event said so.
 *
 * @param {object} close
 * @param {number} close.code RFC 6455 section 7.4.1
 * @param {string} close.reason
 * @param {boolean} close.opened whether the connection had been open
 * @returns {TalkFailure}
 */
export declare function closeFailure({ code, reason, opened }: {
    code: number;
    reason: string;
    opened: boolean;
}): TalkFailure;
/**
 * Everything that this module has words for, as for a page of explanations.
 *
 * @returns {Explanation[]}
 */
export declare function explained(): Explanation[];
