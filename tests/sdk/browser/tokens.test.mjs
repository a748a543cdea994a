// Unmodified browser packages, a minted token, and everything that a token must not open.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { OTHER_MODEL, Stage } from './stage.mjs';

for (const [name, ...scripts] of [
  ['@openai/agents-realtime', '/agents.page.js'],
  ['the bundle of @openai/agents-realtime', '/agents-own.js', '/agents-umd.page.js'],
  ['openai', '/openai.page.js'],
]) {
  test(`${name} talks through a minted token`, { timeout: 120_000 }, () =>
    Stage.with(async (stage) => {
      const page = await stage.page(stage.origin, ...scripts);
      const turn = await page.evaluate(async (url) => {
        const answer = await fetch('/token');
        const { value: token } = await answer.json();
        return { token, ...(await window.talk({ url, token })) };
      }, stage.url());
      assert.equal(turn.status, 'completed');
      assert.ok(turn.audioBytes > 1000, `${turn.audioBytes} bytes of audio`);
      assert.ok(turn.token.startsWith('ek_'), turn.token);

      const log = stage.network.join('\n');
      assert.ok(log.includes('webSocketWillSendHandshakeRequest'), 'the handshake was not seen');
      assert.ok(log.includes(turn.token), 'the token was not seen, so nothing would have been');
      assert.ok(log.includes('session.created'), 'no event was seen');
      for (const secret of [stage.azureKey, stage.clientKey, stage.prompt]) {
        assert.ok(!log.includes(secret), 'a secret of the server is in the network log');
      }
      const [request] = stage.requests();
      assert.equal(request.status, 101);
      const upstream = JSON.stringify(request);
      assert.ok(upstream.includes(stage.azureKey) && !upstream.includes(turn.token));

      assert.equal(await stage.knock(page, stage.url(), turn.token), 1006);
      assert.deepEqual(await stage.refusals(1), ['client_token_used']);
      assert.equal(stage.requests().length, 1);
    }));
}

test('a token opens nothing but what it was made for', { timeout: 120_000 }, () =>
  Stage.with(async (stage) => {
    const page = await stage.page(stage.origin);
    const other = await stage.page(stage.otherOrigin);
    const minted = async (more = {}) => {
      const { status, body } = await stage.mint({ talkline: { origin: stage.origin }, ...more });
      assert.equal(status, 200, JSON.stringify(body));
      return body;
    };
    assert.equal(await stage.knock(other, stage.url(), (await minted()).value), 1006);
    assert.equal(await stage.knock(page, stage.url(OTHER_MODEL), (await minted()).value), 1006);
    const brief = await minted({ expires_after: { anchor: 'created_at', seconds: 1 } });
    await new Promise((resolve) => setTimeout(resolve, brief.expires_at * 1000 + 50 - Date.now()));
    assert.equal(await stage.knock(page, stage.url(), brief.value), 1006);
    assert.deepEqual(await stage.refusals(3), ['client_token_origin', 'client_token_model', 'client_token_expired']);
    assert.equal(stage.requests().length, 0);
    assert.equal(await stage.knock(page, stage.url(), (await minted()).value), 'open');
  }));

test('a hostile page reaches nothing', { timeout: 120_000 }, () =>
  Stage.with(async (stage) => {
    const page = await stage.page(stage.hostileOrigin);
    await stage.context.addCookies([{ name: 'session', value: stage.clientKey, url: `https://localhost:${stage.port}` }]);
    const { body } = await stage.mint({});
    assert.equal(await stage.knock(page, stage.url(), undefined), 1006);
    assert.equal(await stage.knock(page, stage.url(), body.value), 1006);
    assert.equal(await stage.knock(page, stage.url(), 'guess'), 1006);
    for (const path of ['/talk/session', '/v1/realtime/client_secrets', '/talk/config']) {
      const read = await page.evaluate(
        (url) => fetch(url, { method: 'GET' }).then(() => 'read', () => 'refused'),
        `https://localhost:${stage.port}${path}`,
      );
      assert.equal(read, 'refused', path);
    }
    assert.deepEqual(new Set(await stage.refusals(3)), new Set(['origin_not_allowed']));
    assert.equal(await stage.relay.find(/"status": ?(403)/), '403');
    assert.equal(stage.requests().length, 0);
  }));
