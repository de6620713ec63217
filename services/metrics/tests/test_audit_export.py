"""The audit trail as a file, and what whoever has it can find out about it."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.metrics import audit, audit_file, queries
from services.metrics.audit_file import BrokenTrailError, portions, verify
from services.metrics.queries.audit import Part
from services.metrics.tests.support import api_of
from shared.audit import Actor, decision
from shared.clock import ManualClock
from shared.contracts.base import INSTALLATION, Decision
from shared.contracts.identity import DecisionRecorded
from shared.ids import TimeOrderedIds
from shared.postgres import Pool, transaction
from shared.testing.plans import general_plan
from shared.testing.principals import Cast, as_, told

OWN, OTHER, ABSENT = "own", "oth", "abs"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
IDS = TimeOrderedIds()


def made(number: int, tenant_id: str, clock: ManualClock) -> Decision:
    return decision(
        DecisionRecorded,
        Actor("user:zoë"),
        tenant_id=tenant_id,
        action="thing.changed",
        subject=f"thing:{number}",
        before=None,
        after={"name": "Zoë", "n": number, "list": [True, None]},
        clock=clock,
        ids=IDS,
    )


@pytest.fixture
async def client(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody who asks for a trail of three tenants' chains, each of six entries of an hour each."""
    clock = ManualClock(BEGIN)
    for number in range(6):
        decisions = [made(number, tenant_id, clock) for tenant_id in (OWN, OTHER, INSTALLATION)]
        async with transaction(pool) as connection:
            await audit.append(connection, decisions, now=clock.now())
        await clock.advance(3600)
    api = api_of(pool, credentials=Cast(OWN))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://test") as client:
        yield client


async def exported(client: httpx2.AsyncClient, who: str = "operator", **query: Any) -> list[str]:
    answer = await client.get("/v1/audit/export", params=query, headers=as_(who))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == "application/x-ndjson"
    return answer.text.splitlines()


def places(lines: Sequence[str]) -> list[tuple[str, int]]:
    entries = [json.loads(line) for line in lines]
    return [(entry["tenantId"], entry["seq"]) for entry in entries]


def at(hours: float) -> str:
    return (BEGIN + timedelta(hours=hours)).isoformat()


async def test_a_chain_is_exported_in_its_order_as_it_is_listed(client: httpx2.AsyncClient) -> None:
    lines = await exported(client, tenantId=OWN)
    listed = (await client.get("/v1/audit", params={"tenantId": OWN}, headers=as_("operator"))).json()["items"]

    assert [json.loads(line) for line in lines] == listed[::-1]
    assert (await exported(client, tenantId=INSTALLATION))[0].startswith('{"action":"thing.changed"')
    assert places(await exported(client, tenantId=INSTALLATION)) == [("_", seq) for seq in range(1, 7)]


async def test_all_chains_are_exported_one_after_the_other_whatever_the_portions(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await exported(client)
    monkeypatch.setattr(audit_file, "PORTION", 2)

    assert sorted(places(whole)) == sorted((name, seq) for name in (OWN, OTHER, INSTALLATION) for seq in range(1, 7))
    assert await exported(client) == whole
    assert {name: (first, last) for name, (first, last, _) in verify(whole).items()} == dict.fromkeys(
        (OWN, OTHER, INSTALLATION), (1, 6)
    )


async def test_what_one_export_ends_with_the_next_begins_with(client: httpx2.AsyncClient) -> None:
    whole = await exported(client, tenantId=OWN)

    assert places(await exported(client, tenantId=OWN, **{"from": at(2), "to": at(4)})) == [(OWN, 3), (OWN, 4)]
    for hours in (0, 0.5, 2, 5, 9):
        before = await exported(client, tenantId=OWN, to=at(hours))
        assert before + await exported(client, tenantId=OWN, **{"from": at(hours)}) == whole


async def test_an_export_has_no_gap_though_clocks_differ(client: httpx2.AsyncClient, pool: Pool) -> None:
    """What was appended later may have been recorded earlier, by the clock of another replica."""
    clock = ManualClock(BEGIN + timedelta(hours=2, minutes=30))
    async with transaction(pool) as connection:
        await audit.append(connection, [made(6, OWN, clock)], now=clock.now())

    for hours in (2.2, 2.5, 2.7, 4):
        before = await exported(client, tenantId=OWN, to=at(hours))
        verify(before + await exported(client, tenantId=OWN, **{"from": at(hours)}))


async def test_members_and_visitors_export_their_own_chain_and_no_other(client: httpx2.AsyncClient) -> None:
    for who in ("administrator", "visitor", "reader"):
        assert await exported(client, who) == await exported(client, "operator", tenantId=OWN)
        other = await client.get("/v1/audit/export", params={"tenantId": OTHER}, headers=as_(who))
        absent = await client.get("/v1/audit/export", params={"tenantId": ABSENT}, headers=as_(who))
        assert told(other, OTHER) == told(absent, ABSENT)
        assert (other.status_code, other.text) == (200, "")
        assert await exported(client, who, tenantId=INSTALLATION) == []


async def test_a_malformed_query_is_refused_by_name(client: httpx2.AsyncClient) -> None:
    for name, value in (("from", "yesterday"), ("to", "2026-13-01T00:00:00Z"), ("tenantId", "no tenant")):
        answer = await client.get("/v1/audit/export", params={name: value}, headers=as_("operator"))
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"query/{name}")


def changed(line: str, **members: Any) -> str:
    return json.dumps({**json.loads(line), **members})


TAMPERED: dict[str, tuple[Callable[[list[str]], list[str]], int]] = {
    "changed": (lambda lines: [*lines[:2], changed(lines[2], actor="user:eve"), *lines[3:]], 3),
    "left out": (lambda lines: lines[:2] + lines[3:], 3),
    "moved": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
    "twice": (lambda lines: [*lines[:2], *lines[1:]], 3),
    "of another chain": (lambda lines: [changed(lines[0], tenantId="eve"), *lines[1:]], 1),
    "with something added": (lambda lines: [changed(lines[0], more=1), *lines[1:]], 1),
    "without its hash": (lambda lines: [changed(lines[0], hash=None), *lines[1:]], 1),
    "saying something twice": (lambda lines: [lines[0].replace("{", '{"actor":"user:eve",', 1), *lines[1:]], 1),
    "cut off within": (lambda lines: [*lines[:-1], lines[-1][:40]], 6),
    "no entry": (lambda lines: [*lines, "[]"], 7),
}


async def test_whoever_has_the_file_finds_out_what_was_done_to_it(client: httpx2.AsyncClient) -> None:
    lines = await exported(client, tenantId=OWN)
    end = (await client.get("/v1/audit/verification", params={"tenantId": OWN}, headers=as_("operator"))).json()["end"]

    assert verify(lines) == {OWN: (1, end["seq"], end["hash"])}
    assert verify(json.dumps(json.loads(line), indent=1) for line in lines) == verify(lines)  # however it is written
    assert verify(lines[2:])[OWN][:2] == (3, 6)
    for what, (tamper, number) in TAMPERED.items():
        with pytest.raises(BrokenTrailError) as caught:
            verify(tamper(lines))
        assert str(caught.value).startswith(f"line {number}:"), what


async def test_a_rewritten_entry_does_not_follow_the_one_before_it(client: httpx2.AsyncClient) -> None:
    lines = await exported(client, tenantId=OWN)
    for number, line in ((1, lines[0]), (2, lines[1])):
        content = {name: value for name, value in json.loads(line).items() if name != "hash"}
        content["previousHash"] = "f" * 64
        forged = json.dumps({**content, "hash": hashlib.sha256(audit.canonical(content)).hexdigest()})
        with pytest.raises(BrokenTrailError, match=f"^line {number}: .* does not follow"):
            verify([*lines[: number - 1], forged])


async def test_the_command_tells_what_is_in_a_file(
    client: httpx2.AsyncClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = await exported(client, tenantId=OWN)
    capsys.readouterr()
    for name, part in (("a", lines[:4]), ("b", lines[4:])):
        (tmp_path / name).write_text("\n".join(part) + "\n", encoding="utf-8")

    assert audit_file.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out == f"{OWN}\t1\t6\t{json.loads(lines[-1])['hash']}\n"
    assert audit_file.main([str(tmp_path / "b"), str(tmp_path / "a")]) == 1
    assert capsys.readouterr().err.startswith("line 3: entry 7 of own is missing")
    assert audit_file.main([str(tmp_path / "c")]) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 30)), max_size=12), st.integers(1, 20))
def test_portions_have_every_entry_once(sizes: list[tuple[int, int]], size: int) -> None:
    parts = [Part(f"t{number}", first, first + length) for number, (first, length) in enumerate(sizes)]
    cut = list(portions(parts, size=size))

    def entries(of: Sequence[Part]) -> list[tuple[str, int]]:
        return [(tenant_id, seq) for tenant_id, first, stop in of for seq in range(first, stop)]

    assert [entry for portion in cut for entry in entries(portion)] == entries(parts)
    assert all(len(entries(portion)) == size for portion in cut[:-1])
    assert all(0 < len(entries(portion)) <= size for portion in cut)


async def test_where_a_while_begins_and_ends_is_found_by_an_index(pool: Pool) -> None:
    async with pool.acquire() as connection:
        asked = queries.audit.parts_of_chains(connection, None, since=BEGIN, until=BEGIN, after="", limit=500)
        parts = await general_plan(connection, asked)

    assert parts.count("Index Only Scan using audit_entry_by_recording") == 2
