// The recordings that the simulator ships, and the words spoken in them.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const ASSETS = process.env.TALKLINE_ASSETS;
const BYTES_PER_SECOND = 24_000 * 2;

/** A clip by its name: `text`, and `pcm` at 24 kHz, mono, 16 bits. */
export function clip(name) {
  const readme = readFileSync(join(ASSETS, 'README.md'), 'utf8');
  const rows = [...readme.matchAll(/\| `(\S+)\.wav` \| (.+?) \|/g)];
  const text = rows.find((row) => row[1] === name)?.[2];
  if (text === undefined) throw new Error(`no text for the clip ${name}`);
  return { text, pcm: pcm(readFileSync(join(ASSETS, `${name}.wav`))) };
}

/** The samples of a WAV file: the content of its `data` chunk. */
function pcm(wav) {
  let at = 12;
  while (at + 8 <= wav.length) {
    const id = wav.toString('latin1', at, at + 4);
    const size = wav.readUInt32LE(at + 4);
    if (id === 'data') return wav.subarray(at + 8, at + 8 + size);
    at += 8 + size + (size % 2);
  }
  throw new Error('a WAV file without samples');
}

/** Audio in pieces of 100 ms, as a microphone would deliver it. */
export function pieces(audio) {
  const size = BYTES_PER_SECOND / 10;
  const all = [];
  for (let at = 0; at < audio.length; at += size) all.push(audio.subarray(at, at + size));
  return all;
}

/** Silence, by which a service with voice activity detection knows that a turn is over. */
export function silence(seconds) {
  return Buffer.alloc(BYTES_PER_SECOND * seconds);
}
