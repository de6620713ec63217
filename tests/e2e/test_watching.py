"""Whoever follows what becomes of workflows in a terminal sees each event on a line."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from deploy.local.stack import Stack
from deploy.watch import follow
from shared.testing import eventually
from tests.system import System

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]


async def test_every_status_of_an_onboarding_is_a_line(
    system: System, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    following = asyncio.create_task(follow(stack.watcher_url, ["status.onboard.#"]))

    def statuses(workflow_id: str) -> Sequence[str]:
        lines.extend(capsys.readouterr().out.splitlines())
        events = [json.loads(line) for line in lines if line.startswith('{"key":')]
        return [each["data"]["status"] for each in events if each["data"]["workflowId"] == workflow_id]

    async def are_told() -> bool:  # from when it listens on, which it cannot say
        workflow = await system.finished(await system.onboard("Watched", region="mars"))
        await asyncio.sleep(0.2)
        return statuses(workflow["id"]) == ["started", "compensating", "compensated"]

    try:
        await eventually(are_told)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
