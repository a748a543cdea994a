/**
 * The two vocabularies of Realtime services: GA, and the preview that Azure still serves.
 *
 * Everything else in this package speaks GA; what is renamed stands here alone.
 * Source: Microsoft Learn, "Migration from preview to GA version of Realtime API".
 */
export type Dialect = 'ga' | 'preview';
export type ServiceEvent = Record<string, any> & {
    type: string;
};
/**
 * @param {string} type of a service's event, in either vocabulary
 * @returns {string} its GA name
 */
export declare function gaName(type: string): string;
/**
 * Which vocabulary a session speaks.
 *
 * @param {Record<string, any>} session of `session.created`
 * @returns {Dialect}
 */
export declare function dialectOf(session: Record<string, any>): Dialect;
export type TurnDetection = {
    on: boolean;
    /**
     * whether an answer begins by itself
     */
    createsResponse: boolean;
    /**
     * whether speech ends an answer by itself
     */
    interruptsResponse: boolean;
    /**
     * that end a turn
     */
    silenceMilliseconds: number;
};
/**
 * How a session finds the end of a turn.
 *
 * @typedef {object} TurnDetection
 * @property {boolean} on
 * @property {boolean} createsResponse whether an answer begins by itself
 * @property {boolean} interruptsResponse whether speech ends an answer by itself
 * @property {number} silenceMilliseconds that end a turn
 */
/**
 * @param {Record<string, any>} session of `session.created` or `session.updated`
 * @returns {TurnDetection}
 */
export declare function turnDetectionOf(session: Record<string, any>): TurnDetection;
export type Settings = {
    instructions?: string;
    voice?: string;
    /**
     * that writes down what the user says; `null` for
     * none. On Azure it is the name of a deployment.
     */
    transcriptionModel?: string | null;
    /**
     * whether the service finds the end of a turn
     */
    turnDetection?: boolean;
};
/**
 * What an application may set of a session; what is left out stays as the service has it.
 *
 * @typedef {object} Settings
 * @property {string} [instructions]
 * @property {string} [voice]
 * @property {string | null} [transcriptionModel] that writes down what the user says; `null` for
 *   none. On Azure it is the name of a deployment.
 * @property {boolean} [turnDetection] whether the service finds the end of a turn
 */
/**
 * @param {Dialect} dialect
 * @param {Settings} settings
 * @returns {ServiceEvent | null} `null` when there is nothing to set
 */
export declare function sessionUpdate(dialect: Dialect, settings: Settings): ServiceEvent | null;
