// Talkline between a simulator of Azure and a client, as three real processes would have it.

import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
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

/** A child whose output is kept, line by line, and can be waited for. */
class Process {
  output = [];
  closed = false;
  changed = new EventEmitter();

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
    this.child.on('error', (error) => this.#keep(`${error}`));
    for (const input of [this.child.stdout, this.child.stderr]) {
      createInterface({ input }).on('line', (line) => this.#keep(line));
    }
    this.ended = new Promise((resolve) => this.child.on('close', resolve));
    this.ended.then(() => {
      this.closed = true;
      this.changed.emit('change');
    });
  }

  #keep(line) {
    this.output.push(line);
    this.changed.emit('change');
  }

  /** The first group of the first line that matches `pattern`, waited for if need be. */
  async find(pattern) {
    const found = () => this.output.map((line) => pattern.exec(line)).find((match) => match)?.[1];
    const signal = AbortSignal.timeout(START_MS);
    while (found() === undefined) {
      if (this.closed) break;
      try {
        await once(this.changed, 'change', { signal });
      } catch {
        break;
      }
    }
    if (found() === undefined) throw new Error(this.said(`did not print ${pattern}`));
    return found();
  }

  /** The URL it listens on. */
  address() {
    return this.find(/^listening on (\S+)$/);
  }

  said(problem) {
    return `talkline ${this.name} ${problem}; all it printed:\n${this.output.join('\n')}`;
  }

  async stop() {
    this.child.kill('SIGTERM');
    const killer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
    await this.ended;
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
  certificate() {
    return this.relay.find(/^\s*export NODE_EXTRA_CA_CERTS=['"]?([^'"]+)['"]?$/);
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
        NODE_EXTRA_CA_CERTS: await this.certificate(),
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
