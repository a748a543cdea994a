/**
 * The microphone: 24 kHz chunks whatever the device and the browser.
 */
export type MicrophoneOptions = {
    /**
     * of `enumerateDevices`; else the system's choice
     */
    deviceId?: string;
    /**
     * 20 to 40
     */
    chunkMilliseconds?: number;
    workletUrl?: URL | string;
    onchunk: (pcm: Int16Array<ArrayBuffer>, level: number) => void;
    /**
     * the device went away
     */
    onlost?: () => void;
    environment?: import('./environment.js').Environment;
};
/**
 * @typedef {object} MicrophoneOptions
 * @property {string} [deviceId] of `enumerateDevices`; else the system's choice
 * @property {number} [chunkMilliseconds] 20 to 40
 * @property {URL | string} [workletUrl]
 * @property {(pcm: Int16Array<ArrayBuffer>, level: number) => void} onchunk
 * @property {() => void} [onlost] the device went away
 * @property {import('./environment.js').Environment} [environment]
 */
export declare class Microphone {
    #private;
    /** Sees what the microphone hears. @type {AnalyserNode | undefined} */
    analyser: AnalyserNode | undefined;
    /** @param {MicrophoneOptions} options */
    constructor(options: MicrophoneOptions);
    /**
     * Asks for the microphone and begins to listen. Call it from a click or a key, as browsers want it.
     *
     * @throws {import('./failure.js').TalkFailure}
     */
    open(): Promise<void>;
    /**
     * Goes on with another device.
     *
     * @param {string | undefined} deviceId
     * @throws {import('./failure.js').TalkFailure} the old device is kept then
     */
    choose(deviceId: string | undefined): Promise<void>;
    /** Rate at which the audio thread runs, in Hz. */
    get rate(): number;
    /** Id of the device in use, as far as the browser tells. */
    get deviceId(): string | undefined;
    /** Ends listening and gives the device back. */
    close(): Promise<void>;
}
