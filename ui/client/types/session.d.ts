/**
 * A conversation through Talkline: asks the relay for a way in, connects, listens, plays.
 */
import { Emitter } from './emitter.js';
import { TalkFailure } from './failure.js';
export type Phase = import('./turns.js').Phase;
export type Caption = import('./turns.js').Caption;
export type Latency = import('./turns.js').Latency;
export type Usage = import('./turns.js').Usage;
export type Notice = import('./turns.js').Notice;
export type Settings = import('./dialect.js').Settings;
export type ServiceEvent = import('./dialect.js').ServiceEvent;
export type State = 'idle' | 'connecting' | Phase | 'closed';
export type Ticket = {
    transport: string;
    reason?: string;
    message?: string;
    url: string;
    model?: string;
    protocols?: string[];
    client_secret?: {
        value: string;
        expires_at: number;
    };
    session_seconds_max?: number | null;
    prices?: Record<string, any> | null;
};
export type Options = {
    /**
     * where the relay is; else where this page came from
     */
    relay?: URL | string;
    /**
     * the client key, where the relay wants one
     */
    key?: string;
    /**
     * one of the relay's models; else its default
     */
    model?: string;
    /**
     * of the conversation
     */
    settings?: Settings;
    /**
     * `false` for a conversation in writing; default `true`
     */
    microphone?: boolean;
    microphoneId?: string;
    speakerId?: string;
    /**
     * whether a turn is what is said between `press` and `release`
     */
    pushToTalk?: boolean;
    /**
     * whether the microphone rests while a reply is played
     */
    halfDuplex?: boolean;
    muted?: boolean;
    chunkMilliseconds?: number;
    /**
     * of a reply that are held back against jitter
     */
    startMilliseconds?: number;
    captureWorkletUrl?: URL | string;
    playbackWorkletUrl?: URL | string;
    environment?: import('./environment.js').Environment;
};
export type Connected = {
    ticket: Ticket;
    /**
     * as the service describes it
     */
    session: Record<string, any>;
    /**
     * from the click to the open session
     */
    milliseconds: number;
};
export type Events = {
    state: State;
    connected: Connected;
    caption: Caption;
    latency: Latency;
    /**
     * of one response
     */
    usage: Usage;
    interrupted: {
        item: string;
        audioEndMs: number;
    }[];
    /**
     * something went wrong, and the conversation goes on
     */
    notice: Notice;
    /**
     * all that crosses the socket
     */
    event: {
        sent: boolean;
        event: ServiceEvent;
    };
    /**
     * why the conversation ended; `null` when `close` was called
     */
    closed: TalkFailure | null;
};
export type Heard = {
    pcm: Int16Array<ArrayBuffer>;
    /**
     * when the last of it was captured
     */
    at: number;
};
/**
 * @typedef {import('./turns.js').Phase} Phase
 * @typedef {import('./turns.js').Caption} Caption
 * @typedef {import('./turns.js').Latency} Latency
 * @typedef {import('./turns.js').Usage} Usage
 * @typedef {import('./turns.js').Notice} Notice
 * @typedef {import('./dialect.js').Settings} Settings
 * @typedef {import('./dialect.js').ServiceEvent} ServiceEvent
 */
/** @typedef {'idle' | 'connecting' | Phase | 'closed'} State */
/**
 * What the relay answers to `POST /talk/session`.
 *
 * @typedef {object} Ticket
 * @property {string} transport
 * @property {string} [reason]
 * @property {string} [message]
 * @property {string} url
 * @property {string} [model]
 * @property {string[]} [protocols]
 * @property {{ value: string, expires_at: number }} [client_secret]
 * @property {number | null} [session_seconds_max]
 * @property {Record<string, any> | null} [prices]
 */
/**
 * @typedef {object} Options
 * @property {URL | string} [relay] where the relay is; else where this page came from
 * @property {string} [key] the client key, where the relay wants one
 * @property {string} [model] one of the relay's models; else its default
 * @property {Settings} [settings] of the conversation
 * @property {boolean} [microphone] `false` for a conversation in writing; default `true`
 * @property {string} [microphoneId]
 * @property {string} [speakerId]
 * @property {boolean} [pushToTalk] whether a turn is what is said between `press` and `release`
 * @property {boolean} [halfDuplex] whether the microphone rests while a reply is played
 * @property {boolean} [muted]
 * @property {number} [chunkMilliseconds]
 * @property {number} [startMilliseconds] of a reply that are held back against jitter
 * @property {URL | string} [captureWorkletUrl]
 * @property {URL | string} [playbackWorkletUrl]
 * @property {import('./environment.js').Environment} [environment]
 */
/**
 * @typedef {object} Connected
 * @property {Ticket} ticket
 * @property {Record<string, any>} session as the service describes it
 * @property {number} milliseconds from the click to the open session
 */
/**
 * @typedef {object} Events
 * @property {State} state
 * @property {Connected} connected
 * @property {Caption} caption
 * @property {Latency} latency
 * @property {Usage} usage of one response
 * @property {{ item: string, audioEndMs: number }[]} interrupted
 * @property {Notice} notice something went wrong, and the conversation goes on
 * @property {{ sent: boolean, event: ServiceEvent }} event all that crosses the socket
 * @property {TalkFailure | null} closed why the conversation ended; `null` when `close` was called
 */
/**
 * A chunk of the microphone's.
 *
 * @typedef {object} Heard
 * @property {Int16Array<ArrayBuffer>} pcm
 * @property {number} at when the last of it was captured
 */
/** @extends {Emitter<Events>} */
export declare class TalkSession extends Emitter<Events> {
    #private;
    /** @type {State} */
    state: State;
    /** @param {Options} [options] */
    constructor(options?: Options);
    /**
     * Opens microphone and player, asks the relay for a session, and connects. May be called again
     * after the conversation has ended; a new one begins then.
     *
     * Call it from a click or a key, as browsers want it.
     *
     * @returns {Promise<void>} once the service is listening
     * @throws {TalkFailure}
     */
    connect(): Promise<void>;
    /**
     * Says something in writing.
     *
     * @param {string} text
     */
    sendText(text: string): void;
    /** Stops the reply, as speaking does. */
    interrupt(): void;
    /** Begins a turn, with push-to-talk. */
    press(): void;
    /** Ends the turn, with push-to-talk. */
    release(): void;
    /**
     * @param {boolean} muted whether nothing of the microphone is sent
     */
    mute(muted: boolean): void;
    /** @param {boolean} on */
    setHalfDuplex(on: boolean): void;
    /** @param {boolean} on */
    setPushToTalk(on: boolean): void;
    /**
     * @param {string | undefined} deviceId
     * @throws {TalkFailure} the old microphone is kept then
     */
    chooseMicrophone(deviceId: string | undefined): Promise<void>;
    /** @param {string} deviceId */
    chooseSpeaker(deviceId: string): Promise<void>;
    /** What is seen of the microphone. */
    get inputAnalyser(): AnalyserNode | undefined;
    /** What is seen of the player. */
    get outputAnalyser(): AnalyserNode | undefined;
    /** How playing went: samples, gaps. */
    get playback(): import("./playback-queue.js").Stats;
    /**
     * Sends any event of the Realtime protocol.
     *
     * @param {ServiceEvent} event
     */
    send(event: ServiceEvent): void;
    /** Ends the conversation and gives the devices back. */
    close(): Promise<void>;
    /**
     * How long a request takes to the relay and back, without connecting.
     *
     * @returns {Promise<number | null>} milliseconds; `null` when the relay is of another origin
     */
    measureRelay(): Promise<number | null>;
}
