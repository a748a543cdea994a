// Real processes, a real browser, and a page that is watched without its knowing.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { chromium } from 'playwright-core';

const START_MS = 30_000;
const STOP_MS = 10_000;
const RATE = 24_000;
const SHOTS = process.env.TALKLINE_SHOTS ?? join(tmpdir(), 'talkline-shots');

/** A `talkline` whose output is kept, line by line, and can be waited for. */
export class Talkline {
  output = [];
  #changed = new EventEmitter();
  #closed = false;

  constructor(args, environment = {}) {
    this.started = performance.now();
    this.home = mkdtempSync(join(tmpdir(), 'talkline-home-'));
    // Nothing of the tester's environment: a key that happens to be set there must not help.
    this.child = spawn(process.env.TALKLINE_BIN, args, {
      env: { PATH: process.env.PATH, HOME: this.home, ...environment },
      cwd: this.home,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.killAtExit = () => this.child.kill('SIGKILL');
    process.once('exit', this.killAtExit);
    this.child.on('error', (error) => this.#keep(`${error}`));
    for (const input of [this.child.stdout, this.child.stderr]) {
      createInterface({ input }).on('line', (line) => this.#keep(line));
    }
    this.ended = new Promise((resolve) => this.child.on('close', resolve)).then(() => {
      this.#closed = true;
      this.#changed.emit('change');
    });
  }

  #keep(line) {
    this.output.push(line);
    this.#changed.emit('change');
  }

  /** The first group of the first line that matches, waited for if need be. */
  async find(pattern) {
    const found = () => this.output.map((line) => pattern.exec(line)).find((match) => match)?.[1];
    const signal = AbortSignal.timeout(START_MS);
    while (found() === undefined && !this.#closed) {
      try {
        await once(this.#changed, 'change', { signal });
      } catch {
        break;
      }
    }
    if (found() === undefined) throw new Error(`no line matches ${pattern}; all that was printed:\n${this.output.join('\n')}`);
    return found();
  }

  async stop(signal = 'SIGTERM') {
    this.child.kill(signal);
    const killer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
    await this.ended;
    clearTimeout(killer);
    process.removeListener('exit', this.killAtExit);
    rmSync(this.home, { recursive: true, force: true });
  }
}

/** The demo: its page's address and its process. */
export async function demo(...options) {
  const talkline = new Talkline(['demo', ...options]);
  return { talkline, url: await talkline.find(/^Talk in the browser: (\S+)$/) };
}

/** A simulator and a relay with a configuration of the test's own. */
export class Line {
  key = `client-${randomBytes(16).toString('hex')}`;
  #azureKey = `azure-${randomBytes(16).toString('hex')}`;
  #folder = mkdtempSync(join(tmpdir(), 'talkline-line-'));
  port = 0;

  /**
   * `deployment` may name one of the simulator's refusals; `clients` says who is let in, `host` under
   * which name besides its own the relay answers, `more` any other tables of the configuration.
   */
  static async start({ deployment = 'gpt-realtime', clients = 'allowAnonymous = true', host = 'localhost', more = '' } = {}) {
    const line = new Line();
    line.sim = new Talkline(['sim'], { TALKLINE_SIM_API_KEY: line.#azureKey });
    const endpoint = await line.sim.find(/^listening on (\S+)$/);
    line.settings = { endpoint, deployment, clients, host, more };
    await line.startRelay();
    return line;
  }

  /** Starts the relay, at the port that it had before. */
  async startRelay() {
    const { endpoint, deployment, clients, host, more } = this.settings;
    const file = join(this.#folder, 'talkline.toml');
    writeFileSync(
      file,
      `
server.listen = "127.0.0.1:${this.port}"
server.allowedHosts = ["${host}"]
ui.enabled = true
[clients]
${clients}
[talk.realtime]
provider = "openai"
transport = "gateway-relay"
[talk.realtime.providers.openai]
azureEndpoint = "${endpoint}"
azureDeployment = "${deployment}"
apiKey = { env = "AZURE_OPENAI_API_KEY" }
${more}
`,
    );
    this.relay = new Talkline(['run', '--config', file], {
      TALKLINE_TEST_KEY: this.key,
      AZURE_OPENAI_API_KEY: this.#azureKey,
    });
    this.port = Number(new URL(await this.relay.find(/^listening on (\S+)$/)).port);
  }

  get url() {
    return `http://${this.settings.host}:${this.port}/talk/`;
  }

  async stop() {
    await this.relay.stop();
    await this.sim.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A clip of the simulator's, as samples. */
export function clip(name) {
  const bytes = readFileSync(join(process.env.TALKLINE_ASSETS, `${name}.wav`));
  let at = 12;
  while (bytes.toString('latin1', at, at + 4) !== 'data') at += 8 + bytes.readUInt32LE(at + 4);
  const data = bytes.subarray(at + 8, at + 8 + bytes.readUInt32LE(at + 4));
  return new Int16Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
}

export const silence = (seconds) => new Int16Array(Math.round(seconds * RATE));

const base64 = (samples) => Buffer.from(samples.buffer).toString('base64');

function wav(pieces) {
  const samples = Int16Array.from(pieces.flatMap((piece) => [...piece]));
  const head = Buffer.alloc(44);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(36 + samples.length * 2, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(RATE, 24);
  head.writeUInt32LE(RATE * 2, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36, 'latin1');
  head.writeUInt32LE(samples.length * 2, 40);
  return Buffer.concat([head, Buffer.from(samples.buffer)]);
}

/** A name that leads to this machine and, by http, is not what browsers call secure. */
export const INSECURE_HOST = 'relay.test';

/**
 * A browser at a page.
 *
 * `says` is what its microphone hears, once, from the moment when it is opened; with `mouth` it hears
 * what `say` is told to, when it is told to, instead of a recording that does not wait for a slow
 * machine. `microphone` may be `denied` or `missing`. With `ears` all that is played is kept; that
 * takes a worklet of our own, which the page's content security policy would not let in, so it is off
 * there. With `noise` a reply has no silence, so that where it was cut can be told to the sample.
 */
export class Visitor {
  complaints = [];

  static async at(url, { says = [silence(1)], mouth = false, microphone = 'allowed', ears = false, noise = false, width = 1180, height = 1000, dark = false } = {}) {
    const visitor = new Visitor();
    visitor.folder = mkdtempSync(join(tmpdir(), 'talkline-visitor-'));
    const file = join(visitor.folder, 'says.wav');
    // Silence follows for as long as any test takes: without it the fake device would start over.
    writeFileSync(file, wav([...says, silence(150)]));
    visitor.context = await chromium.launchPersistentContext(join(visitor.folder, 'profile'), {
      executablePath: process.env.TALKLINE_CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      viewport: { width, height },
      bypassCSP: ears,
      // The certificate of `--tls-dev` is known to nobody.
      ignoreHTTPSErrors: true,
      colorScheme: dark ? 'dark' : 'light',
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--autoplay-policy=user-gesture-required',
        // The page, and nothing else.
        `--host-resolver-rules=MAP ${INSECURE_HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1`,
        ...(microphone === 'missing' ? [] : ['--use-fake-device-for-media-stream', `--use-file-for-fake-audio-capture=${file}%noloop`]),
        microphone === 'denied' ? '--deny-permission-prompts' : '--use-fake-ui-for-media-stream',
      ],
    });
    visitor.page = visitor.context.pages()[0] ?? (await visitor.context.newPage());
    visitor.page.on('pageerror', (error) => visitor.complaints.push(`${error.stack ?? error}`));
    visitor.page.on('console', (message) => {
      // A request that is refused on purpose is no fault of the page, nor is an address that is insecure on purpose.
      const meant = /Failed to load resource|WebSocket connection to|Cross-Origin-Opener-Policy header has been ignored/;
      if (message.type() === 'error' && !meant.test(message.text())) {
        visitor.complaints.push(message.text());
      }
    });
    await visitor.page.addInitScript(watch, { ear: ears ? EAR : null, mouth, noise });
    await visitor.page.goto(url);
    return visitor;
  }

  /** Begins to say a clip into the microphone. */
  say(name) {
    return this.page.evaluate((bytes) => void window.watched.say(bytes), base64(clip(name)));
  }

  /** Says a clip into the microphone, to its end. */
  sayAll(name) {
    return this.page.evaluate((bytes) => window.watched.say(bytes), base64(clip(name)));
  }

  /** Waits until nothing of the microphone is sent any more. */
  rest() {
    return this.until(() => {
      const last = window.watched.sent.findLast(({ event }) => event.type === 'input_audio_buffer.append');
      return !last || performance.now() - last.at > 400;
    });
  }

  /** Holds back the sound of a reply, and what follows it, until `letGo`. */
  hold() {
    return this.page.evaluate(() => {
      window.watched.held = [];
    });
  }

  letGo() {
    return this.page.evaluate(() => {
      const held = window.watched.held;
      window.watched.held = null;
      for (const give of held) give();
    });
  }

  /** Waits until the page is in one of these states. */
  async state(...states) {
    const selector = states.map((state) => `body[data-state="${state}"]`).join(', ');
    await this.page.waitForSelector(selector, { timeout: 30_000 });
  }

  /** Waits for something that the page says of itself, and returns it. */
  async until(expression, argument, timeout = 30_000) {
    const handle = await this.page.waitForFunction(expression, argument, { timeout, polling: 20 });
    return handle.jsonValue();
  }

  /** What the page told the relay, or the relay the page. */
  events(side, type) {
    return this.page.evaluate(({ side, type }) => window.watched[side].filter(({ event }) => event.type === type), { side, type });
  }

  text(id) {
    return this.page.locator(`#${id}`).innerText();
  }

  async shot(name, { fullPage = true } = {}) {
    mkdirSync(SHOTS, { recursive: true });
    // Colours on their way from one state to the next belong to neither.
    await this.page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage, animations: 'disabled' });
  }

  async leave() {
    await this.context.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Hears all that an audio node puts out. */
const EAR = `
class Ear extends AudioWorkletProcessor {
  process(inputs) {
    const [samples] = inputs[0] ?? [];
    if (samples) this.port.postMessage(samples.slice());
    return true;
  }
}
registerProcessor('ear', Ear);
`;

/** Runs in the page before its own scripts: it can use nothing from around it. */
function watch({ ear, mouth, noise }) {
  const watched = { sent: [], received: [], heard: [], firstHeard: null, tracks: [], held: null };
  window.watched = watched;

  const devices = navigator.mediaDevices;
  if (devices) {
    const ask = devices.getUserMedia.bind(devices);
    let lips;
    devices.getUserMedia = async (constraints) => {
      const stream = await ask(constraints);
      watched.tracks.push(...stream.getAudioTracks());
      if (!mouth) return stream;
      lips = new AudioContext({ sampleRate: 24_000 }).createMediaStreamDestination();
      return lips.stream;
    };
    watched.say = (base64) => {
      const samples = Float32Array.from(new Int16Array(bytesOf(base64).buffer), (sample) => sample / 32_768);
      const buffer = lips.context.createBuffer(1, samples.length, 24_000);
      buffer.copyToChannel(samples, 0);
      const source = new AudioBufferSourceNode(lips.context, { buffer });
      source.connect(lips);
      source.start();
      return new Promise((resolve) => source.addEventListener('ended', () => resolve()));
    };
  }

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  /** Lifts silence to what nobody hears and a comparison sees. */
  const lifted = (data) => {
    const event = JSON.parse(data);
    if (!noise || !/audio\.delta$/.test(event.type)) return data;
    const samples = new Int16Array(bytesOf(event.delta).buffer).map((sample) => sample || 1);
    return JSON.stringify({ ...event, delta: btoa(String.fromCharCode(...new Uint8Array(samples.buffer))) });
  };
  const forget = (event) => (typeof event.audio === 'string' ? { ...event, audio: event.audio.length } : event);
  window.WebSocket = class extends WebSocket {
    constructor(...all) {
      super(...all);
      this.addEventListener('message', ({ data }) => {
        watched.received.push({ at: performance.now(), event: JSON.parse(lifted(data)) });
      });
    }

    set onmessage(listener) {
      super.onmessage = ({ data }) => {
        const give = () => listener({ data: lifted(data) });
        const { held } = watched;
        if (held && (held.length > 0 || /audio\.delta"/.test(data))) held.push(give);
        else give();
      };
    }

    send(data) {
      watched.sent.push({ at: performance.now(), event: forget(JSON.parse(data)) });
      super.send(data);
    }
  };

  const connect = AudioNode.prototype.connect;
  const Node = AudioWorkletNode;
  AudioNode.prototype.connect = function (target, ...rest) {
    // The player is the only one that leads to the loudspeaker without hearing anything itself.
    if (ear && target instanceof AudioDestinationNode && this instanceof Node && this.numberOfInputs === 0) void listen(this);
    return connect.call(this, target, ...rest);
  };

  async function listen(player) {
    const { context } = player;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([ear], { type: 'text/javascript' })));
    const node = new Node(context, 'ear', { numberOfInputs: 1, numberOfOutputs: 1 });
    node.port.onmessage = ({ data }) => {
      const loud = data.some((sample) => sample !== 0);
      if (loud && watched.firstHeard === null) watched.firstHeard = performance.now();
      if (loud || watched.heard.length > 0) watched.heard.push(data);
    };
    connect.call(player, node);
    connect.call(node, context.destination);
  }

  /** The audio that came for an item, as samples. */
  watched.receivedAudio = (item) => {
    const pieces = watched.received
      .filter(({ event }) => /audio\.delta$/.test(event.type) && (!item || event.item_id === item))
      .map(({ event }) => bytesOf(event.delta));
    const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return new Int16Array(bytes.buffer);
  };

  /**
   * How much of what came was heard from its first loud sample on, one after the other and
   * unchanged; and how much of it there was to hear.
   */
  watched.compare = (item) => {
    const came = watched.receivedAudio(item);
    const heard = new Float32Array(watched.heard.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of watched.heard) {
      heard.set(piece, at);
      at += piece.length;
    }
    const first = came.findIndex((sample) => sample !== 0);
    let start = heard.findIndex((sample) => sample !== 0);
    let same = 0;
    while (first + same < came.length && heard[start + same] === came[first + same] / 32768) same += 1;
    return { came: came.length, first, same, rest: came.length - first - same };
  };
}
