"""openai-python meets every scenario, and prints what it was told: one line of JSON for each."""

import asyncio
import json
import os
import sys
import time

from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed

AT_ONCE = 8
SCENARIO_SECONDS = 30


async def meet(client: AsyncOpenAI, scenario: dict) -> dict:
    """Opens a session and listens until it ends, as an application's loop would."""
    seen = {"scenario": scenario["name"], "errors": [], "responses": [], "closed": None, "raised": None}
    start = time.monotonic()
    try:
        async with asyncio.timeout(SCENARIO_SECONDS):
            async with client.realtime.connect(model=scenario["name"]) as connection:
                await listen(connection, scenario, seen)
    except ConnectionClosed as ended:
        if ended.rcvd:
            seen["closed"] = {"code": ended.rcvd.code, "reason": ended.rcvd.reason}
        else:
            seen["closed"] = {"code": 1006, "reason": ""}
    except Exception as error:
        seen["raised"] = f"{type(error).__name__}: {error}"
    seen["seconds"] = time.monotonic() - start
    return seen


async def listen(connection, scenario: dict, seen: dict) -> None:
    while True:
        event = await connection.recv()
        match event.type:
            case "session.created":
                for each in scenario["sends"]:
                    await connection.send(each)
            case "error" | "conversation.item.input_audio_transcription.failed":
                seen["errors"].append(event.error.model_dump(exclude={"event_id"}))
            case "response.done":
                details = event.response.status_details
                seen["responses"].append(
                    {
                        "status": event.response.status,
                        "details": details and details.model_dump(exclude_none=True),
                    }
                )
        if event.type == scenario["until"]:
            return


async def main() -> None:
    plan = json.load(sys.stdin)
    client = AsyncOpenAI(
        base_url=f"https://localhost:{plan['port']}/v1", api_key=os.environ["TALKLINE_CLIENT_KEY"]
    )
    places = asyncio.Semaphore(AT_ONCE)

    async def in_turn(scenario: dict) -> None:
        async with places:
            print(json.dumps(await meet(client, scenario)), flush=True)

    await asyncio.gather(*map(in_turn, plan["scenarios"]))


asyncio.run(main())
