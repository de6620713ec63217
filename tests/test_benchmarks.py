"""`make bench` in the small: what it measures and what it is held against both run on the schemas of today."""

import pytest

from bench import environments


async def test_environments_are_made_beside_their_floor(capsys: pytest.CaptureFixture[str]) -> None:
    await environments.compare(rounds=1, counts={"pool": 4, "bridge": 2, "silo": 1})

    told = capsys.readouterr().out
    assert all(f"{isolation} (" in told for isolation in environments.COUNTS)
