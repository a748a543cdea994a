"""openai-agents for Python, with its own defaults: voice activity decides whose turn it is."""

import asyncio

import pytest
from agents import set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner
from line import DEPLOYMENT
from spoken import (
    QUESTION,
    Turn,
    assert_only_the_servers_credential,
    assert_whole,
)

TURN_SECONDS = 60
SILENCE = bytes(24_000 * 2 // 10)


async def speak(session) -> None:
    """The question and a pause after it, by which the service knows that it is over."""
    for piece in [*QUESTION.pieces(), *[SILENCE] * 15]:
        await session.send_audio(piece)


async def listen(session) -> Turn:
    turn = Turn()
    async for event in session:
        if event.type == "audio":
            turn.audio += event.audio.data
        elif event.type == "error":
            pytest.fail(f"the session failed: {event.error}")
        elif event.type == "raw_model_event" and event.data.type == "raw_server_event":
            note(turn, event.data.data)
        if turn.status and turn.heard is not None:
            return turn
    pytest.fail(f"the line was closed before the answer was whole: {turn}")


def note(turn: Turn, event: dict) -> None:
    match event["type"]:
        case "conversation.item.input_audio_transcription.completed":
            turn.heard = event["transcript"]
        case "response.output_audio_transcript.done":
            turn.said = event["transcript"]
        case "response.done":
            turn.status = event["response"]["status"]
            turn.usage = event["response"]["usage"]


def test_a_realtime_agent_over_ws(line):
    set_tracing_disabled(True)

    async def talk():
        runner = RealtimeRunner(RealtimeAgent(name="Line", instructions="Answer briefly."))
        session = await runner.run(
            model_config={
                "url": f"ws://127.0.0.1:{line.port}/v1/realtime?model={DEPLOYMENT}",
                "api_key": line.client_key,
            }
        )
        async with session:
            await speak(session)
            return await listen(session)

    async def within_time():
        async with asyncio.timeout(TURN_SECONDS):
            return await talk()

    turn = asyncio.run(within_time())
    assert_whole(turn)
    assert turn.heard == QUESTION.text
    assert_only_the_servers_credential(line, "agents")
