/**
 * Talks to a GPT Realtime model through Talkline.
 *
 * @module
 */
export { TalkSession } from './session.js';
export { TalkFailure, explained } from './failure.js';
export { Microphone } from './microphone.js';
export { Speaker } from './speaker.js';
export { Turns } from './turns.js';
export { PlaybackQueue } from './playback-queue.js';
export { Resampler } from './resampler.js';
export { fromBase64, toBase64 } from './base64.js';
export { SAMPLE_RATE, fromPcm16, milliseconds, toPcm16 } from './pcm.js';
