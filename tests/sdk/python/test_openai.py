"""openai-python, as its documentation says to use it, pointed at Talkline."""

import asyncio
import base64

import pytest
from line import DEPLOYMENT
from openai import AsyncAzureOpenAI, AsyncOpenAI
from spoken import (
    QUESTION,
    Turn,
    assert_only_the_servers_credential,
    assert_whole,
)
from websockets.exceptions import InvalidStatus

TURN_SECONDS = 60

PUSH_TO_TALK = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "turn_detection": None,
            "transcription": {"model": "gpt-4o-mini-transcribe"},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24_000}},
    },
}


async def ask(connection, session: dict) -> Turn:
    """Speaks the question as push-to-talk and listens to the whole answer."""
    turn = Turn()
    async for event in connection:
        match event.type:
            case "session.created":
                await connection.session.update(session=session)
            case "session.updated":
                for piece in QUESTION.pieces():
                    await connection.input_audio_buffer.append(
                        audio=base64.b64encode(piece).decode()
                    )
                await connection.input_audio_buffer.commit()
                await connection.response.create()
            case "conversation.item.input_audio_transcription.completed":
                turn.heard = event.transcript
            case "response.output_audio.delta":
                turn.audio += base64.b64decode(event.delta)
            case "response.output_audio_transcript.delta":
                turn.said += event.delta
            case "response.done":
                turn.status = event.response.status
                turn.usage = event.response.usage.model_dump()
            case "error":
                pytest.fail(f"the service refused: {event.error}")
        if turn.status and turn.heard is not None:
            return turn
    pytest.fail(f"the line was closed before the answer was whole: {turn}")


async def within_time(turn):
    async with asyncio.timeout(TURN_SECONDS):
        return await turn


def test_ga_client_over_ws(line):
    async def talk():
        client = AsyncOpenAI(base_url=f"http://127.0.0.1:{line.port}/v1", api_key=line.client_key)
        async with client.realtime.connect(model=DEPLOYMENT) as connection:
            return await ask(connection, PUSH_TO_TALK)

    turn = asyncio.run(within_time(talk()))
    assert_whole(turn)
    assert turn.heard == QUESTION.text
    assert_only_the_servers_credential(line)


def test_azure_client_over_wss(tls_line):
    async def talk():
        client = AsyncAzureOpenAI(
            azure_endpoint=f"https://localhost:{tls_line.port}",
            api_version="2025-04-01-preview",
            api_key=tls_line.client_key,
        )
        async with client.realtime.connect(model=DEPLOYMENT) as connection:
            return await ask(connection, PUSH_TO_TALK)

    turn = asyncio.run(within_time(talk()))
    assert_whole(turn)
    assert turn.heard == QUESTION.text
    assert_only_the_servers_credential(tls_line, "2025-04-01-preview", "localhost")


def test_what_else_a_client_sends_stays_here(line):
    """Cookies, organisations, the beta switch and unknown headers end at Talkline."""
    canary = "canary-3f1c"

    async def talk():
        client = AsyncOpenAI(
            base_url=f"http://127.0.0.1:{line.port}/v1",
            api_key=line.client_key,
            organization=f"org-{canary}",
            project=f"proj-{canary}",
        )
        headers = {
            "Cookie": f"session={canary}",
            "X-Forwarded-For": canary,
            "Ocp-Apim-Subscription-Key": canary,
            "X-Unknown": canary,
        }
        async with client.realtime.connect(
            model=DEPLOYMENT, extra_headers=headers, extra_query={"unknown": canary}
        ) as connection:
            return await ask(connection, PUSH_TO_TALK)

    assert_whole(asyncio.run(within_time(talk())))
    assert_only_the_servers_credential(line, canary)


def test_a_wrong_key_reaches_nobody(line):
    async def talk():
        client = AsyncOpenAI(base_url=f"http://127.0.0.1:{line.port}/v1", api_key="wrong-key")
        async with client.realtime.connect(model=DEPLOYMENT) as connection:
            await connection.recv()

    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(within_time(talk()))
    assert refused.value.response.status_code == 401
    assert line.azure_key not in str(refused.value.response)
    assert line.requests() == []
