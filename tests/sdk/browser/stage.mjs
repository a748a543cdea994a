// Two origins with pages, a relay over TLS, a simulator, and a browser whose network is written down.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const START_MS = 30_000;
const STOP_MS = 10_000;
export const MODEL = 'gpt-realtime';
export const OTHER_MODEL = 'gpt-realtime-mini';

class Talkline {
  output = [];
  #changed = new EventEmitter();
  #closed = false;

  constructor(args, home, environment) {
    this.child = spawn(process.env.TALKLINE_BIN, args, {
      env: { PATH: process.env.PATH, HOME: home, ...environment },
      cwd: home,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.killAtExit = () => this.child.kill('SIGKILL');
    process.once('exit', this.killAtExit);
    for (const input of [this.child.stdout, this.child.stderr]) {
      createInterface({ input }).on('line', (line) => {
        this.output.push(line);
        this.#changed.emit('change');
      });
    }
    this.ended = new Promise((resolve) => this.child.on('close', resolve)).then(() => {
      this.#closed = true;
      this.#changed.emit('change');
    });
  }

  /** The first group of the first line that matches, waited for if need be. */
  async find(pattern) {
    const found = () => this.output.map((line) => pattern.exec(line)).find((match) => match)?.[1];
    await this.until(() => found() !== undefined);
    if (found() === undefined) throw new Error(`no line matches ${pattern}:\n${this.output.join('\n')}`);
    return found();
  }

  /** Waits until the output is as wanted, or no more of it comes. */
  async until(isSo) {
    const signal = AbortSignal.timeout(START_MS);
    while (!isSo() && !this.#closed && !signal.aborted) {
      await once(this.#changed, 'change', { signal }).catch(() => {});
    }
  }

  async stop() {
    this.child.kill('SIGTERM');
    const killer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
    await this.ended;
    clearTimeout(killer);
    process.removeListener('exit', this.killAtExit);
  }
}

export class Stage {
  clientKey = `client-${randomBytes(16).toString('hex')}`;
  azureKey = `azure-${randomBytes(16).toString('hex')}`;
  prompt = `Keep this to yourself: ${randomBytes(16).toString('hex')}`;
  home = mkdtempSync(join(tmpdir(), 'talkline-pages-'));
  /** Everything that the browser sent, as text. */
  network = [];
  #ending = [];

  static async with(use) {
    const stage = new Stage();
    try {
      await stage.#start();
      await use(stage);
    } catch (error) {
      console.error(stage.relay?.output.join('\n'));
      throw error;
    } finally {
      for (const end of stage.#ending.reverse()) await end();
      rmSync(stage.home, { recursive: true, force: true });
    }
  }

  async #start() {
    this.bundles = await bundles();
    this.origin = await this.#serve();
    this.otherOrigin = await this.#serve();
    this.hostileOrigin = await this.#serve();
    const sim = this.#spawn(['sim', '--listen', '127.0.0.1:0', '--record', this.#record], {
      TALKLINE_SIM_API_KEY: this.azureKey,
    });
    const endpoint = await sim.find(/^listening on (\S+)$/);
    writeFileSync(join(this.home, 'talkline.toml'), settings(endpoint, [this.origin, this.otherOrigin]));
    this.relay = this.#spawn(['run', '--tls-dev', '--log-format', 'json'], {
      TALKLINE_CLIENT_KEY: this.clientKey,
      AZURE_KEY: this.azureKey,
    });
    this.port = new URL(await this.relay.find(/^listening on (\S+)$/)).port;
    await this.#browse();
  }

  #spawn(args, environment) {
    const child = new Talkline(args, this.home, environment);
    this.#ending.push(() => child.stop());
    return child;
  }

  /** A site of its own: a page, and a back end that has a client key and mints tokens for its page. */
  async #serve() {
    const server = createServer(async (request, response) => {
      const { pathname } = new URL(request.url, 'http://site');
      if (pathname === '/token') {
        const answer = await this.mint({ talkline: { origin } });
        response.writeHead(answer.status, { 'content-type': 'application/json' });
        return response.end(JSON.stringify(answer.body));
      }
      const bundle = this.bundles.get(pathname);
      response.writeHead(200, { 'content-type': bundle ? 'text/javascript' : 'text/html' });
      return response.end(bundle ?? '<!doctype html><meta charset="utf-8"><title>Page</title>');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.#ending.push(() => new Promise((resolve) => server.close(resolve)));
    const origin = `http://127.0.0.1:${server.address().port}`;
    return origin;
  }

  async #browse() {
    const profile = join(this.home, 'profile');
    this.context = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.TALKLINE_CHROMIUM,
      headless: true,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
        // A page cannot be told to trust one CA.
        '--ignore-certificate-errors',
      ],
    });
    this.#ending.push(() => this.context.close());
  }

  /** A page of an origin, with scripts in it. */
  async page(origin, ...scripts) {
    const page = await this.context.newPage();
    const log = await this.context.newCDPSession(page);
    await log.send('Network.enable');
    const events = [
      'Network.requestWillBeSent',
      'Network.requestWillBeSentExtraInfo',
      'Network.responseReceived',
      'Network.webSocketCreated',
      'Network.webSocketWillSendHandshakeRequest',
      'Network.webSocketHandshakeResponseReceived',
      'Network.webSocketFrameSent',
      'Network.webSocketFrameReceived',
    ];
    for (const name of events) {
      log.on(name, (event) => this.network.push(`${name} ${JSON.stringify(event)}`));
    }
    await page.goto(`${origin}/`);
    for (const script of scripts) await page.addScriptTag({ url: `${origin}${script}` });
    return page;
  }

  /** What a page's back end does: asks the relay for a token with its own key. */
  async mint(body) {
    const { status, text } = await post(this.port, '/v1/realtime/client_secrets', this.clientKey, {
      session: { type: 'realtime', model: MODEL, instructions: this.prompt },
      ...body,
    });
    return { status, body: JSON.parse(text) };
  }

  url(model = MODEL) {
    return `wss://localhost:${this.port}/v1/realtime?model=${model}`;
  }

  /** What the simulator was asked. */
  requests() {
    if (!existsSync(this.#record)) return [];
    return readFileSync(this.#record, 'utf8').trim().split('\n').filter(Boolean).map(JSON.parse);
  }

  get #record() {
    return join(this.home, 'requests.jsonl');
  }

  /** Opens a bare WebSocket in a page: `open`, or the code that it was closed with. */
  knock(page, url, token) {
    return page.evaluate(
      ([target, offered]) =>
        new Promise((resolve) => {
          const protocols = offered ? ['realtime', `openai-insecure-api-key.${offered}`] : ['realtime'];
          const socket = new WebSocket(target, protocols);
          socket.onopen = () => {
            socket.close();
            resolve('open');
          };
          socket.onclose = ({ code }) => resolve(code);
        }),
      [url, token],
    );
  }

  /** The codes with which the relay refused clients, in order, once its log has this many. */
  async refusals(count) {
    const lines = () => this.relay.output.filter((line) => line.includes('"client refused"'));
    await this.relay.until(() => lines().length >= count);
    return lines()
      .map((line) => JSON.parse(line))
      .map((line) => line.fields?.code ?? line.code);
  }
}

function settings(endpoint, origins) {
  const provider = (name, deployment) => `
[talk.realtime.providers.${name}]
type = "azure-openai"
azureEndpoint = "${endpoint.replace('ws', 'http')}"
azureDeployment = "${deployment}"
apiKey = { env = "AZURE_KEY" }
`;
  return `
[server]
listen = "127.0.0.1:0"
allowedOrigins = ${JSON.stringify(origins)}
[talk.realtime]
provider = "one"
${provider('one', MODEL)}${provider('two', OTHER_MODEL)}`;
}

async function bundles() {
  const here = fileURLToPath(new URL('.', import.meta.url));
  const built = await build({
    entryPoints: ['agents', 'agents-umd', 'openai'].map((name) => join(here, `${name}.page.mjs`)),
    outdir: '/',
    bundle: true,
    format: 'iife',
    // What a bundler takes for a page: the packages' own browser code, unmodified.
    platform: 'browser',
    conditions: ['browser'],
    write: false,
    logLevel: 'error',
  });
  const pages = built.outputFiles.map((file) => [`/${file.path.split('/').pop()}`, file.text]);
  // The bundle that @openai/agents-realtime itself has for script tags, byte for byte.
  const own = new URL('bundle/openai-realtime-agents.umd.js', import.meta.resolve('@openai/agents-realtime'));
  return new Map([...pages, ['/agents-own.js', readFileSync(own, 'utf8')]]);
}

/** HTTPS to a certificate that this machine has just made. */
async function post(port, path, key, body) {
  const { request } = await import('node:https');
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: 'localhost',
        port,
        path,
        method: 'POST',
        rejectUnauthorized: false,
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      },
      (response) => {
        let text = '';
        response.on('data', (piece) => (text += piece));
        response.on('end', () => resolve({ status: response.statusCode, text }));
      },
    );
    sent.on('error', reject);
    sent.end(JSON.stringify(body));
  });
}
