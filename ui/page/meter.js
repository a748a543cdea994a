/** What is heard and what is played, drawn as a ring around the button and as two bars. */

import { element } from './dom.js';

const SPOKES = 72;
/** How much of a drawn level stays from one frame to the next, so that it does not flicker. */
const DECAY = 0.82;

/**
 * @typedef {object} Source
 * @property {AnalyserNode | undefined} input
 * @property {AnalyserNode | undefined} output
 * @property {'input' | 'output' | 'none'} shown in the ring
 */

export class Meter {
  #canvas = element('wave', HTMLCanvasElement);
  #input = element('meter-in', HTMLElement);
  #output = element('meter-out', HTMLElement);
  #source;
  #levels = new Float32Array(SPOKES);
  #bars = { input: 0, output: 0 };
  #samples = new Float32Array(2_048);
  #still = matchMedia('(prefers-reduced-motion: reduce)');
  #running = false;

  /** @param {() => Source} source asked at every frame */
  constructor(source) {
    this.#source = source;
    this.#draw();
    addEventListener('resize', () => this.#draw());
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    requestAnimationFrame(() => this.#frame());
  }

  stop() {
    this.#running = false;
  }

  /** Draws once, as after a change of colours. */
  refresh() {
    this.#draw();
  }

  #frame() {
    const { input, output, shown } = this.#source();
    this.#bars.input = Math.max(this.#level(input), this.#bars.input * DECAY);
    this.#bars.output = Math.max(this.#level(output), this.#bars.output * DECAY);
    this.#input.style.setProperty('--level', this.#bars.input.toFixed(3));
    this.#output.style.setProperty('--level', this.#bars.output.toFixed(3));
    const analyser = shown === 'input' ? input : shown === 'output' ? output : undefined;
    this.#follow(analyser);
    this.#draw();
    const rests = this.#levels.every((level) => level < 0.005) && this.#bars.input + this.#bars.output < 0.01;
    if (this.#running || !rests) requestAnimationFrame(() => this.#frame());
  }

  /**
   * Loudness, as the ear has it: -50 dB is nothing, 0 dB is 1.
   *
   * @param {AnalyserNode | undefined} analyser
   */
  #level(analyser) {
    if (!analyser || analyser.context.state !== 'running') return 0;
    analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const sample of this.#samples) sum += sample * sample;
    const decibels = 10 * Math.log10(sum / this.#samples.length + 1e-9);
    return Math.max(0, Math.min(1, (decibels + 50) / 40));
  }

  /**
   * The waveform around the ring: each spoke is the loudest of its part.
   *
   * @param {AnalyserNode | undefined} analyser
   */
  #follow(analyser) {
    if (analyser && analyser.context.state === 'running') analyser.getFloatTimeDomainData(this.#samples);
    else this.#samples.fill(0);
    const each = Math.floor(this.#samples.length / SPOKES);
    for (let spoke = 0; spoke < SPOKES; spoke += 1) {
      let peak = 0;
      for (let at = spoke * each; at < (spoke + 1) * each; at += 1) {
        peak = Math.max(peak, Math.abs(this.#samples[at] ?? 0));
      }
      const height = Math.min(1, Math.sqrt(peak) * 1.15);
      this.#levels[spoke] = Math.max(height, (this.#levels[spoke] ?? 0) * DECAY);
    }
  }

  #draw() {
    const canvas = this.#canvas;
    const size = canvas.clientWidth;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(size * scale)) {
      canvas.width = Math.round(size * scale);
      canvas.height = canvas.width;
    }
    const context = canvas.getContext('2d');
    if (!context) return;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, size, size);
    context.translate(size / 2, size / 2);
    const style = getComputedStyle(canvas);
    const { shown } = this.#source();
    context.strokeStyle = style.getPropertyValue('color');
    context.lineCap = 'round';
    context.lineWidth = 3;
    const inner = size * 0.335;
    const reach = size * 0.145;
    const calm = this.#still.matches;
    const average = this.#levels.reduce((sum, level) => sum + level, 0) / SPOKES;
    for (let spoke = 0; spoke < SPOKES; spoke += 1) {
      const level = calm ? average : (this.#levels[spoke] ?? 0);
      const angle = (spoke / SPOKES) * 2 * Math.PI - Math.PI / 2;
      const length = 1.5 + level * reach;
      context.globalAlpha = shown === 'none' ? 0.28 : 0.3 + 0.6 * level;
      context.beginPath();
      context.moveTo(Math.cos(angle) * inner, Math.sin(angle) * inner);
      context.lineTo(Math.cos(angle) * (inner + length), Math.sin(angle) * (inner + length));
      context.stroke();
    }
  }
}
