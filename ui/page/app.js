/** The Talk page: a conversation, and everything that shows it. */

import { TalkFailure, TalkSession } from '../client/src/index.js';
import { Captions } from './captions.js';
import { Devices } from './devices.js';
import { element, make } from './dom.js';
import { Figures } from './figures.js';
import { EventLog } from './log.js';
import { Meter } from './meter.js';
import { Problem } from './problem.js';

/** From one look at the relay's round trip to the next. */
const PROBE_MILLISECONDS = 5_000;

/** @typedef {import('../client/src/session.js').State} State */

/** State → what is said of it, what to do, what the button does, and its picture. */
const WORDS = {
  idle: ['Ready to talk', 'Press the button and say something.', 'Start talking', 'microphone'],
  connecting: ['Connecting…', 'Your browser may ask for the microphone.', 'Cancel', 'wait'],
  listening: ['Listening', 'Speak whenever you like.', 'End the conversation', 'microphone'],
  hearing: ['Listening', 'Go on, you are heard.', 'End the conversation', 'microphone'],
  thinking: ['Thinking…', 'The reply is on its way.', 'Stop the reply', 'wait'],
  speaking: ['Speaking', 'Talk over it to interrupt, or press the button.', 'Stop the reply', 'stop'],
  closed: ['Ready to talk', 'The conversation has ended.', 'Start talking', 'microphone'],
  error: ['Something is wrong', '', 'Try again', 'microphone'],
};
const KEY_HINT = 'This relay wants a client key first.';
const PUSH_HINT = 'Hold the button, or the space bar while it has the focus, and speak.';

class App {
  #talk = element('talk', HTMLButtonElement);
  #label = element('talk-label', HTMLElement);
  #status = element('status', HTMLElement);
  #hint = element('hint', HTMLElement);
  #notice = element('notice', HTMLElement);
  #where = element('where', HTMLElement);
  #mute = element('mute', HTMLButtonElement);
  #push = element('push', HTMLButtonElement);
  #half = element('half', HTMLButtonElement);
  #end = element('end', HTMLButtonElement);
  #keyForm = element('key-form', HTMLFormElement);
  #keyInput = element('key', HTMLInputElement);
  #model = element('model', HTMLSelectElement);
  #voice = element('voice', HTMLInputElement);
  #transcription = element('transcription', HTMLInputElement);
  #instructions = element('instructions', HTMLTextAreaElement);
  #text = element('text', HTMLInputElement);

  #captions = new Captions();
  #figures = new Figures();
  #log = new EventLog();
  #problem = new Problem();
  #devices = new Devices({
    onmicrophone: (id) => void this.#chooseMicrophone(id),
    onspeaker: (id) => void this.#session?.chooseSpeaker(id).catch(() => this.#tell('That loudspeaker could not be used.')),
  });

  /** @type {TalkSession | null} */
  #session = null;
  /** In memory only: what is stored can be read by whoever comes next. */
  #key = '';
  #needsKey = false;
  /** @type {TalkFailure | null} */
  #failure = null;
  #meter = new Meter(() => this.#heard());

  start() {
    this.#listenToButtons();
    this.#render();
    void this.#askRelay();
    setInterval(() => this.#probe(), PROBE_MILLISECONDS);
    setInterval(() => this.#session && this.#figures.playback(this.#session.playback), 250);
  }

  /** @returns {State} */
  get #state() {
    return this.#session?.state ?? 'idle';
  }

  get #isOpen() {
    return !['idle', 'connecting', 'closed'].includes(this.#state);
  }

  #listenToButtons() {
    this.#talk.addEventListener('click', () => this.#pressTalk());
    this.#holdToTalk();
    this.#end.addEventListener('click', () => {
      void this.#session?.close();
      // It hides itself, and the focus would be nowhere.
      this.#talk.focus();
    });
    this.#mute.addEventListener('click', () => {
      const muted = toggle(this.#mute);
      this.#session?.mute(muted);
    });
    this.#half.addEventListener('click', () => {
      const half = toggle(this.#half);
      this.#session?.setHalfDuplex(half);
    });
    this.#push.addEventListener('click', () => {
      const pushes = toggle(this.#push);
      this.#session?.setPushToTalk(pushes);
      this.#render();
    });
    element('retry', HTMLButtonElement).addEventListener('click', () => {
      this.#talk.focus();
      void this.#connect(true);
    });
    element('write-instead', HTMLButtonElement).addEventListener('click', () => void this.#writeInstead());
    element('write', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#send();
    });
    this.#keyForm.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#key = this.#keyInput.value.trim();
      this.#keyForm.hidden = true;
      this.#problem.hide();
      void this.#askRelay();
      this.#talk.focus();
    });
    document.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.#session?.interrupt();
    });
    addEventListener('pagehide', () => void this.#session?.close());
    this.#offerThemes();
  }

  /** Push-to-talk by pointer, and by the space bar while the button has the focus. */
  #holdToTalk() {
    const press = () => {
      if (!isOn(this.#push) || !this.#isOpen) return false;
      this.#session?.press();
      return true;
    };
    const release = () => this.#session?.release();
    this.#talk.addEventListener('pointerdown', (event) => {
      if (event.button === 0 && press()) this.#talk.setPointerCapture(event.pointerId);
    });
    for (const name of ['pointerup', 'pointercancel', 'blur']) this.#talk.addEventListener(name, release);
    this.#talk.addEventListener('keydown', (event) => {
      if (event.key !== ' ') return;
      if (event.repeat || press()) event.preventDefault();
    });
    this.#talk.addEventListener('keyup', (event) => {
      if (event.key !== ' ' || !isOn(this.#push) || !this.#isOpen) return;
      event.preventDefault();
      release();
    });
    this.#talk.addEventListener('contextmenu', (event) => event.preventDefault());
  }

  #pressTalk() {
    switch (this.#state) {
      case 'idle':
      case 'closed':
        void this.#connect(true);
        break;
      case 'connecting':
        void this.#session?.close();
        break;
      case 'thinking':
      case 'speaking':
        if (!isOn(this.#push)) this.#session?.interrupt();
        break;
      default:
        if (!isOn(this.#push)) void this.#session?.close();
    }
  }

  /** @param {boolean} microphone whether to listen, or only to write */
  async #connect(microphone) {
    if (this.#needsKey && this.#key === '') return this.#askForKey();
    if (this.#session && !['idle', 'closed'].includes(this.#state)) return;
    this.#failure = null;
    this.#problem.hide();
    this.#tell('');
    const session = this.#makeSession(microphone);
    this.#session = session;
    this.#captions.divide();
    this.#listenTo(session);
    try {
      await session.connect();
      await this.#devices.refresh();
    } catch {
      // It came by the event as well.
    }
  }

  /** @param {boolean} microphone */
  #makeSession(microphone) {
    const voice = this.#voice.value.trim();
    const instructions = this.#instructions.value.trim();
    return new TalkSession({
      microphone,
      pushToTalk: isOn(this.#push),
      halfDuplex: isOn(this.#half),
      muted: isOn(this.#mute),
      ...(this.#key === '' ? {} : { key: this.#key }),
      ...(this.#model.value === '' ? {} : { model: this.#model.value }),
      ...(this.#devices.microphone === '' ? {} : { microphoneId: this.#devices.microphone }),
      ...(this.#devices.speaker === '' ? {} : { speakerId: this.#devices.speaker }),
      settings: {
        ...(voice === '' ? {} : { voice }),
        ...(instructions === '' ? {} : { instructions }),
        transcriptionModel: this.#transcription.value.trim() || null,
      },
    });
  }

  /** @param {TalkSession} session */
  #listenTo(session) {
    const current = () => session === this.#session;
    session.on('state', () => current() && this.#render());
    session.on('caption', (caption) => current() && this.#captions.show(caption));
    session.on('latency', (latency) => this.#figures.turn(latency));
    session.on('usage', (usage) => this.#figures.use(usage));
    session.on('event', (crossing) => this.#log.add(crossing));
    session.on('notice', ({ code, message }) => current() && this.#tell(`${message} [${code}]`));
    session.on('connected', ({ ticket, milliseconds }) => {
      this.#figures.begin(ticket.prices);
      this.#figures.connected(milliseconds);
      this.#showWhere(ticket.model ?? '', ticket.transport);
      this.#measure(session);
    });
    session.on('closed', (failure) => {
      if (!current()) return;
      this.#figures.playback(session.playback);
      this.#failure = failure;
      this.#render();
      if (failure) this.#fail(failure);
    });
  }

  /** @param {TalkFailure} failure */
  #fail(failure) {
    this.#problem.show(failure);
    if (failure.code.startsWith('client_key_') || failure.code === 'token_expired') {
      this.#needsKey = true;
      this.#key = '';
      this.#askForKey();
    }
  }

  #askForKey() {
    this.#keyForm.hidden = false;
    this.#keyInput.value = '';
    this.#keyInput.focus();
  }

  async #writeInstead() {
    await this.#connect(false);
    if (this.#isOpen) this.#text.focus();
  }

  async #send() {
    const text = this.#text.value.trim();
    if (text === '') return;
    if (!this.#isOpen) await this.#connect(false);
    if (!this.#isOpen) return;
    this.#session?.sendText(text);
    this.#text.value = '';
  }

  /** @param {string} id */
  async #chooseMicrophone(id) {
    try {
      await this.#session?.chooseMicrophone(id || undefined);
      this.#tell('');
    } catch (error) {
      if (error instanceof TalkFailure) this.#tell(error.message);
    }
  }

  /** What the relay says of itself before anything is opened. */
  async #askRelay() {
    try {
      const headers = this.#key === '' ? {} : { authorization: `Bearer ${this.#key}` };
      const answer = await fetch('/talk/config', { cache: 'no-store', headers });
      if (!answer.ok) return;
      const config = await answer.json();
      this.#needsKey = config.authentication === 'client_key';
      if (this.#needsKey && this.#key === '') this.#keyForm.hidden = false;
      this.#render();
      this.#showWhere('', config.transport ?? '');
      this.#offerModels(Array.isArray(config.models) ? config.models : []);
    } catch {
      // The relay is gone; connecting will say so.
    }
  }

  /** @param {string[]} models */
  #offerModels(models) {
    const options = models.map((model) => make('option', '', model));
    const first = make('option', '', 'The relay’s default');
    first.setAttribute('value', '');
    this.#model.replaceChildren(first, ...options);
  }

  /**
   * @param {string} model
   * @param {string} transport
   */
  #showWhere(model, transport) {
    this.#where.textContent = [location.host, model, transport].filter((part) => part !== '').join(' · ');
  }

  #probe() {
    if (this.#isOpen && this.#session) this.#measure(this.#session);
  }

  /** @param {TalkSession} session */
  #measure(session) {
    void session.measureRelay().then((time) => this.#figures.relay(time));
  }

  /** @param {string} text */
  #tell(text) {
    this.#notice.textContent = text;
  }

  /** @returns {import('./meter.js').Source} */
  #heard() {
    const session = this.#session;
    const state = this.#state;
    return {
      input: isOn(this.#mute) ? undefined : session?.inputAnalyser,
      output: session?.outputAnalyser,
      shown: state === 'speaking' ? 'output' : this.#isOpen ? 'input' : 'none',
    };
  }

  #render() {
    const state = this.#failure && this.#state === 'closed' ? 'error' : this.#state;
    const [status = '', hint = '', label = '', glyph = ''] = WORDS[state];
    const pushes = isOn(this.#push) && this.#isOpen;
    document.body.dataset['state'] = state;
    this.#talk.dataset['glyph'] = pushes ? 'microphone' : glyph;
    this.#status.textContent = status;
    const locked = this.#needsKey && this.#key === '' && !this.#isOpen && state !== 'error';
    this.#hint.textContent = locked ? KEY_HINT : pushes && state !== 'hearing' ? PUSH_HINT : hint;
    this.#label.textContent = pushes ? 'Hold to talk' : label;
    this.#talk.title = this.#label.textContent;
    this.#end.hidden = !this.#isOpen;
    if (this.#isOpen || state === 'connecting') this.#meter.start();
    else this.#meter.stop();
    this.#meter.refresh();
  }

  #offerThemes() {
    const button = element('theme', HTMLButtonElement);
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const isDark = () => (document.documentElement.dataset['theme'] ?? (dark.matches ? 'dark' : 'light')) === 'dark';
    const name = () => {
      button.textContent = isDark() ? 'Light' : 'Dark';
      button.setAttribute('aria-label', `${button.textContent} theme`);
    };
    button.addEventListener('click', () => {
      document.documentElement.dataset['theme'] = isDark() ? 'light' : 'dark';
      name();
      this.#meter.refresh();
    });
    dark.addEventListener('change', name);
    name();
  }
}

/** @param {HTMLButtonElement} button */
function isOn(button) {
  return button.getAttribute('aria-pressed') === 'true';
}

/**
 * @param {HTMLButtonElement} button
 * @returns {boolean} how it stands now
 */
function toggle(button) {
  const on = !isOn(button);
  button.setAttribute('aria-pressed', String(on));
  return on;
}

new App().start();
