#!/usr/bin/env bash
# Makes the clips of this folder again: needs espeak-ng and sox. See README.md.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# `speak NAME TEXT`: one sentence, its peak at -3 dBFS, without dither so that the same text gives the same bytes.
speak() {
    espeak-ng -v en-us -s 165 -w "$work/raw.wav" "$2"
    sox -D "$work/raw.wav" -r 24000 -b 16 -c 1 -e signed-integer "$1.wav" gain -n -3
}

# `number WORD`: half a second that begins with the word.
number() {
    espeak-ng -v en-us -s 190 -w "$work/raw.wav" "$1"
    sox -D "$work/raw.wav" -r 24000 -b 16 -c 1 -e signed-integer "$work/$1.wav" \
        gain -n -3 silence 1 0.005 -50d trim 0 0.5 fade t 0 0.5 0.02
}

speak question "Hello, is this line working?"
speak ask-help "What can you do?"
speak ask-count "Please count to sixty."
speak ask-goodbye "Thank you, goodbye."

speak reply-1 "Yes, loud and clear. This is the Talkline simulator."
speak reply-2 "I am a recording, so I only know a few sentences."
speak reply-3 "Say anything you like. I am still listening."
speak reply-4 "Talk while I talk, and I will stop at once."
speak reply-help "Ask me to count to sixty, and interrupt me on the way."
speak reply-goodbye "Goodbye. It was nice talking to you."

words=(one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty)
for word in "${words[@]}"; do
    number "$word"
done
parts=("${words[@]/#/$work/}")
sox -D "${parts[@]/%/.wav}" numbers.wav
