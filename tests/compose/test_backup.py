"""The restore drill: the running stack is backed up amid a load, removed with its volumes, and made again of that."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.compose.stack import admin_key, administered, composed
from tests.compose.test_recovery import ORDERS, audited, ended

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]

_COMMAND_SECONDS = 300.0


async def backup(*arguments: str) -> None:
    """Run `make backup` or `make restore`, and show what it says."""
    command = (sys.executable, "-u", "-m", "deploy.backup", *arguments)
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
    )
    sys.stdout.write(f"{done.stdout}{done.stderr}")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


async def test_a_stack_that_was_destroyed_is_there_again_and_goes_on(tmp_path: Path) -> None:
    folder, key = str(tmp_path / "backup"), admin_key()
    async with administered() as client:
        loads = [Load(client, ORDERS, 0)]
        await loads[0].place_all()
        saving = asyncio.create_task(backup("save", folder))
        while not saving.done():
            loads.append(Load(client, ORDERS, 0))
            await loads[-1].place_all()
        await saving

    await composed("--profile", "*", "down", "--volumes")
    await backup("restore", folder)

    assert admin_key() == key
    async with administered() as client:
        for load in loads[1:]:  # what was accepted later than the backup was made is in none
            load.orders = [
                order
                for order in load.orders
                if (await client.get(f"/v1/workflows/{order.workflow_id}")).status_code != 404
            ]
        outcomes = [await ended(client, load) for load in loads]
    sys.stdout.write(f"{[dict(each) for each in outcomes]}\n")
    assert (await audited())[1] == "0 findings."
