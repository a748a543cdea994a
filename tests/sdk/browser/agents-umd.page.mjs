// The package's own bundle, which a script tag has put on the page.

import { talkWith } from './agents.mjs';

window.talk = talkWith(window.OpenAIAgentsRealtime);
