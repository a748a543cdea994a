/** The choice of microphone and loudspeaker, kept up with what is plugged in. */

import { element, make } from './dom.js';

/** @typedef {'audioinput' | 'audiooutput'} Kind */

export class Devices {
  #microphone = element('microphone', HTMLSelectElement);
  #speaker = element('speaker', HTMLSelectElement);

  /** @param {{ onmicrophone: (id: string) => void, onspeaker: (id: string) => void }} chosen */
  constructor({ onmicrophone, onspeaker }) {
    this.#microphone.addEventListener('change', () => onmicrophone(this.#microphone.value));
    this.#speaker.addEventListener('change', () => onspeaker(this.#speaker.value));
    // Firefox and Safari leave the loudspeaker to the system.
    this.#speaker.disabled = !('setSinkId' in AudioContext.prototype);
    navigator.mediaDevices?.addEventListener('devicechange', () => void this.refresh());
    void this.refresh();
  }

  get microphone() {
    return this.#microphone.value;
  }

  get speaker() {
    return this.#speaker.value;
  }

  /** Names are there once the microphone has been allowed. */
  async refresh() {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    fill(this.#microphone, devices, 'audioinput', 'Microphone');
    fill(this.#speaker, devices, 'audiooutput', 'Loudspeaker');
  }
}

/**
 * @param {HTMLSelectElement} select
 * @param {MediaDeviceInfo[]} devices
 * @param {Kind} kind
 * @param {string} name
 */
function fill(select, devices, kind, name) {
  const chosen = select.value;
  const own = devices.filter((device) => device.kind === kind && device.deviceId !== '');
  const options = own
    .filter((device) => device.deviceId !== 'default')
    .map((device, index) => {
      const option = /** @type {HTMLOptionElement} */ (make('option', '', device.label || `${name} ${index + 1}`));
      option.value = device.deviceId;
      return option;
    });
  const first = /** @type {HTMLOptionElement} */ (make('option', '', 'System’s choice'));
  first.value = '';
  select.replaceChildren(first, ...options);
  select.value = options.some((option) => option.value === chosen) ? chosen : '';
}
