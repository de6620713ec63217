"""The audit trail as a file: how it is written line by line, and how whoever has it finds out that it is whole.

``python -m services.metrics.audit_file trail.ndjson`` needs the file and nothing else: no database and no service.
"""

import fileinput
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn

import asyncpg

from services.metrics import queries
from services.metrics.audit import BEGINNING, canonical, content_of
from services.metrics.queries.audit import Part
from shared.postgres import Pool

PORTION: Final = 500
"""How many entries, and how many chains, are in memory at a time."""

_CONNECTION_SECONDS = 5.0


async def lines(
    pool: Pool, tenant_id: str | None, *, since: datetime | None, until: datetime | None
) -> AsyncIterator[bytes]:
    """Yield the entries that were recorded in a while, chain by chain, in portions of lines of JSON.

    A line is what is sealed of an entry, and the hash that seals it. A connection is held only while a portion is read,
    so nobody waits for a slow reader.

    Args:
        tenant_id: whose chain; None for all.
        since: counts; None for the beginning.
        until: does not any more; None for the end as it is when it is come to.
    """
    after = ""
    while True:
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            parts = await queries.audit.parts_of_chains(
                connection, tenant_id, since=since, until=until, after=after, limit=PORTION
            )
        for portion in portions(parts):
            async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
                entries = await queries.audit.entries_of(connection, portion)
            yield b"".join(_line(entry) for entry in entries)
        if len(parts) < PORTION:
            return
        after = parts[-1].tenant_id


def portions(parts: Iterable[Part], *, size: int = PORTION) -> Iterator[Sequence[Part]]:
    """Cut parts of chains, in their order, into portions of ``size`` entries; the last may be smaller."""
    portion: list[Part] = []
    room = size
    for tenant_id, first, stop in parts:
        while first < stop:
            end = min(stop, first + room)
            portion.append(Part(tenant_id, first, end))
            room -= end - first
            first = end  # noqa: PLW2901 - what is left of the part
            if room == 0:
                yield portion
                portion, room = [], size
    if portion:
        yield portion


def _line(entry: asyncpg.Record) -> bytes:
    return canonical({**content_of(entry), "hash": entry["hash"].hex()}) + b"\n"


class BrokenTrailError(Exception):
    """A file is not as it was exported, or the trail was not as it was written."""


class Stretch(NamedTuple):
    """What a file has of a tenant's chain.

    Attributes:
        first: the number of its first entry.
        last: that of its last one,
        hash: and that one's hash, hexadecimal.
    """

    first: int
    last: int
    hash: str


def verify(rows: Iterable[str | bytes]) -> Mapping[str, Stretch]:
    """Work out again what seals the entries of exported lines, and return what is there of each tenant's chain.

    Files of one while and the next may be read one after the other. Of what is before the first entry of a chain and
    after the last the lines know nothing: compare with the end that ``/v1/audit/verification`` tells.

    Raises:
        BrokenTrailError: an entry was changed, left out, moved or added; it names the line.
    """
    found: dict[str, Stretch] = {}
    for number, row in enumerate(rows, start=1):
        entry = _entry(row, number)
        tenant_id, seq = entry["tenantId"], entry["seq"]
        stretch = found.get(tenant_id)
        if stretch is not None and seq != stretch.last + 1:
            _break(number, f"entry {stretch.last + 1} of {tenant_id} is missing, or in another place")
        previous = stretch.hash if stretch is not None else BEGINNING.hex() if seq == 1 else entry["previousHash"]
        if entry["previousHash"] != previous:
            _break(number, f"entry {seq} of {tenant_id} does not follow the one before it")
        found[tenant_id] = Stretch(stretch.first if stretch is not None else seq, seq, entry["hash"])
    return found


def _entry(row: str | bytes, number: int) -> Mapping[str, Any]:
    """Return an entry whose hash is its own."""
    try:
        entry = json.loads(row, object_pairs_hook=_once)
        content = {name: value for name, value in entry.items() if name != "hash"}
        is_sealed = hashlib.sha256(canonical(content)).hexdigest() == entry["hash"]
        known = isinstance(entry["tenantId"], str) and type(entry["seq"]) is int and "previousHash" in entry
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        _break(number, "this is no entry")
    if not known:
        _break(number, "this is no entry")
    if not is_sealed:
        _break(number, f"entry {entry['seq']} of {entry['tenantId']} is not as it was written")
    return dict(entry)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that says something twice: what is hashed is only one of the two."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError
    return found


def _break(number: int, detail: str) -> NoReturn:
    raise BrokenTrailError(f"line {number}: {detail}")


def main(names: Sequence[str]) -> int:
    """Verify files one after the other, or what is piped in; print what is there of each chain."""
    try:
        with fileinput.input(names, mode="rb") as rows:
            found = verify(rows)
    except (BrokenTrailError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for tenant_id, stretch in found.items():
        sys.stdout.write(f"{tenant_id}\t{stretch.first}\t{stretch.last}\t{stretch.hash}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
