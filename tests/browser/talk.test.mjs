// What a person at the Talk page sees and hears.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { INSECURE_HOST, Line, Visitor, clip, demo, silence } from './kit.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Longest time from the start of the demo to the first sound. */
const FIRST_SOUND_MS = 10_000;
/** How far the cut may lie from what was played. */
const CUT_MS = 60;

let running;
before(async () => {
  running = await demo();
});
after(() => running?.talkline.stop());

/** A visit that ends on every path, to a page that may not complain. */
async function visit(url, options, use) {
  const visitor = await Visitor.at(url, options);
  try {
    await use(visitor);
    assert.deepEqual(visitor.complaints, []);
  } catch (error) {
    await visitor.shot(`failed-${Date.now()}`).catch(() => {});
    throw error;
  } finally {
    await visitor.leave();
  }
}

/** Nothing that a person with a screen reader, a keyboard or weak eyes would stumble over. */
async function checkAccessible(visitor, state) {
  await visitor.page.evaluate(AXE);
  const violations = await visitor.page.evaluate(async () => {
    const found = await window.axe.run(document, { resultTypes: ['violations'] });
    return found.violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`);
  });
  assert.deepEqual(violations, [], state);
}

/** Searching, copying one event or all that are shown, clearing. */
async function checkLog(visitor) {
  const { page } = visitor;
  await visitor.context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const copied = async (button) => {
    await button.click();
    await visitor.until(() => [...document.querySelectorAll('button')].some(({ textContent }) => textContent === 'Copied'));
    return page.evaluate(() => navigator.clipboard.readText());
  };
  assert.equal(JSON.parse(await copied(page.locator('#events .body button'))).type, 'response.done');
  const lines = async () => (await copied(page.locator('#copy-log'))).split('\n').map((line) => JSON.parse(line));
  assert.deepEqual((await lines()).map(({ event }) => event.type), ['response.done'], 'what was searched for');
  await page.fill('#search', '');
  const all = await lines();
  assert.ok(all.some(({ sent, event }) => sent && event.type === 'session.update'));
  assert.ok(all.every(({ event }) => JSON.stringify(event).length < 4_000), 'audio is shortened');
  await page.fill('#search', 'LINE WORKING');
  assert.match(await page.locator('#events').innerText(), /input_audio_transcription\.completed/);
  await page.click('#clear-log');
  assert.equal(await page.locator('#events .event').filter({ hasText: 'response.done' }).count(), 0);
}

test('from the start of the demo to the first sound, and a whole turn', async () => {
  const says = [silence(0.5), clip('question')];
  let fresh;
  try {
    // Whoever starts the demo has a browser open.
    await visit('about:blank', { says, ears: true }, async (visitor) => {
      fresh = await demo();
      await visitor.page.goto(fresh.url);
      await visitor.page.click('#talk');
      await visitor.until(() => window.watched.firstHeard !== null);
      const took = performance.now() - fresh.talkline.started;
      console.log(`demo started to first sound: ${Math.round(took)} ms`);
      assert.ok(took < FIRST_SOUND_MS, `${Math.round(took)} ms`);

      await visitor.state('listening');
      const captions = await visitor.text('captions');
      assert.match(captions, /You\n?Hello, is this line working\?/);
      assert.match(captions, /Reply\n?Yes, loud and clear/);
      const spoken = await visitor.page.locator('#spoken').innerText();
      assert.match(spoken, /You: Hello, is this line working\?/);

      const heard = await visitor.page.evaluate(() => window.watched.compare());
      assert.equal(heard.rest, 0, JSON.stringify(heard));
      assert.ok(heard.same > 24_000, 'more than a second was heard');

      // The page's figure against the ear's own: from the event that ended the turn to the first loud sample.
      const measured = await visitor.page.evaluate(() => {
        const stopped = window.watched.received.find(({ event }) => event.type === 'input_audio_buffer.speech_stopped');
        return window.watched.firstHeard - stopped.at;
      });
      const shown = Number.parseFloat(await visitor.text('turn-latency'));
      console.log(`turn end to first sound: shown ${shown} ms, measured ${Math.round(measured)} ms`);
      assert.ok(Math.abs(measured - shown) < 120, `shown ${shown}, measured ${measured}`);
      assert.ok(Number.parseFloat(await visitor.text('speech-latency')) > shown, 'the pause that ends a turn is in it');
      await visitor.until(() => document.getElementById('relay-latency').textContent !== '–');
      assert.match(await visitor.text('tokens'), /Output\s+\d+\s+[1-9]\d*/);
      assert.equal(await visitor.text('gaps'), 'no gaps');
      assert.ok(!(await visitor.page.locator('#cost').isVisible()), 'the demo has no prices');
      await visitor.page.click('#log > summary');
      await visitor.page.fill('#search', 'response.done');
      await visitor.page.locator('#events .event:not([hidden]) summary').last().click();
      assert.match(await visitor.page.locator('#events .body').innerText(), /"usage"/);
      await visitor.shot('after-a-turn');
      await checkLog(visitor);
    });
  } finally {
    await fresh?.talkline.stop();
  }
});

test('every state looks like itself', async () => {
  await visit(running.url, { mouth: true }, async (visitor) => {
    await visitor.shot('idle');
    let goOn;
    const held = new Promise((resolve) => {
      goOn = resolve;
    });
    await visitor.page.route('**/talk/session', async (route) => {
      await held;
      await route.continue();
    });
    await visitor.page.click('#talk');
    await visitor.state('connecting');
    await visitor.shot('connecting');
    goOn();
    await visitor.state('listening');
    await visitor.until(() => document.getElementById('relay-latency').textContent !== '–');
    await visitor.shot('listening');
    await visitor.hold();
    await visitor.say('question');
    await visitor.state('hearing');
    await visitor.shot('hearing');
    await visitor.state('thinking');
    await visitor.shot('thinking');
    await visitor.letGo();
    await visitor.state('speaking');
    await visitor.state('listening');
    await visitor.say('ask-help');
    await visitor.state('speaking');
    await visitor.until(() => document.querySelector('#captions .caption:last-child').textContent.split(' ').length > 4);
    await visitor.shot('speaking');
    await visitor.page.click('#end');
    await visitor.state('closed');
  });
});

test('speaking interrupts the reply, and the cut is where it was heard', async () => {
  // A reply so long that the recording meets it on the slowest machine.
  const says = [silence(8), clip('question')];
  await visit(running.url, { says, ears: true, noise: true }, async (visitor) => {
    await visitor.page.click('#talk');
    await visitor.state('listening');
    await visitor.page.fill('#text', 'Please count to sixty.');
    await visitor.page.keyboard.press('Enter');
    await visitor.state('speaking');
    const cut = await visitor.until(() => window.watched.sent.find(({ event }) => event.type === 'conversation.item.truncate')?.event);
    await visitor.shot('interrupted');
    // Another reply follows: of the first there is what was heard before it.
    const heard = await visitor.page.evaluate((item) => window.watched.compare(item), cut.item_id);
    const played = (heard.first + heard.same) / 24;
    console.log(`cut at ${cut.audio_end_ms} ms, heard ${played.toFixed(1)} ms`);
    assert.ok(Math.abs(cut.audio_end_ms - played) <= CUT_MS, `cut ${cut.audio_end_ms}, heard ${played}`);
    assert.ok(played > 0 && heard.rest > 0, 'it was cut in the midst');
    await visitor.until(() => window.watched.received.some(({ event }) => event.type === 'conversation.item.truncated'));
    assert.deepEqual(await visitor.events('received', 'error'), []);
    await visitor.state('speaking');
    assert.match(await visitor.text('captions'), /interrupted[^]*Hello, is this line working\?[^]*Reply/);
  });
});

test('a reply of a minute is heard to its end without a gap', async () => {
  await visit(running.url, { ears: true }, async (visitor) => {
    await visitor.page.fill('#text', 'Please count to sixty.');
    await visitor.page.keyboard.press('Enter');
    await visitor.state('speaking');
    await visitor.until(() => window.watched.received.some(({ event }) => event.type === 'response.done'), undefined, 90_000);
    await visitor.page.waitForSelector('body[data-state="listening"]', { timeout: 90_000 });
    const heard = await visitor.page.evaluate(() => window.watched.compare());
    console.log(`a minute: ${heard.came / 24_000} s came, ${heard.same / 24_000} s were heard in one piece`);
    assert.ok(heard.came >= 60 * 24_000, `${heard.came / 24_000} s came`);
    assert.equal(heard.rest, 0, JSON.stringify(heard));
    assert.equal(await visitor.text('gaps'), 'no gaps');
  });
});

test('a microphone that is denied', async () => {
  await visit(running.url, { microphone: 'denied' }, async (visitor) => {
    await visitor.page.click('#talk');
    await visitor.state('error');
    await visitor.shot('microphone-denied');
    assert.match(await visitor.text('problem-summary'), /not to let this page use the microphone/);
    assert.match(await visitor.text('problem-step'), /Allow the microphone/);
    assert.equal(await visitor.text('problem-code'), 'microphone_denied');
    await checkAccessible(visitor, 'error');
  });
});

test('no microphone: writing works all the same, and the codes are explained', async () => {
  await visit(running.url, { microphone: 'missing' }, async (visitor) => {
    await visitor.page.click('#talk');
    await visitor.state('error');
    await visitor.shot('microphone-missing');
    assert.equal(await visitor.text('problem-code'), 'microphone_missing');
    await visitor.page.click('#write-instead');
    await visitor.state('listening');
    await visitor.page.keyboard.type('What can you do?');
    await visitor.page.keyboard.press('Enter');
    await visitor.state('speaking');
    assert.match(await visitor.text('captions'), /What can you do\?/);
    await visitor.page.goto(new URL('errors.html#microphone_missing', running.url).href);
    await visitor.page.waitForSelector('article:target');
    assert.match(await visitor.page.locator('article:target').innerText(), /No microphone was found/);
    await checkAccessible(visitor, 'error codes');
    await visitor.shot('error-codes', { fullPage: false });
    const codes = await visitor.page.evaluate(async () => {
      const { DIAGNOSES } = await import('/talk/page/diagnoses.js');
      const { explained } = await import('/talk/client/src/failure.js');
      return [...new Set([...Object.keys(DIAGNOSES), ...explained().map(({ code }) => code)])];
    });
    const articles = await visitor.page.locator('article').evaluateAll((all) => all.map(({ id, textContent }) => ({ id, textContent })));
    assert.deepEqual(articles.map(({ id }) => id).sort(), codes.sort());
    assert.ok(codes.length > 100 && articles.every(({ textContent }) => /What to do: ./.test(textContent)));
    await visitor.page.fill('#search', 'azure_dns_timeout');
    assert.equal(await visitor.page.locator('article:visible').count(), 1);
  });
});

test('a relay that dies in the midst of a reply, and comes back', async () => {
  const line = await Line.start();
  try {
    await visit(line.url, {}, async (visitor) => {
      await visitor.page.fill('#text', 'Please count to sixty.');
      await visitor.page.keyboard.press('Enter');
      await visitor.state('speaking');
      await line.relay.stop('SIGKILL');
      await visitor.state('error');
      await visitor.shot('connection-lost');
      assert.equal(await visitor.text('problem-code'), 'connection_lost');
      await visitor.page.click('#retry');
      await visitor.until(() => document.getElementById('problem-code').textContent === 'relay_unreachable');
      await visitor.state('error');
      await visitor.shot('relay-unreachable');
      await line.startRelay();
      await visitor.page.click('#retry');
      await visitor.state('listening');
      assert.ok(!(await visitor.page.locator('#problem').isVisible()));
      await visitor.page.fill('#text', 'What can you do?');
      await visitor.page.keyboard.press('Enter');
      await visitor.state('speaking');
    });
  } finally {
    await line.stop();
  }
});

test('a wrong Azure deployment is explained', async () => {
  const line = await Line.start({ deployment: 'deployment_not_found' });
  try {
    await visit(line.url, {}, async (visitor) => {
      await visitor.page.click('#talk');
      await visitor.state('error');
      await visitor.shot('wrong-deployment');
      assert.equal(await visitor.text('problem-code'), 'azure_deployment_not_found');
      assert.match(await visitor.text('problem-summary'), /deployment/);
      assert.match(await visitor.text('problem-step'), /az cognitiveservices account deployment list/);
      const link = visitor.page.locator('#problem-link');
      assert.match(await link.getAttribute('href'), /errors\.html#azure_deployment_not_found$/);
      await checkAccessible(visitor, 'diagnosis');
    });
  } finally {
    await line.stop();
  }
});

test('an operator’s page asks for a client key, and forgets it', async () => {
  const line = await Line.start({ clients: 'keys = [{ name = "team", env = "TALKLINE_TEST_KEY" }]' });
  try {
    await visit(line.url, {}, async (visitor) => {
      await visitor.page.waitForSelector('#key-form:not([hidden])');
      await visitor.shot('client-key');
      await visitor.page.fill('#key', `${line.key}-wrong`);
      await visitor.page.keyboard.press('Enter');
      await visitor.page.click('#talk');
      await visitor.state('error');
      assert.equal(await visitor.text('problem-code'), 'client_key_unknown');
      await visitor.page.fill('#key', line.key);
      await visitor.page.keyboard.press('Enter');
      await visitor.page.click('#talk');
      await visitor.state('listening');
      const stored = await visitor.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
      assert.equal(stored, '[{},{},""]');
    });
  } finally {
    await line.stop();
  }
});

test('a whole turn by keyboard alone, push-to-talk included', async () => {
  const says = [silence(0.2), ...Array.from({ length: 8 }, () => clip('question'))];
  await visit(running.url, { says }, async (visitor) => {
    const press = async (id) => {
      for (let tabs = 0; tabs < 40; tabs += 1) {
        if (await visitor.page.evaluate((id) => document.activeElement?.id === id, id)) return;
        await visitor.page.keyboard.press('Tab');
      }
      assert.fail(`the Tab key does not lead to ${id}`);
    };
    await press('push');
    await visitor.page.keyboard.press('Space');
    assert.equal(await visitor.page.getAttribute('#push', 'aria-pressed'), 'true');
    await press('talk');
    await visitor.page.keyboard.press('Enter');
    await visitor.state('listening');
    await press('talk');
    await visitor.page.keyboard.down('Space');
    await visitor.state('hearing');
    await visitor.shot('push-to-talk');
    await visitor.until(() => window.watched.sent.filter(({ event }) => event.type === 'input_audio_buffer.append').length > 60);
    await visitor.page.keyboard.up('Space');
    await visitor.state('speaking');
    assert.equal((await visitor.events('sent', 'input_audio_buffer.commit')).length, 1);
    await visitor.page.keyboard.press('Escape');
    await visitor.state('listening');
    await visitor.until(() => window.watched.sent.some(({ event }) => event.type === 'conversation.item.truncate'));
    const sent = (await visitor.events('sent', 'input_audio_buffer.append')).length;
    await press('end');
    await visitor.page.keyboard.press('Enter');
    await visitor.state('closed');
    assert.equal(await visitor.page.evaluate(() => document.activeElement?.id), 'talk', 'the focus is not lost');
    assert.equal((await visitor.events('sent', 'input_audio_buffer.append')).length, sent, 'nothing is sent unless the key is held');
  });
});

test('mute and half duplex send nothing of the microphone', async () => {
  await visit(running.url, { mouth: true }, async (visitor) => {
    const starts = async () => (await visitor.events('received', 'input_audio_buffer.speech_started')).length;
    await visitor.page.click('#half');
    await visitor.page.click('#talk');
    await visitor.state('listening');
    await visitor.page.fill('#text', 'Please count to sixty.');
    await visitor.page.keyboard.press('Enter');
    await visitor.state('speaking');
    await visitor.sayAll('question');
    await visitor.rest();
    assert.equal(await starts(), 0);
    assert.equal(await visitor.page.getAttribute('body', 'data-state'), 'speaking', 'it was not interrupted');
    await visitor.page.keyboard.press('Escape');
    await visitor.state('listening');
    await visitor.page.click('#mute');
    await visitor.sayAll('question');
    await visitor.rest();
    assert.equal(await starts(), 0);
    await visitor.page.click('#mute');
    await visitor.say('question');
    await visitor.state('hearing');
  });
});

test('a microphone may be chosen, unplugged and plugged in again', async () => {
  await visit(running.url, {}, async (visitor) => {
    const { page } = visitor;
    await page.click('#talk');
    await visitor.state('listening');
    const names = () => page.locator('#microphone option').allInnerTexts();
    await visitor.until(() => document.querySelectorAll('#microphone option').length > 2);
    await page.click('.settings > summary');
    await page.selectOption('#microphone', { index: 2 });
    const chosen = await page.locator('#microphone option:checked').innerText();
    await visitor.until((chosen) => window.watched.tracks.at(-1).label === chosen && window.watched.tracks.at(-1).readyState === 'live', chosen);
    assert.equal(await page.evaluate(() => window.watched.tracks[0].readyState), 'ended', 'the other one was given back');
    await visitor.shot('devices');
    await checkAccessible(visitor, 'devices');

    await page.evaluate((chosen) => {
      const list = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
      navigator.mediaDevices.enumerateDevices = async () => (await list()).filter(({ label }) => label !== chosen);
      navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
      window.watched.tracks.at(-1).dispatchEvent(new Event('ended'));
    }, chosen);
    await visitor.until(() => document.getElementById('notice').textContent.includes('another one is used'));
    await visitor.until((chosen) => !document.getElementById('microphone').textContent.includes(chosen), chosen);
    assert.equal(await page.locator('#microphone').inputValue(), '', 'the system’s choice');
    await page.evaluate(() => {
      delete navigator.mediaDevices.enumerateDevices;
      navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
    });
    await visitor.until((chosen) => document.getElementById('microphone').textContent.includes(chosen), chosen);
    assert.equal(new Set(await names()).size, (await names()).length);
    await visitor.state('listening');
  });
});

test('a page that was not loaded securely says what to do', async () => {
  const line = await Line.start({ host: INSECURE_HOST });
  try {
    await visit(line.url, {}, async (visitor) => {
      await visitor.page.click('#talk');
      await visitor.state('error');
      await visitor.shot('insecure');
      assert.equal(await visitor.text('problem-code'), 'insecure_context');
      assert.match(await visitor.text('problem-step'), /https:\/\/.*http:\/\/localhost/);
    });
  } finally {
    await line.stop();
  }
});

test('what a conversation costs is shown where the relay knows prices', async () => {
  const prices = ['inputText = "4"', 'inputAudio = "32"', 'outputText = "16"', 'outputAudio = "64"'];
  const line = await Line.start({ more: `[prices]\ncurrency = "EUR"\n[prices.models.gpt-realtime]\n${prices.join('\n')}` });
  try {
    await visit(line.url, {}, async (visitor) => {
      await visitor.page.fill('#text', 'What can you do?');
      await visitor.page.keyboard.press('Enter');
      const { usage } = await visitor.until(() => window.watched.received.find(({ event }) => event.type === 'response.done')?.event.response);
      const { input_token_details: input, output_token_details: output } = usage;
      const cost = (input.text_tokens * 4 + input.audio_tokens * 32 + output.text_tokens * 16 + output.audio_tokens * 64) / 1e6;
      assert.equal(input.cached_tokens_details?.text_tokens ?? 0, 0);
      assert.equal(await visitor.text('cost'), `Cost by the relay’s price list: EUR ${cost.toFixed(4)}`);
      await visitor.shot('cost');
    });
  } finally {
    await line.stop();
  }
});

test('the parrot says what it was told', async () => {
  const parrot = await demo('--parrot');
  try {
    await visit(parrot.url, { mouth: true, ears: true }, async (visitor) => {
      await visitor.page.click('#talk');
      await visitor.state('listening');
      await visitor.say('ask-help');
      await visitor.state('speaking');
      await visitor.state('listening');
      const [you, reply] = await visitor.page.locator('#captions .words').allInnerTexts();
      assert.ok(you !== '' && reply === you, `${you} / ${reply}`);
      const heard = await visitor.page.evaluate(() => window.watched.compare());
      assert.ok(heard.rest === 0 && heard.same > 12_000, JSON.stringify(heard));
    });
  } finally {
    await parrot.talkline.stop();
  }
});

test('by TLS the page and its WebSocket are both secure', async () => {
  const secure = await demo('--tls-dev');
  try {
    await visit(secure.url, {}, async (visitor) => {
      assert.match(secure.url, /^https:/);
      await visitor.page.fill('#text', 'What can you do?');
      await visitor.page.keyboard.press('Enter');
      await visitor.state('speaking');
    });
  } finally {
    await secure.talkline.stop();
  }
});

test('the page is sent with a policy that knows no other origin', async () => {
  for (const path of ['', 'page/app.js', 'client/src/playback-worklet.js', 'errors.html']) {
    const answer = await fetch(new URL(path, running.url));
    await answer.arrayBuffer();
    const policy = answer.headers.get('content-security-policy').split('; ');
    assert.equal(policy[0], "default-src 'none'");
    assert.ok(policy.every((part) => /^[a-z-]+ '(none|self)'$/.test(part)), policy.join('; '));
  }
});

for (const dark of [false, true]) {
  test(`nothing is inaccessible, ${dark ? 'dark' : 'light'}, wide and narrow`, async () => {
    for (const [name, width, height] of [['wide', 1180, 1000], ['phone', 390, 844]]) {
      const look = `${dark ? 'dark' : 'light'}-${name}`;
      await visit(running.url, { dark, width, height }, async (visitor) => {
        await checkAccessible(visitor, `${look}, idle`);
        await visitor.page.fill('#text', 'What can you do?');
        await visitor.page.keyboard.press('Enter');
        await visitor.state('speaking');
        await visitor.page.click('#log > summary');
        await checkAccessible(visitor, `${look}, speaking`);
        await visitor.shot(look);
        const overflow = await visitor.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${look}: ${overflow} pixels too wide`);
      });
    }
  });
}
