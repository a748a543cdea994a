/**
 * The two vocabularies of Realtime services: GA, and the preview that Azure still serves.
 *
 * Everything else in this package speaks GA; what is renamed stands here alone.
 * Source: Microsoft Learn, "Migration from preview to GA version of Realtime API".
 */

/** @typedef {'ga' | 'preview'} Dialect */

/**
 * An event of a service, as far as it is looked at here.
 *
 * @typedef {Record<string, any> & { type: string }} ServiceEvent
 */

/** @type {Readonly<Record<string, string>>} */
const GA_NAMES = {
  'response.text.delta': 'response.output_text.delta',
  'response.text.done': 'response.output_text.done',
  'response.audio.delta': 'response.output_audio.delta',
  'response.audio.done': 'response.output_audio.done',
  'response.audio_transcript.delta': 'response.output_audio_transcript.delta',
  'response.audio_transcript.done': 'response.output_audio_transcript.done',
  'conversation.item.created': 'conversation.item.added',
};

/**
 * @param {string} type of a service's event, in either vocabulary
 * @returns {string} its GA name
 */
export function gaName(type) {
  return GA_NAMES[type] ?? type;
}

/**
 * Which vocabulary a session speaks.
 *
 * @param {Record<string, any>} session of `session.created`
 * @returns {Dialect}
 */
export function dialectOf(session) {
  return 'modalities' in session || 'input_audio_format' in session ? 'preview' : 'ga';
}

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
export function turnDetectionOf(session) {
  const detection =
    dialectOf(session) === 'ga' ? session.audio?.input?.turn_detection : session.turn_detection;
  const on = Boolean(detection) && detection.type !== 'none';
  return {
    on,
    createsResponse: on && detection.create_response !== false,
    interruptsResponse: on && detection.interrupt_response !== false,
    silenceMilliseconds: on ? (detection.silence_duration_ms ?? 500) : 0,
  };
}

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
export function sessionUpdate(dialect, settings) {
  const { instructions, voice, transcriptionModel, turnDetection } = settings;
  const transcription =
    transcriptionModel === undefined
      ? undefined
      : transcriptionModel && { model: transcriptionModel };
  const detection =
    turnDetection === undefined ? undefined : turnDetection ? { type: 'server_vad' } : null;
  const session =
    dialect === 'ga'
      ? given({
          instructions,
          audio: given({
            input: given({ transcription: transcription, turn_detection: detection }),
            output: given({ voice }),
          }),
        })
      : given({
          instructions,
          voice,
          input_audio_transcription: transcription,
          turn_detection: detection,
        });
  if (!session) return null;
  return { type: 'session.update', session: dialect === 'ga' ? { type: 'realtime', ...session } : session };
}

/**
 * @param {Record<string, unknown>} fields
 * @returns {Record<string, unknown> | undefined} those that are there, if any
 */
function given(fields) {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  return entries.length > 0 ? Object.fromEntries(entries) : undefined;
}
