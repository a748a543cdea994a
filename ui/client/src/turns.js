/**
 * Who speaks when: a state machine over a service's events and the player's reports.
 *
 * It does nothing itself. Every method returns what is to be done, in order, so that all of it can be
 * tried out without a socket or a sound card.
 */

import { gaName, turnDetectionOf } from './dialect.js';
import { milliseconds } from './pcm.js';

/**
 * @typedef {import('./dialect.js').ServiceEvent} ServiceEvent
 * @typedef {import('./playback-queue.js').Position} Position
 */

/** @typedef {'listening' | 'hearing' | 'thinking' | 'speaking'} Phase */

/**
 * @typedef {object} Caption
 * @property {string} item
 * @property {'user' | 'assistant'} role
 * @property {string} text all of it so far
 * @property {boolean} final
 * @property {boolean} interrupted
 * @property {string} [failure] why there are no words
 */

/**
 * @typedef {object} Latency
 * @property {number} turnEnd milliseconds from the moment when the service took the turn for ended
 *   to the first sound of its answer
 * @property {number | null} speechEnd the same from the end of the user's words, as far as that is
 *   known
 */

/**
 * @typedef {object} Usage
 * @property {TokenCount} input
 * @property {TokenCount} output
 * @property {TokenCount} cached of the input
 */

/**
 * @typedef {object} TokenCount
 * @property {number} text
 * @property {number} audio
 * @property {number} image
 */

/**
 * @typedef {object} Notice
 * @property {string} code
 * @property {string} message
 */

/**
 * @typedef {{ do: 'play', item: string, audio: string }
 *   | { do: 'end', item: string }
 *   | { do: 'flush' }
 *   | { do: 'send', event: ServiceEvent }
 *   | { do: 'phase', phase: Phase }
 *   | { do: 'caption', caption: Caption }
 *   | { do: 'latency', latency: Latency }
 *   | { do: 'usage', usage: Usage }
 *   | { do: 'interrupted', items: { item: string, audioEndMs: number }[] }
 *   | { do: 'notice', notice: Notice }} Effect
 */

/** Interrupted responses and items that are remembered; late deltas come within seconds. */
const REMEMBERED_MAX = 64;

/** Captions that are kept. */
const CAPTIONS_MAX = 200;

/** Answers to a race that was lost harmlessly: what was to be cancelled had ended by itself. */
const HARMLESS = new Set(['response_cancel_not_active']);

export class Turns {
  /** @type {Phase} */
  phase = 'listening';
  /** @type {import('./dialect.js').TurnDetection} */
  detection = { on: true, createsResponse: true, interruptsResponse: true, silenceMilliseconds: 500 };

  /** @type {string | null} the response that is being made */
  #response = null;
  /** Whether one was asked for that has not begun. */
  #asked = false;
  /** Responses that were asked for, have not begun, and are not wanted any more. */
  #unwanted = 0;
  /** Ids of responses and items of which nothing more is to be heard. */
  #silenced = new Remembered();
  /** Item → its response, for what is queued or playing. @type {Map<string, string>} */
  #playing = new Map();
  /** @type {Map<string, Caption>} */
  #captions = new Map();
  #userSpeaks = false;
  /** @type {{ turnEnd: number, speechEnd: number | null } | null} */
  #waitsSince = null;

  /**
   * An event of the service.
   *
   * @param {ServiceEvent} event
   * @param {number} now milliseconds of any steady clock
   * @param {(audioEndMs: number) => number | null} [spokenAt] when a sample was captured, by the
   *   service's own count of milliseconds
   * @returns {Effect[]}
   */
  receive(event, now, spokenAt = () => null) {
    switch (gaName(event.type)) {
      case 'session.created':
      case 'session.updated':
        this.detection = turnDetectionOf(event['session'] ?? {});
        return [];
      case 'input_audio_buffer.speech_started':
        return this.#speechStarted(event);
      case 'input_audio_buffer.speech_stopped':
        return this.#speechStopped(event, now, spokenAt);
      case 'conversation.item.added':
        return this.#itemAdded(event['item'] ?? {});
      case 'conversation.item.input_audio_transcription.delta':
        return this.#caption(event['item_id'], 'user', { more: event['delta'] });
      case 'conversation.item.input_audio_transcription.completed':
        return this.#caption(event['item_id'], 'user', { whole: event['transcript'] });
      case 'conversation.item.input_audio_transcription.failed':
        return this.#transcriptionFailed(event);
      case 'response.created':
        return this.#responseCreated(event['response'] ?? {});
      case 'response.output_audio.delta':
        return this.#audio(event);
      case 'response.output_audio.done':
        return this.#isSilenced(event) ? [] : [{ do: 'end', item: event['item_id'] }];
      case 'response.output_audio_transcript.delta':
      case 'response.output_text.delta':
        if (this.#isSilenced(event)) return [];
        return this.#caption(event['item_id'], 'assistant', { more: event['delta'] });
      case 'response.output_audio_transcript.done':
      case 'response.output_text.done':
        if (this.#isSilenced(event)) return [];
        return this.#caption(event['item_id'], 'assistant', { whole: event['transcript'] ?? event['text'] });
      case 'response.done':
        return this.#responseDone(event['response'] ?? {});
      case 'error':
        return this.#error(event['error'] ?? {});
      default:
        return [];
    }
  }

  /**
   * The first sample of an item went out.
   *
   * @param {string} item
   * @param {number} now
   * @returns {Effect[]}
   */
  started(item, now) {
    if (!this.#playing.has(item)) return [];
    const since = this.#waitsSince;
    this.#waitsSince = null;
    /** @type {Effect[]} */
    const effects = this.#settle();
    if (since) {
      const latency = {
        turnEnd: now - since.turnEnd,
        speechEnd: since.speechEnd === null ? null : now - since.speechEnd,
      };
      effects.push({ do: 'latency', latency });
    }
    return effects;
  }

  /**
   * The last sample of an item went out.
   *
   * @param {string} item
   * @returns {Effect[]}
   */
  finished(item) {
    this.#playing.delete(item);
    return this.#settle();
  }

  /**
   * The player dropped what it had.
   *
   * @param {readonly Position[]} positions how far each item got
   * @returns {Effect[]}
   */
  flushed(positions) {
    const items = positions.map(({ item, played, received }) => ({
      item,
      // Behind what was sent a service refuses to cut.
      audioEndMs: milliseconds(Math.min(played, received)),
    }));
    /** @type {Effect[]} */
    const effects = items.map(({ item, audioEndMs }) => ({
      do: 'send',
      event: {
        type: 'conversation.item.truncate',
        item_id: item,
        content_index: 0,
        audio_end_ms: audioEndMs,
      },
    }));
    if (items.length > 0) effects.push({ do: 'interrupted', items });
    return effects;
  }

  /**
   * The user wants the answer to stop.
   *
   * @returns {Effect[]}
   */
  interrupt() {
    return this.#interrupt(true);
  }

  /**
   * The user wrote something.
   *
   * @param {string} text
   * @param {number} now
   * @returns {Effect[]}
   */
  write(text, now) {
    const effects = this.interrupt();
    effects.push({
      do: 'send',
      event: {
        type: 'conversation.item.create',
        item: { type: 'message', role: 'user', content: [{ type: 'input_text', text }] },
      },
    });
    return [...effects, ...this.#ask(now)];
  }

  /**
   * The user released the key: the turn ends here.
   *
   * @param {number} now
   * @returns {Effect[]}
   */
  commit(now) {
    this.#userSpeaks = false;
    return [{ do: 'send', event: { type: 'input_audio_buffer.commit' } }, ...this.#ask(now)];
  }

  /**
   * The user pressed the key: the turn begins here.
   *
   * @returns {Effect[]}
   */
  press() {
    const effects = this.interrupt();
    this.#userSpeaks = true;
    effects.push({ do: 'send', event: { type: 'input_audio_buffer.clear' } });
    return [...effects, ...this.#settle()];
  }

  /**
   * The user released the key without having said anything.
   *
   * @returns {Effect[]}
   */
  retract() {
    this.#userSpeaks = false;
    return [{ do: 'send', event: { type: 'input_audio_buffer.clear' } }, ...this.#settle()];
  }

  /** Whether an answer is being made or played. */
  get isAnswering() {
    return this.#response !== null || this.#asked || this.#playing.size > 0;
  }

  /** Whether anything is queued or playing. */
  get isPlaying() {
    return this.#playing.size > 0;
  }

  /**
   * @param {number} now
   * @returns {Effect[]}
   */
  #ask(now) {
    this.#asked = true;
    this.#waitsSince = { turnEnd: now, speechEnd: now };
    return [{ do: 'send', event: { type: 'response.create' } }, ...this.#settle()];
  }

  /**
   * @param {ServiceEvent} event
   * @returns {Effect[]}
   */
  #speechStarted(event) {
    const effects = this.#interrupt(false);
    this.#userSpeaks = true;
    effects.push(...this.#caption(event['item_id'], 'user', {}));
    return [...effects, ...this.#settle()];
  }

  /**
   * @param {ServiceEvent} event
   * @param {number} now
   * @param {(audioEndMs: number) => number | null} spokenAt
   * @returns {Effect[]}
   */
  #speechStopped(event, now, spokenAt) {
    this.#userSpeaks = false;
    this.#asked = this.detection.createsResponse;
    // The service counts the silence in that made it sure.
    const end = Number(event['audio_end_ms']) - this.detection.silenceMilliseconds;
    const speechEnd = Number.isFinite(end) ? spokenAt(end) : null;
    this.#waitsSince = { turnEnd: now, speechEnd };
    return this.#settle();
  }

  /**
   * @param {Record<string, any>} item
   * @returns {Effect[]}
   */
  #itemAdded(item) {
    if (item['type'] !== 'message' || item['role'] !== 'user') return [];
    const parts = /** @type {Record<string, any>[]} */ (item['content'] ?? []);
    const written = parts.filter((part) => part['type'] === 'input_text').map((part) => part['text']);
    if (written.length === 0) return this.#caption(item['id'], 'user', {});
    return this.#caption(item['id'], 'user', { whole: written.join('\n') });
  }

  /**
   * @param {ServiceEvent} event
   * @returns {Effect[]}
   */
  #transcriptionFailed(event) {
    const message = event['error']?.message ?? 'no reason was given';
    const code = event['error']?.code ?? 'transcription_failed';
    return [
      ...this.#caption(event['item_id'], 'user', { whole: '', failure: message }),
      { do: 'notice', notice: { code, message } },
    ];
  }

  /**
   * @param {Record<string, any>} response
   * @returns {Effect[]}
   */
  #responseCreated(response) {
    const id = response['id'] ?? null;
    if (this.#unwanted > 0 && id !== null) {
      this.#unwanted -= 1;
      this.#silenced.add(id);
      return [{ do: 'send', event: { type: 'response.cancel', response_id: id } }];
    }
    this.#response = id;
    this.#asked = false;
    return this.#settle();
  }

  /**
   * @param {ServiceEvent} event
   * @returns {Effect[]}
   */
  #audio(event) {
    if (this.#isSilenced(event)) return [];
    const item = event['item_id'];
    this.#playing.set(item, event['response_id']);
    return [{ do: 'play', item, audio: event['delta'] }, ...this.#settle()];
  }

  /**
   * @param {Record<string, any>} response
   * @returns {Effect[]}
   */
  #responseDone(response) {
    if (response['id'] === this.#response) this.#response = null;
    /** @type {Effect[]} */
    const effects = [];
    if (response['usage']) effects.push({ do: 'usage', usage: usageOf(response['usage']) });
    const details = response['status_details'];
    if (response['status'] === 'failed') {
      const code = details?.error?.code ?? 'session_upstream_error';
      const message = details?.error?.message ?? 'The service could not answer.';
      effects.push({ do: 'notice', notice: { code, message } });
    }
    if (response['status'] === 'incomplete') {
      const filtered = details?.reason === 'content_filter';
      const code = filtered ? 'session_content_filtered' : 'session_output_limit';
      const message = filtered
        ? 'The service’s content filter ended the answer.'
        : 'The answer reached its greatest length and was cut.';
      effects.push({ do: 'notice', notice: { code, message } });
    }
    return [...effects, ...this.#settle()];
  }

  /**
   * @param {Record<string, any>} error
   * @returns {Effect[]}
   */
  #error(error) {
    if (HARMLESS.has(error['code'])) return [];
    this.#asked = false;
    this.#unwanted = 0;
    const notice = { code: error['code'] ?? error['type'] ?? 'error', message: error['message'] ?? '' };
    return [{ do: 'notice', notice }, ...this.#settle()];
  }

  /**
   * @param {boolean} byHand and not by the service's own detection of speech
   * @returns {Effect[]}
   */
  #interrupt(byHand) {
    /** @type {Effect[]} */
    const effects = [];
    const response = this.#response;
    if (response !== null) {
      this.#silenced.add(response);
      // The service that hears the user speak stops by itself, unless it was told not to.
      if (byHand || !this.detection.interruptsResponse) {
        effects.push({ do: 'send', event: { type: 'response.cancel', response_id: response } });
      }
    }
    if (byHand && this.#asked) this.#unwanted += 1;
    for (const [item, itsResponse] of this.#playing) {
      this.#silenced.add(item);
      if (itsResponse) this.#silenced.add(itsResponse);
      effects.push(...this.#caption(item, 'assistant', { interrupted: true }));
    }
    if (this.#playing.size > 0) {
      this.#playing.clear();
      effects.push({ do: 'flush' });
    }
    this.#response = null;
    this.#asked = false;
    this.#waitsSince = null;
    return [...effects, ...this.#settle()];
  }

  /** @param {ServiceEvent} event */
  #isSilenced(event) {
    return this.#silenced.has(event['response_id']) || this.#silenced.has(event['item_id']);
  }

  /**
   * @param {string} item
   * @param {'user' | 'assistant'} role
   * @param {{ more?: string, whole?: string, interrupted?: boolean, failure?: string }} change
   * @returns {Effect[]}
   */
  #caption(item, role, { more, whole, interrupted, failure }) {
    if (typeof item !== 'string') return [];
    const before = this.#captions.get(item) ?? { item, role, text: '', final: false, interrupted: false };
    const caption = {
      ...before,
      text: whole ?? before.text + (more ?? ''),
      final: before.final || whole !== undefined || interrupted === true,
      interrupted: before.interrupted || interrupted === true,
      ...(failure === undefined ? {} : { failure }),
    };
    this.#captions.set(item, caption);
    if (this.#captions.size > CAPTIONS_MAX) {
      const [oldest] = this.#captions.keys();
      if (oldest !== undefined) this.#captions.delete(oldest);
    }
    return [{ do: 'caption', caption }];
  }

  /**
   * Finds the phase anew.
   *
   * @returns {Effect[]}
   */
  #settle() {
    const phase = this.#userSpeaks
      ? 'hearing'
      : this.#playing.size > 0 && this.#waitsSince === null
        ? 'speaking'
        : this.isAnswering
          ? 'thinking'
          : 'listening';
    if (phase === this.phase) return [];
    this.phase = phase;
    return [{ do: 'phase', phase }];
  }
}

/** A set that forgets its oldest. */
class Remembered {
  /** @type {Set<string>} */
  #ids = new Set();

  /** @param {string} id */
  add(id) {
    this.#ids.delete(id);
    this.#ids.add(id);
    if (this.#ids.size > REMEMBERED_MAX) {
      const [oldest] = this.#ids;
      if (oldest !== undefined) this.#ids.delete(oldest);
    }
  }

  /** @param {unknown} id */
  has(id) {
    return typeof id === 'string' && this.#ids.has(id);
  }
}

/**
 * The tokens of a response by modality.
 *
 * @param {Record<string, any>} usage of `response.done`
 * @returns {Usage}
 */
export function usageOf(usage) {
  const input = usage['input_token_details'] ?? {};
  return {
    input: tokens(input),
    output: tokens(usage['output_token_details'] ?? {}),
    cached: tokens(input['cached_tokens_details'] ?? {}),
  };
}

/**
 * @param {Record<string, any>} details
 * @returns {TokenCount}
 */
function tokens(details) {
  const count = (/** @type {unknown} */ value) => (typeof value === 'number' ? value : 0);
  return {
    text: count(details['text_tokens']),
    audio: count(details['audio_tokens']),
    image: count(details['image_tokens']),
  };
}
