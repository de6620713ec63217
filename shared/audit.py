"""Makes what a service tells of a decision: who decided what, and what was different before."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

import orjson

from shared.access.principal import Role
from shared.clock import Clock
from shared.contracts.base import Decision
from shared.ids import Ids

UNTOLD = "…"
"""Stands in the trail for what somebody could be known by: that it was changed is told, not what it was."""

AnyDecision = TypeVar("AnyDecision", bound=Decision)
Details = Mapping[str, Any]
"""Text, truth values, whole numbers, times and identities, and lists and objects of these."""


class Decider(Protocol):
    """Who decides; a `shared.access.Principal` is one."""

    @property
    def id(self) -> str:
        """What the trail calls it."""
        ...

    @property
    def role(self) -> Role | None:
        """What it is; None for what has no role."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it acts, where it had to say so."""
        ...


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever decides and has shown no credential: a part of the system, or a person who is being let in just now."""

    id: str
    role: Role | None = None
    reason: str | None = None


def decision(
    kind: type[AnyDecision],
    decider: Decider,
    *,
    tenant_id: str,
    action: str,
    subject: str,
    before: Details | None = None,
    after: Details | None = None,
    reason: str | None = None,
    clock: Clock,
    ids: Ids,
) -> AnyDecision:
    """Make the fact of a decision; it belongs into the transaction of what was decided.

    Args:
        kind: the service's own fact.
        tenant_id: whom it concerns; `INSTALLATION` where that is no one tenant.
        reason: in the words of who decides; that of its visit when left out.
    """
    return kind(
        tenant_id=tenant_id,
        decision_id=ids.new(),
        decided_at=clock.now(),
        actor=decider.id,
        role=decider.role,
        reason=decider.reason if reason is None else reason,
        action=action,
        subject=subject,
        before=_json(before),
        after=_json(after),
    )


def changed(before: Details, after: Details, *, untold: Collection[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return those fields that differ, as they were and as they are; what is not there is left out on its side.

    Args:
        untold: fields of which only that is told.
    """
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return _told(before, names, untold), _told(after, names, untold)


def told(details: Details, *, untold: Collection[str]) -> dict[str, Any]:
    """Return details for the trail: of the ``untold`` fields no more than that they are there."""
    return _told(details, list(details), untold)


def _told(details: Details, names: Collection[str], untold: Collection[str]) -> dict[str, Any]:
    return {name: UNTOLD if name in untold else details[name] for name in names if details.get(name) is not None}


def _json(details: Details | None) -> dict[str, Any] | None:
    """Write times and identities as text, as they are on the wire."""
    written: dict[str, Any] | None = None if details is None else orjson.loads(orjson.dumps(details, default=_text))
    return written


def _text(value: Any) -> str:
    if isinstance(value, UUID):  # asyncpg has one of its own, which orjson does not know
        return str(value)
    raise TypeError(type(value).__name__)
