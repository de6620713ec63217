"""Somebody outside follows what becomes of workflows, with a login that can do nothing else."""

import asyncio
import json

import httpx2
import pytest

from tests.compose.stack import administered

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


async def test_a_subscriber_is_told_of_an_onboarding_that_is_undone() -> None:
    watcher = await asyncio.create_subprocess_exec(
        *("docker", "compose", "run", "--rm", "--no-TTY", "watcher", "deploy.watch", "status.onboard.#"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert watcher.stdout is not None
    try:
        told: list[str] = []
        async with administered() as client, asyncio.timeout(60):
            while "started" not in told:  # the watcher has no way to say that it listens
                body = {"customerName": "Told", "adminEmails": ["ada@told.example"], "region": "mars"}
                answer = await client.post("/v1/onboardings", json=body)
                assert answer.status_code == httpx2.codes.ACCEPTED, answer.text
                workflow = answer.json()
                await client.get(f"/v1/workflows/{workflow['id']}", params={"wait": 10})
                events = [json.loads(line) for line in await _lines(watcher.stdout)]
                told = [each["key"].split(".")[2] for each in events if each["data"]["workflowId"] == workflow["id"]]
        assert told == ["started", "compensating", "compensated"]
    finally:
        watcher.terminate()
        await watcher.wait()


async def _lines(stream: asyncio.StreamReader) -> list[str]:
    """Return what there is to read by now, a moment granted."""
    lines: list[str] = []
    try:
        while True:
            async with asyncio.timeout(2.0):
                lines.append((await stream.readline()).decode())
    except TimeoutError:
        return lines
