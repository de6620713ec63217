"""The audit trail: a chain of entries for each tenant, in which nothing can be changed, left out or moved unseen.

An entry's hash is the SHA-256 of the entry as JSON in its canonical form, which names the hash of the entry before it.
The canonical form is sorted keys, no whitespace, UTF-8: what RFC 8785 makes of objects, lists, strings, booleans and
whole numbers, of which an entry consists. `json.dumps(content, sort_keys=True, separators=(",", ":"),
ensure_ascii=False)` writes the same.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg
import orjson

from services.metrics import queries
from shared.contracts.base import Decision
from shared.postgres import Connection, Pool

BEGINNING = bytes(32)
"""What stands for the hash before the first entry."""

MOST_VERIFIED = 50_000
"""How many entries one look takes in at most; it takes a second or two."""

_CHUNK = 500
_CONNECTION_SECONDS = 5.0

Entry = Mapping[str, Any] | asyncpg.Record
"""A row of ``audit_entry``."""

_COLUMNS = ("service", "actor", "role", "reason", "action", "subject", "before", "after")
"""What an entry keeps of a decision as it was told, apart from identities and times."""


class End(NamedTuple):
    """The end of a chain: its last entry's number and hash."""

    seq: int
    hash: bytes


@dataclass(frozen=True)
class Verification:
    """What a look at a chain, or a part of it, has found.

    Attributes:
        checked: how many entries were found as they were written.
        broken_at: the first that is not: changed, missing, moved, or one too many.
        next_seq: where to go on; None at the end of the chain, and where it is broken.
        end: of the whole chain, as it is said to be.
    """

    checked: int
    broken_at: int | None
    next_seq: int | None
    end: End


def content_of(entry: Entry) -> dict[str, Any]:
    """Return what is sealed of an entry, as JSON."""
    return {
        "tenantId": entry["tenant_id"],
        "seq": entry["seq"],
        "decisionId": str(entry["decision_id"]),
        "decidedAt": instant(entry["decided_at"]),
        "recordedAt": instant(entry["recorded_at"]),
        **{name: entry[name] for name in _COLUMNS},
        "previousHash": entry["previous_hash"].hex(),
    }


def hash_of(entry: Entry) -> bytes:
    """Return the hash that seals an entry, together with all before it."""
    return hashlib.sha256(canonical(content_of(entry))).digest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """Write what is sealed of an entry in the form that is sealed."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def instant(time: datetime) -> str:
    """Write a time as it is sealed: RFC 3339 in UTC, with the digits that it has."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def sealed(decisions: Iterable[Decision], ends: Mapping[str, End], *, now: datetime) -> list[dict[str, Any]]:
    """Return the entries of decisions, in their order, each in the chain of its tenant.

    Args:
        ends: of the chains of all these tenants.
    """
    ends = dict(ends)
    entries: list[dict[str, Any]] = []
    for decision in decisions:
        end = ends[decision.tenant_id]
        entry = _entry(decision, end, now)
        ends[decision.tenant_id] = End(entry["seq"], entry["hash"])
        entries.append(entry)
    return entries


def _entry(decision: Decision, end: End, now: datetime) -> dict[str, Any]:
    entry = {
        **decision.model_dump(),
        "service": decision.owner,
        "seq": end.seq + 1,
        "recorded_at": now,
        "previous_hash": end.hash,
    }
    return {**entry, "hash": hash_of(entry)}


async def append(connection: Connection, decisions: Sequence[Decision], *, now: datetime) -> None:
    """Append decisions to the chains of their tenants, each once, however often it is told."""
    tenant_ids = list(dict.fromkeys(each.tenant_id for each in decisions))
    rows = await queries.audit.lock_chains(connection, tenant_ids, beginning=BEGINNING)
    ends = {row["tenant_id"]: End(row["seq"], row["hash"]) for row in rows}
    # Looked up under the locks, so that nobody else appends one of them meanwhile.
    known = await queries.audit.known_decisions(connection, [each.decision_id for each in decisions])
    fresh = {each.decision_id: each for each in decisions if each.decision_id not in known}
    if fresh:
        await queries.audit.append_entries(connection, sealed(fresh.values(), ends, now=now))


async def verify(pool: Pool, tenant_id: str, *, from_seq: int = 1, most: int | None = None) -> Verification:
    """Work out again what seals the entries of a chain, from one on, in bounded steps.

    What is before ``from_seq`` is taken as it is: begin at 1, and go on where the last look ended.
    """
    async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
        row = await queries.audit.end_of_chain(connection, tenant_id)
        before = await queries.audit.entries_from(connection, tenant_id, from_seq - 1, limit=1) if from_seq > 1 else []
    end = End(row["seq"], row["hash"] or BEGINNING)
    check = _Check(from_seq, before[0]["hash"] if before else BEGINNING)
    last = min(end.seq, from_seq + (most or MOST_VERIFIED) - 1)
    while check.broken_at is None and check.seq <= last:
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            entries = await queries.audit.entries_from(
                connection, tenant_id, check.seq, limit=min(_CHUNK, last - check.seq + 1)
            )
        check.take(entries)
    if check.broken_at is None and last == end.seq:
        check.end(end, has_more=row["has_more"])
    next_seq = check.seq if check.broken_at is None and last < end.seq else None
    return Verification(check.seq - from_seq, check.broken_at, next_seq, end)


class _Check:
    """How far a chain was found whole.

    Attributes:
        seq: of the entry that is looked at next.
        broken_at: the first entry that is not as it was written.
    """

    def __init__(self, seq: int, previous_hash: bytes) -> None:
        self.seq = seq
        self.broken_at: int | None = None
        self._previous_hash = previous_hash

    def take(self, entries: Sequence[Entry]) -> None:
        """Look at the entries that follow; none is one that is missing."""
        for entry in entries:
            is_next = entry["seq"] == self.seq and entry["previous_hash"] == self._previous_hash
            if not is_next or entry["hash"] != hash_of(entry):
                self.broken_at = self.seq
                return
            self.seq, self._previous_hash = self.seq + 1, entry["hash"]
        if not entries:
            self.broken_at = self.seq

    def end(self, end: End, *, has_more: bool) -> None:
        """Compare where the entries end with where the chain is said to."""
        if has_more:
            self.broken_at = end.seq + 1
        elif self.seq == end.seq + 1 and self._previous_hash != end.hash:
            self.broken_at = max(end.seq, 1)
