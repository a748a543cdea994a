/**
 * What can go wrong on the way to a conversation and in it, each with a code, a sentence and what to
 * do.
 */

/**
 * @typedef {object} Explanation
 * @property {string} code stable; either one of this module or one of the relay's own
 * @property {string} summary what happened
 * @property {string} nextStep what to do
 * @property {boolean} [permanent] whether trying again cannot help until somebody changes something
 */

export class TalkFailure extends Error {
  /**
   * @param {Explanation} explanation
   * @param {{ cause?: unknown }} [options]
   */
  constructor(explanation, options) {
    super(`${explanation.summary} ${explanation.nextStep}`.trim(), options);
    this.name = 'TalkFailure';
    this.code = explanation.code;
    this.summary = explanation.summary;
    this.nextStep = explanation.nextStep;
    this.permanent = explanation.permanent ?? false;
  }
}

/** @type {Readonly<Record<string, Omit<Explanation, 'code'>>>} */
const WORDS = {
  insecure_context: {
    summary: 'This page was not loaded securely, so the browser gives it neither microphone nor sound.',
    nextStep: 'Open it by https://, or on the relay’s own machine by http://localhost.',
    permanent: true,
  },
  microphone_denied: {
    summary: 'The browser was told not to let this page use the microphone.',
    nextStep:
      'Allow the microphone for this page, by the icon beside the address, and check that the system’s privacy settings allow it to the browser. Then try again.',
  },
  microphone_missing: {
    summary: 'No microphone was found.',
    nextStep: 'Plug one in or turn it on, then try again. Writing works without one.',
  },
  microphone_busy: {
    summary: 'The microphone is there, but it could not be started.',
    nextStep: 'Another program may be using it: close that one, or choose another microphone.',
  },
  microphone_lost: {
    summary: 'The microphone was unplugged.',
    nextStep: 'Plug it in again or choose another one.',
  },
  audio_unavailable: {
    summary: 'The browser could not start its audio.',
    nextStep: 'Check that an audio device is on, or reload the page. AudioWorklet is needed, which every current browser has.',
  },
  relay_unreachable: {
    summary: 'The relay cannot be reached.',
    nextStep: 'Check that it is running and that this machine is online, then connect again.',
  },
  session_refused: {
    summary: 'The relay gave no session.',
    nextStep: 'The relay’s log says why.',
  },
  transport_unsupported: {
    summary: 'The relay offers a transport that this client does not speak.',
    nextStep: 'Set talk.realtime.transport to gateway-relay.',
    permanent: true,
  },
  connection_refused: {
    summary: 'The relay answered, but the WebSocket could not be opened.',
    nextStep:
      'A proxy on the way may not pass WebSockets on, or the page’s origin is missing from server.allowedOrigins. The relay’s log says which.',
  },
  connection_lost: {
    summary: 'The connection to the relay broke.',
    nextStep: 'Connect again; a new conversation begins.',
  },
  session_silent: {
    summary: 'The connection was opened, but no session began in time.',
    nextStep: 'Try again. If it stays so, talkline doctor shows which step hangs.',
  },
  session_ended: {
    summary: 'The service ended the session.',
    nextStep: 'Connect again; a new conversation begins.',
  },
  relay_shutting_down: {
    summary: 'The relay is shutting down.',
    nextStep: 'Connect again; another instance answers, or this one when it is back.',
  },
  message_too_big: {
    summary: 'A message was larger than the relay passes on.',
    nextStep: 'The operator raises limits.maxMessageSize.',
    permanent: true,
  },
  client_key_missing: {
    summary: 'The relay lets nobody in without a client key.',
    nextStep: 'Enter the client key that the relay’s operator gave you.',
  },
  client_key_unknown: {
    summary: 'The relay does not know this client key.',
    nextStep: 'Check the key with the relay’s operator; a space at its end counts.',
  },
  origin_not_allowed: {
    summary: 'The relay does not let pages of this address in.',
    nextStep: 'The operator adds this page’s origin to server.allowedOrigins.',
    permanent: true,
  },
};

/**
 * @param {string} code
 * @param {{ cause?: unknown }} [options]
 * @returns {TalkFailure}
 */
export function failure(code, options) {
  const words = WORDS[code] ?? WORDS['session_ended'];
  return new TalkFailure({ code, summary: '', nextStep: '', ...words }, options);
}

/**
 * Why there is no microphone.
 *
 * @param {unknown} error of `getUserMedia` or of the audio context
 * @returns {TalkFailure}
 */
export function microphoneFailure(error) {
  const name = error instanceof Error || error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return failure('microphone_denied', { cause: error });
    case 'NotFoundError':
    case 'OverconstrainedError':
      return failure('microphone_missing', { cause: error });
    case 'NotReadableError':
    case 'AbortError':
      return failure('microphone_busy', { cause: error });
    case 'TalkFailure':
      return /** @type {TalkFailure} */ (error);
    default:
      return failure('audio_unavailable', { cause: error });
  }
}

/**
 * What an HTTP answer of the relay says when it gives no session.
 *
 * @param {number} status
 * @param {unknown} body parsed JSON, if it was that
 * @returns {TalkFailure}
 */
export function refusalFailure(status, body) {
  const said = /** @type {any} */ (body);
  const error = said?.error ?? {};
  const code = word(error.code) ?? word(said?.code);
  const message = text(error.message) ?? text(said?.detail) ?? text(said?.title);
  if (code && WORDS[code] && code.startsWith('client_key_')) return failure(code);
  if (!code && !message) {
    const known = failure('session_refused');
    return new TalkFailure({ ...known, summary: `The relay gave no session: it answered ${status}.`, nextStep: known.nextStep, code: known.code });
  }
  const [summary, nextStep] = sentences(message ?? '', WORDS[code ?? '']);
  return new TalkFailure({
    code: code ?? 'session_refused',
    summary,
    nextStep,
    permanent: status >= 400 && status < 500 && status !== 401 && status !== 429,
  });
}

/**
 * What an `error` event says that is followed by the end of the connection.
 *
 * @param {Record<string, any>} error
 * @returns {TalkFailure}
 */
export function eventFailure(error) {
  const code = word(error['code']) ?? word(error['type']) ?? 'session_ended';
  const [summary, nextStep] = sentences(text(error['message']) ?? '', WORDS[code]);
  return new TalkFailure({ code, summary, nextStep });
}

/**
 * Why a connection ended, when no event said so.
 *
 * @param {object} close
 * @param {number} close.code RFC 6455 section 7.4.1
 * @param {string} close.reason
 * @param {boolean} close.opened whether the connection had been open
 * @returns {TalkFailure}
 */
export function closeFailure({ code, reason, opened }) {
  if (!opened) return failure('connection_refused');
  const named = word(reason);
  if (named && WORDS[named]) return failure(named);
  switch (code) {
    case 1006:
      return failure('connection_lost');
    case 1009:
      return failure('message_too_big');
    default: {
      const ended = failure('session_ended');
      return new TalkFailure({
        code: named ?? ended.code,
        summary: reason ? `${ended.summary.slice(0, -1)}: ${reason} (close code ${code}).` : `${ended.summary.slice(0, -1)} (close code ${code}).`,
        nextStep: ended.nextStep,
        permanent: code === 1008,
      });
    }
  }
}

/**
 * A relay's message in its two parts.
 *
 * @param {string} message
 * @param {Omit<Explanation, 'code'>} [words]
 * @returns {[string, string]}
 */
function sentences(message, words) {
  const [what, step] = message.split(/\s*Next step:\s*/, 2);
  return [what || (words?.summary ?? ''), step ?? words?.nextStep ?? ''];
}

/**
 * @param {unknown} value
 * @returns {string | undefined}
 */
function text(value) {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/**
 * @param {unknown} value
 * @returns {string | undefined} a code, which has neither spaces nor punctuation
 */
function word(value) {
  return typeof value === 'string' && /^\w{1,123}$/.test(value) ? value : undefined;
}

/**
 * Everything that this module has words for, as for a page of explanations.
 *
 * @returns {Explanation[]}
 */
export function explained() {
  return Object.entries(WORDS).map(([code, words]) => ({ code, ...words }));
}
