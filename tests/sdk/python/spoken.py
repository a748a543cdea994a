"""What one spoken turn must have been: at the client, and at the far end."""

import json
from dataclasses import dataclass, field

from line import DEPLOYMENT, Clip, Line

QUESTION = Clip("question")
REPLY = Clip("reply-1")

# Headers of a WebSocket upgrade, and the ones that Talkline may add of its own.
EXPECTED_HEADERS = {
    "host",
    "connection",
    "upgrade",
    "sec-websocket-version",
    "sec-websocket-key",
    "api-key",
}
OWN_HEADERS = {"user-agent", "x-ms-client-request-id", "traceparent"}


@dataclass
class Turn:
    """What a client heard and was told."""

    said: str = ""
    audio: bytearray = field(default_factory=bytearray)
    heard: str | None = None
    usage: dict | None = None
    status: str | None = None


def assert_whole(turn: Turn) -> None:
    """The reply came whole: its words, its audio to the byte, and what it cost."""
    assert turn.said == REPLY.text
    assert len(turn.audio) == len(REPLY.pcm)
    assert bytes(turn.audio) == REPLY.pcm
    assert turn.status == "completed"
    usage = turn.usage
    assert usage is not None, "response.done carried no usage"
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_token_details"]["audio_tokens"] > 0
    assert usage["input_token_details"]["audio_tokens"] > 0


def assert_only_the_servers_credential(line: Line, *more_of_the_client: str) -> None:
    """One request, with the server's key in one place, and nothing that the client sent."""
    requests = line.requests()
    assert len(requests) == 1, requests
    request = requests[0]
    assert request["method"] == "GET"
    assert request["path"] == "/openai/v1/realtime"
    assert request["query"] == f"model={DEPLOYMENT}"
    assert request["status"] == 101

    names = [name.lower() for name, _ in request["headers"]]
    assert len(names) == len(set(names)), f"a header came twice: {names}"
    assert EXPECTED_HEADERS <= set(names), names
    assert set(names) <= EXPECTED_HEADERS | OWN_HEADERS, names
    headers = {name.lower(): value for name, value in request["headers"]}
    assert headers["api-key"] == line.azure_key
    assert "openai" not in headers.get("user-agent", "").lower()

    whole = json.dumps(request).lower()
    assert whole.count(line.azure_key.lower()) == 1
    for secret in (line.client_key, "x-stainless", *more_of_the_client):
        assert secret.lower() not in whole, secret
