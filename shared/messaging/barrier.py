"""One effect per workflow step, whatever is repeated, late or overtaken by its own undo.

The sub-transaction barrier of dtm, set-based: an operation is one row per (workflow, step), inserted in the transaction
of its effect. An ask whose row exists is answered as before or, after its undo, not at all. An undo that comes first
leaves the row that keeps the ask from ever taking effect. A refusal that may be asked again leaves no row.

An operation that changes what was there before leaves a before-image in its row. The undo takes it out, so that it is
brought back once: an undo that is repeated later finds nothing to restore and cannot undo somebody else's change. Since
one workflow at a time works on a tenant, the next one's ask tells that no undo of the earlier ones can come any more:
their before-images, which may hold what should be deleted some day, are forgotten then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from shared.contracts import CATALOGUE
from shared.contracts.base import Message, Refusal
from shared.messaging.event import Event, UndecodableError
from shared.postgres import Connection

Key = tuple[UUID, str]


@dataclass(frozen=True)
class Entered:
    """What the barrier says of a batch of asks.

    Attributes:
        fresh: the first ask of each operation that may take effect now.
        answered: what was answered to those that took effect before.
    """

    fresh: Sequence[Event]
    answered: Mapping[Key, Message]


def key_of(event: Event) -> Key:
    """Return the operation that an ask is for.

    Raises:
        UndecodableError: the ask names no workflow or no step.
    """
    if event.workflow_id is None or event.step is None:
        raise UndecodableError(f"{event.type} names no workflow step")
    return event.workflow_id, event.step


async def enter(connection: Connection, asks: Sequence[Event]) -> Entered:
    """Let each operation through once; later asks get the answer of the first, those after an undo get none."""
    first = {key_of(ask): ask for ask in reversed(asks)}
    rows = await connection.fetch(
        """
        INSERT INTO operation (workflow_id, step, state)
        SELECT workflow_id, step, 'done' FROM unnest($1::uuid[], $2::text[]) AS key (workflow_id, step)
        ORDER BY workflow_id, step
        ON CONFLICT DO NOTHING
        RETURNING workflow_id, step
        """,
        *_columns(first),
    )
    fresh = {(row["workflow_id"], row["step"]) for row in rows}
    return Entered(
        fresh=[ask for key, ask in reversed(first.items()) if key in fresh],
        answered=await _answers(connection, first.keys() - fresh),
    )


async def remember(
    connection: Connection, answers: Mapping[Key, Message], befores: Mapping[Key, Any] | None = None
) -> None:
    """Keep the answer of each operation, and whether it was a refusal; forget those that may be asked again.

    Args:
        befores: what operations found and changed, as JSON; none for those that are not named.
    """
    before = befores or {}
    lasting = {key: answer for key, answer in answers.items() if not _may_be_asked_again(answer)}
    await connection.execute(
        """
        WITH forgotten AS (
            DELETE FROM operation USING unnest($6::uuid[], $7::text[]) AS old (workflow_id, step)
            WHERE (operation.workflow_id, operation.step) = (old.workflow_id, old.step)
        )
        UPDATE operation
        SET state = new.state, answer_type = new.answer_type, answer = new.answer,
            before = new.before, subject = new.subject
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[], $8::jsonb[], $9::text[])
            AS new (workflow_id, step, state, answer_type, answer, before, subject)
        WHERE (operation.workflow_id, operation.step) = (new.workflow_id, new.step)
        """,
        *_columns(lasting),
        ["refused" if isinstance(answer, Refusal) else "done" for answer in lasting.values()],
        [answer.routing_key() for answer in lasting.values()],
        [orjson.dumps(answer.model_dump(mode="json", by_alias=True)) for answer in lasting.values()],
        *_columns(answers.keys() - lasting.keys()),
        [before.get(key) for key in lasting],
        [answer.tenant_id if key in before else None for key, answer in lasting.items()],
    )


async def lock(connection: Connection, keys: Iterable[Key]) -> dict[Key, str]:
    """Lock operations until the end of the transaction, and return the state of each: who answers later asks first.

    ``undone`` is one of which nobody waits for an answer any more.
    """
    rows = await connection.fetch(
        """
        SELECT workflow_id, step, state
        FROM operation JOIN unnest($1::uuid[], $2::text[]) AS key (workflow_id, step) USING (workflow_id, step)
        ORDER BY workflow_id, step FOR UPDATE OF operation
        """,
        *_columns(set(keys)),
    )
    return {(row["workflow_id"], row["step"]): row["state"] for row in rows}


async def forget(connection: Connection, asks: Sequence[Event], *, own: bool) -> None:
    """Forget the before-images of the tenants that are asked about.

    Args:
        own: whether those of the asking workflows as well, because they will not turn back any more.
    """
    await connection.execute(
        """
        UPDATE operation SET before = NULL, subject = NULL
        WHERE subject = ANY($1::text[]) AND before IS NOT NULL AND workflow_id <> ALL($2::uuid[])
        """,
        [ask.message.tenant_id for ask in asks],
        [] if own else [ask.workflow_id for ask in asks],
    )


async def close(connection: Connection, undos: Sequence[Event]) -> dict[Key, Any]:
    """Close operations for good: whatever asks for them later takes no effect.

    Returns:
        The before-images that are to be brought back now, of operations that have one and were not closed before.
    """
    rows = await connection.fetch(
        """
        INSERT INTO operation (workflow_id, step, state)
        SELECT DISTINCT workflow_id, step, 'undone' FROM unnest($1::uuid[], $2::text[]) AS key (workflow_id, step)
        ORDER BY workflow_id, step
        ON CONFLICT (workflow_id, step) DO UPDATE SET state = 'undone', answer_type = NULL, answer = NULL
        RETURNING workflow_id, step, before  -- as whoever was at work on the row a moment ago has left it
        """,
        *_columns(key_of(event) for event in undos),
    )
    befores = {(row["workflow_id"], row["step"]): row["before"] for row in rows if row["before"] is not None}
    if befores:
        await _forget_befores(connection, befores)
    return befores


async def _forget_befores(connection: Connection, keys: Iterable[Key]) -> None:
    await connection.execute(
        """
        UPDATE operation SET before = NULL, subject = NULL
        FROM unnest($1::uuid[], $2::text[]) AS key (workflow_id, step)
        WHERE (operation.workflow_id, operation.step) = (key.workflow_id, key.step)
        """,
        *_columns(keys),
    )


async def _answers(connection: Connection, keys: Iterable[Key]) -> dict[Key, Message]:
    columns = _columns(keys)
    if not columns[0]:
        return {}
    rows = await connection.fetch(
        """
        SELECT workflow_id, step, answer_type, answer
        FROM operation JOIN unnest($1::uuid[], $2::text[]) AS key (workflow_id, step) USING (workflow_id, step)
        WHERE answer_type IS NOT NULL
        """,
        *columns,
    )
    return {
        (row["workflow_id"], row["step"]): CATALOGUE[row["answer_type"]].model_validate_json(row["answer"])
        for row in rows
    }


def _may_be_asked_again(answer: Message) -> bool:
    return isinstance(answer, Refusal) and answer.retryable


def _columns(keys: Iterable[Key]) -> tuple[list[UUID], list[str]]:
    pairs = list(keys)
    return [workflow_id for workflow_id, _ in pairs], [step for _, step in pairs]
