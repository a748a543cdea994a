// The package as a bundler finds it.

import * as sdk from '@openai/agents-realtime';

import { talkWith } from './agents.mjs';

window.talk = talkWith(sdk);
