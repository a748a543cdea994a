// Talkline between a simulator of Azure and a client, as three real processes would have it.

import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const DEPLOYMENT = 'gpt-realtime';

const START_MS = 20_000;
const STOP_MS = 10_000;
const TURN_MS = 60_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** Rejects when `promise` takes longer than `ms`; says so in the words of `problem`. */
async function within(ms, problem, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(problem())), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A child whose output is kept, and whose first line says where it listens. */
class Process {
  output = '';

  constructor(name, args, environment) {
    this.name = name;
    // Nothing of the tester's environment: a key that happens to be set there must not help.
    this.child = spawn(process.env.TALKLINE_BIN, args, {
      env: { PATH: process.env.PATH, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    // A test runner that is ended must not leave servers behind.
    this.killAtExit = () => this.child.kill('SIGKILL');
    process.once('exit', this.killAtExit);
    this.ended = once(this.child, 'close');
    this.ended.catch((error) => (this.output += `${error}\n`));
    this.child.stderr.on('data', (data) => (this.output += data));
    const lines = createInterface({ input: this.child.stdout });
    this.firstLine = new Promise((resolve) => {
      lines.on('line', (line) => {
        this.output += `${line}\n`;
        resolve(line);
      });
      lines.on('close', () => resolve(undefined));
    });
  }

  /** The URL in `listening on <URL>`, the first line of standard output. */
  async address() {
    const silent = () => this.said(`said nothing for ${START_MS} ms`);
    const line = await within(START_MS, silent, this.firstLine);
    const found = /^listening on (\S+)$/.exec(line ?? '');
    if (!found) throw new Error(this.said(`printed ${JSON.stringify(line)} first`));
    return found[1];
  }

  said(problem) {
    return `talkline ${this.name} ${problem}; all it printed:\n${this.output}`;
  }

  async stop() {
    this.child.kill('SIGTERM');
    const killer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
    await this.ended.catch(() => {});
    clearTimeout(killer);
    process.removeListener('exit', this.killAtExit);
  }
}

/** A simulator and a relay over TLS in front of it. */
export class Line {
  clientKey = `client-${randomBytes(16).toString('hex')}`;
  azureKey = `azure-${randomBytes(16).toString('hex')}`;
  folder = mkdtempSync(join(tmpdir(), 'talkline-sdk-'));
  processes = [];

  /** Starts a line for `use` and ends it on every path; shows its output when `use` fails. */
  static async with(use) {
    const line = new Line();
    try {
      await line.#start();
      await use(line);
    } catch (error) {
      for (const each of line.processes) console.error(each.said('was running'));
      throw error;
    } finally {
      for (const each of line.processes.reverse()) await each.stop();
      rmSync(line.folder, { recursive: true, force: true });
    }
  }

  async #start() {
    const sim = this.#spawn('sim', ['sim', '--listen', '127.0.0.1:0', '--record', this.#record], {
      TALKLINE_SIM_API_KEY: this.azureKey,
    });
    const config = join(this.folder, 'talkline.toml');
    writeFileSync(config, settings(await sim.address()));
    this.relay = this.#spawn('run', ['run', '--config', config, '--tls-dev'], {
      TALKLINE_CLIENT_KEY: this.clientKey,
      AZURE_OPENAI_API_KEY: this.azureKey,
      XDG_DATA_HOME: join(this.folder, 'data'),
    });
    this.port = new URL(await this.relay.address()).port;
  }

  #spawn(name, args, environment) {
    const child = new Process(name, args, { HOME: this.folder, ...environment });
    this.processes.push(child);
    return child;
  }

  get #record() {
    return join(this.folder, 'requests.jsonl');
  }

  /** The file that `--tls-dev` tells the user to trust. */
  get certificate() {
    const exports = [...this.relay.output.matchAll(/^\s*export NODE_EXTRA_CA_CERTS=(.+)$/gm)];
    if (exports.length !== 1) {
      throw new Error(this.relay.said('printed no single NODE_EXTRA_CA_CERTS line'));
    }
    return exports[0][1].replace(/^['"]|['"]$/g, '');
  }

  /** What the simulator was asked, oldest first. */
  requests() {
    if (!existsSync(this.#record)) return [];
    const lines = readFileSync(this.#record, 'utf8').split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line));
  }

  /**
   * Runs a client program as its user would: in a process of its own, since Node reads
   * NODE_EXTRA_CA_CERTS only at its start. Returns the JSON it prints.
   */
  async talk(program, ...args) {
    const file = fileURLToPath(new URL(program, import.meta.url));
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [file, ...args], {
      env: {
        PATH: process.env.PATH,
        NODE_EXTRA_CA_CERTS: this.certificate,
        TALKLINE_ASSETS: process.env.TALKLINE_ASSETS,
        TALKLINE_PORT: this.port,
        TALKLINE_CLIENT_KEY: this.clientKey,
      },
      timeout: TURN_MS,
      maxBuffer: OUTPUT_BYTES_MAX,
    });
    // A client whose connection ends early has nothing left to wait for, and exits in silence.
    if (stdout === '') throw new Error(`the client ended before its turn was whole: ${stderr}`);
    return JSON.parse(stdout);
  }
}

function settings(endpoint) {
  return `
[server]
listen = "127.0.0.1:0"

[clients]
keys = [{ name = "sdk", env = "TALKLINE_CLIENT_KEY" }]

[talk.realtime]
provider = "openai"
transport = "gateway-relay"

[talk.realtime.providers.openai]
azureEndpoint = "${endpoint}"
azureDeployment = "${DEPLOYMENT}"
apiKey = { env = "AZURE_OPENAI_API_KEY" }
`;
}
