/**
 * Runs in the audio thread: hands the microphone's chunks to the page.
 */

import { Chunker } from './chunker.js';

class CaptureProcessor extends AudioWorkletProcessor {
  #chunker;

  /** @param {{ processorOptions?: Record<string, any> }} options */
  constructor(options) {
    super();
    this.#chunker = new Chunker({
      rate: sampleRate,
      chunkMilliseconds: options.processorOptions?.chunkMilliseconds,
      emit: ({ pcm, level }) => this.port.postMessage({ pcm, level }, [pcm.buffer]),
    });
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const [channels] = inputs;
    if (channels && channels.length > 0) this.#chunker.push(channels);
    return true;
  }
}

registerProcessor('talkline-capture', CaptureProcessor);
