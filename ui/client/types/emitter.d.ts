/**
 * Listeners by name, typed.
 *
 * @template {Record<string, any>} Events name → what listeners are given
 */
export declare class Emitter<Events extends Record<string, any>> {
    #private;
    /**
     * @template {keyof Events} Name
     * @param {Name} name
     * @param {(detail: Events[Name]) => void} listener
     * @returns {() => void} takes the listener off again
     */
    on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
    /**
     * @template {keyof Events} Name
     * @param {Name} name
     * @param {Events[Name]} detail
     */
    emit<Name extends keyof Events>(name: Name, detail: Events[Name]): void;
}
