// Who speaks when, event by event.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { dialectOf, sessionUpdate, turnDetectionOf } from '../src/dialect.js';
import { SentClock } from '../src/sent-clock.js';
import { Turns, usageOf } from '../src/turns.js';

const GA_SESSION = { type: 'realtime', audio: { input: { turn_detection: { type: 'server_vad', silence_duration_ms: 200 } } } };

/** One line for each effect. */
function told(effects) {
  return effects.map((effect) => {
    switch (effect.do) {
      case 'play':
        return `play ${effect.item} ${effect.audio}`;
      case 'send':
        return `send ${effect.event.type} ${effect.event.response_id ?? effect.event.item_id ?? ''} ${effect.event.audio_end_ms ?? ''}`.trim();
      case 'phase':
        return effect.phase;
      case 'caption':
        return `${effect.caption.role}: ${effect.caption.text}${effect.caption.final ? '.' : '…'}${effect.caption.interrupted ? ' (interrupted)' : ''}`;
      case 'latency':
        return `latency ${effect.latency.turnEnd} ${effect.latency.speechEnd}`;
      case 'interrupted':
        return `interrupted ${effect.items.map(({ item, audioEndMs }) => `${item}@${audioEndMs}`)}`;
      case 'notice':
        return `notice ${effect.notice.code}`;
      default:
        return `${effect.do} ${effect.item ?? ''}`.trim();
    }
  });
}

class Stage {
  turns = new Turns();

  constructor(session = GA_SESSION) {
    this.turns.receive({ type: 'session.created', session }, 0);
  }

  on(type, fields = {}, now = 0, spokenAt = undefined) {
    return told(this.turns.receive({ type, ...fields }, now, spokenAt));
  }

  /** A reply of which one piece is playing. */
  speaking(prefix = 'response.output_audio') {
    this.on('response.created', { response: { id: 'r1' } });
    this.on(`${prefix}.delta`, { response_id: 'r1', item_id: 'i1', delta: 'AAAA' });
    this.turns.started('i1', 0);
    return this;
  }
}

const delta = (response_id, item_id, audio = 'AAAA') => ({ response_id, item_id, delta: audio });

test('a turn from the first word to the last sound', () => {
  const stage = new Stage();
  assert.deepEqual(stage.on('input_audio_buffer.speech_started', { item_id: 'u1' }), ['user: …', 'hearing']);
  assert.deepEqual(stage.on('input_audio_buffer.speech_stopped', { item_id: 'u1', audio_end_ms: 2_000 }, 1_000, (ms) => ms - 1_100), ['thinking']);
  assert.deepEqual(stage.on('conversation.item.input_audio_transcription.delta', { item_id: 'u1', delta: 'Hel' }), ['user: Hel…']);
  assert.deepEqual(stage.on('conversation.item.input_audio_transcription.completed', { item_id: 'u1', transcript: 'Hello?' }), ['user: Hello?.']);
  assert.deepEqual(stage.on('response.created', { response: { id: 'r1' } }), []);
  assert.deepEqual(stage.on('response.output_audio_transcript.delta', delta('r1', 'i1', 'Yes')), ['assistant: Yes…']);
  assert.deepEqual(stage.on('response.output_audio.delta', delta('r1', 'i1')), ['play i1 AAAA']);
  // 2000 ms of audio, of which the last 200 were the silence that ends a turn, so speech ended at 700.
  assert.deepEqual(told(stage.turns.started('i1', 1_250)), ['speaking', 'latency 250 550']);
  assert.deepEqual(stage.on('response.output_audio.done', delta('r1', 'i1')), ['end i1']);
  assert.deepEqual(stage.on('response.output_audio_transcript.done', { ...delta('r1', 'i1'), transcript: 'Yes!' }), ['assistant: Yes!.']);
  assert.deepEqual(stage.on('response.done', { response: { id: 'r1', status: 'completed' } }), []);
  assert.deepEqual(told(stage.turns.finished('i1')), ['listening']);
});

test('preview names mean the same', () => {
  const stage = new Stage({ modalities: ['audio', 'text'], turn_detection: { type: 'server_vad' } });
  stage.on('response.created', { response: { id: 'r1' } });
  assert.deepEqual(stage.on('response.audio_transcript.delta', delta('r1', 'i1', 'Yes')), ['assistant: Yes…']);
  assert.deepEqual(stage.on('response.audio.delta', delta('r1', 'i1')), ['play i1 AAAA', 'speaking']);
  assert.deepEqual(stage.on('response.audio.done', delta('r1', 'i1')), ['end i1']);
  assert.deepEqual(stage.on('conversation.item.created', { item: { type: 'message', role: 'user', id: 'u', content: [{ type: 'input_text', text: 'Hi' }] } }), ['user: Hi.']);
});

test('speech cuts the reply at the sample that was played', () => {
  for (const prefix of ['response.output_audio', 'response.audio']) {
    const stage = new Stage().speaking(prefix);
    assert.deepEqual(stage.on('input_audio_buffer.speech_started', { item_id: 'u1' }), [
      'assistant: . (interrupted)',
      'flush',
      'listening',
      'user: …',
      'hearing',
    ]);
    const positions = [{ item: 'i1', played: 24_023, received: 48_000 }];
    assert.deepEqual(told(stage.turns.flushed(positions)), ['send conversation.item.truncate i1 1000', 'interrupted i1@1000']);
    assert.deepEqual(stage.on(`${prefix}.delta`, delta('r1', 'i1')), [], 'what comes late is not played');
    assert.deepEqual(stage.on(`${prefix}.delta`, delta('r1', 'i2')), [], 'nor is another item of that response');
    assert.deepEqual(stage.on('response.output_audio_transcript.delta', delta('r1', 'i1', 'late')), []);
    assert.deepEqual(told(stage.turns.started('i1', 5)), []);
    assert.deepEqual(stage.on(`${prefix}.delta`, delta('r2', 'i3')), ['play i3 AAAA'], 'the next one is');
  }
});

test('the cut never lies behind what was received', () => {
  const stage = new Stage().speaking();
  stage.turns.interrupt();
  const effects = stage.turns.flushed([{ item: 'i1', played: 4_900, received: 4_800 }, { item: 'i2', played: 0, received: 4_800 }]);
  assert.deepEqual(told(effects).slice(0, 2), ['send conversation.item.truncate i1 200', 'send conversation.item.truncate i2 0']);
  assert.deepEqual(stage.turns.flushed([]), []);
});

test('a reply that has ended but is still being played is cut as well', () => {
  const stage = new Stage().speaking();
  stage.on('response.done', { response: { id: 'r1', status: 'completed' } });
  assert.equal(stage.turns.phase, 'speaking');
  const effects = stage.on('input_audio_buffer.speech_started', { item_id: 'u1' });
  assert.ok(effects.includes('flush') && !effects.some((line) => line.startsWith('send response.cancel')));
});

test('a service that does not stop by itself is told to', () => {
  const session = { type: 'realtime', audio: { input: { turn_detection: { type: 'server_vad', interrupt_response: false } } } };
  const effects = new Stage(session).speaking().on('input_audio_buffer.speech_started', { item_id: 'u1' });
  assert.equal(effects[0], 'send response.cancel r1');
  assert.equal(told(new Stage().speaking().turns.interrupt())[0], 'send response.cancel r1');
});

test('a response that is not wanted any more before it begins is cancelled when it does', () => {
  const stage = new Stage();
  stage.turns.write('Hello', 0);
  assert.deepEqual(told(stage.turns.interrupt()), ['listening']);
  assert.deepEqual(stage.on('response.created', { response: { id: 'r9' } }), ['send response.cancel r9']);
  assert.deepEqual(stage.on('response.output_audio.delta', delta('r9', 'i9')), []);
  assert.equal(stage.turns.phase, 'listening');
});

test('nothing to interrupt, nothing to do', () => {
  assert.deepEqual(new Stage().turns.interrupt(), []);
});

test('writing asks for an answer', () => {
  const stage = new Stage();
  assert.deepEqual(told(stage.turns.write('Hello', 100)), ['send conversation.item.create', 'send response.create', 'thinking']);
  stage.on('response.created', { response: { id: 'r1' } });
  stage.on('response.output_audio.delta', delta('r1', 'i1'));
  assert.deepEqual(told(stage.turns.started('i1', 400)), ['speaking', 'latency 300 300']);
});

test('an answer in writing needs no sound', () => {
  const stage = new Stage();
  stage.turns.write('Hello', 0);
  stage.on('response.created', { response: { id: 'r1' } });
  assert.deepEqual(stage.on('response.output_text.delta', delta('r1', 'i1', 'Hi')), ['assistant: Hi…']);
  assert.deepEqual(stage.on('response.output_text.done', { response_id: 'r1', item_id: 'i1', text: 'Hi.' }), ['assistant: Hi..']);
  assert.deepEqual(stage.on('response.done', { response: { id: 'r1', status: 'completed' } }), ['listening']);
});

test('push to talk: press, release, and a press too short', () => {
  const stage = new Stage();
  assert.deepEqual(told(stage.turns.press()), ['send input_audio_buffer.clear', 'hearing']);
  assert.deepEqual(told(stage.turns.commit(50)), ['send input_audio_buffer.commit', 'send response.create', 'thinking']);
  assert.deepEqual(told(new Stage().turns.retract()), ['send input_audio_buffer.clear']);
  const effects = told(new Stage().speaking().turns.press());
  assert.ok(effects.includes('flush') && effects.includes('send response.cancel r1'));
});

test('what goes wrong in a session is told, and the session goes on', () => {
  const stage = new Stage();
  stage.turns.write('Hello', 0);
  assert.deepEqual(stage.on('error', { error: { code: 'invalid_value', message: 'no' } }), ['notice invalid_value', 'listening']);
  assert.deepEqual(stage.on('error', { error: { code: 'response_cancel_not_active' } }), []);
  const failed = { id: 'r', status: 'failed', status_details: { error: { code: 'rate_limit_exceeded', message: 'slow' } } };
  assert.deepEqual(stage.on('response.done', { response: failed }), ['notice rate_limit_exceeded']);
  const cut = { id: 'r', status: 'incomplete', status_details: { reason: 'content_filter' } };
  assert.deepEqual(stage.on('response.done', { response: cut }), ['notice session_content_filtered']);
  const [caption, notice] = stage.on('conversation.item.input_audio_transcription.failed', { item_id: 'u', error: { code: 'DeploymentNotFound', message: 'gone' } });
  assert.deepEqual([caption, notice], ['user: .', 'notice DeploymentNotFound']);
});

test('events that are damaged do not throw', () => {
  const stage = new Stage();
  for (const type of ['response.created', 'response.done', 'conversation.item.added', 'error', 'session.updated', 'input_audio_buffer.speech_stopped', 'response.output_audio_transcript.delta', 'something.new']) {
    stage.on(type);
  }
});

test('what was interrupted is remembered, within bounds', () => {
  const stage = new Stage();
  for (let number = 0; number < 1_000; number += 1) {
    stage.on('response.created', { response: { id: `r${number}` } });
    stage.turns.interrupt();
  }
  assert.deepEqual(stage.on('response.output_audio.delta', delta('r999', 'i')), []);
  assert.equal(stage.on('response.output_audio.delta', delta('r0', 'i'))[0], 'play i AAAA');
});

test('tokens by modality', () => {
  const usage = usageOf({
    input_token_details: { text_tokens: 3, audio_tokens: 40, cached_tokens_details: { text_tokens: 2, audio_tokens: 1 } },
    output_token_details: { text_tokens: 5, audio_tokens: 60 },
  });
  assert.deepEqual(usage, {
    input: { text: 3, audio: 40, image: 0 },
    output: { text: 5, audio: 60, image: 0 },
    cached: { text: 2, audio: 1, image: 0 },
  });
  assert.deepEqual(usageOf({}).input, { text: 0, audio: 0, image: 0 });
});

test('settings in both vocabularies', () => {
  const settings = { voice: 'marin', transcriptionModel: 'whisper-1', turnDetection: false };
  assert.deepEqual(sessionUpdate('ga', settings), {
    type: 'session.update',
    session: {
      type: 'realtime',
      audio: { input: { transcription: { model: 'whisper-1' }, turn_detection: null }, output: { voice: 'marin' } },
    },
  });
  assert.deepEqual(sessionUpdate('preview', settings), {
    type: 'session.update',
    session: { voice: 'marin', input_audio_transcription: { model: 'whisper-1' }, turn_detection: null },
  });
  assert.equal(sessionUpdate('ga', {}), null);
  assert.equal(sessionUpdate('preview', { transcriptionModel: null })?.session.input_audio_transcription, null);
  assert.equal(dialectOf({ type: 'realtime' }), 'ga');
  assert.equal(dialectOf({ input_audio_format: 'pcm16' }), 'preview');
  assert.equal(turnDetectionOf({ type: 'realtime', audio: { input: { turn_detection: null } } }).on, false);
});

test('sent audio is found again by its position', () => {
  const clock = new SentClock();
  assert.equal(clock.at(0), null);
  for (let chunk = 1; chunk <= 3_000; chunk += 1) clock.sent(20, 10_000 + chunk * 20);
  assert.equal(clock.at(60_000), 70_000);
  assert.equal(clock.at(59_990), 69_990);
  assert.equal(clock.at(60_001), null, 'not sent yet');
  assert.equal(clock.at(1_000), null, 'forgotten');
});
