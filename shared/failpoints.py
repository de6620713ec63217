"""Named places where a test can make the process crash, fail or hang: exactly there, not somewhere near.

Off, a failpoint is one comparison. `TENURE_FAIL` arms them for a process, `armed` for a block of a test::

    TENURE_FAIL=after_commit=kill            at the first visit
    TENURE_FAIL=confirmed:3=raise            at the third visit
    TENURE_FAIL=before_commit=hang,acked=kill

Raising after something has happened (``after_commit``, ``confirmed``) is the fault "raised but happened". A simulation
decides about each visit anew: `visited_by`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Action = Literal["kill", "raise", "hang"]

FAILPOINTS = (
    "received",
    "inbox_inserted",
    "handled",
    "outbox_inserted",
    "before_commit",
    "after_commit",
    "before_publish",
    "confirmed",
    "outbox_deleted",
    "before_ack",
    "acked",
    "before_202",
    "due_claimed",
    "job_claimed",
    "job_stepped",
    "usage_inserted",
    "usage_committed",
    "lake_planned",
    "lake_stored",
    "lake_written",
)
"""Every failpoint of the system, in the order in which a message passes them."""


class FailpointError(ConnectionError):
    """The failure that an armed failpoint raises: an outage, as far as the code around it can tell."""


@dataclass
class _Armed:
    action: Action
    visits_left: int


Visitor = Callable[[str], Awaitable[None]]
"""What runs at every visit of every failpoint, with its name; it may take its time, raise, or never return."""

_armed: dict[str, _Armed] = {}
_hits: dict[str, int] = {}
_visitor: Visitor | None = None


async def failpoint(name: str) -> None:
    """Do nothing, unless a test has armed this place.

    Raises:
        FailpointError: it is armed with ``raise`` and this is the visit that was asked for.
    """
    if _visitor is not None:
        await _visitor(name)


def arm(specification: str) -> None:
    """Arm failpoints from a text such as ``after_commit:2=kill,acked=raise``; an empty text disarms all.

    Raises:
        ValueError: the text names an unknown failpoint or action.
    """
    _armed.clear()
    _let_visit(None)
    for part in filter(None, specification.split(",")):
        place, _, action = part.partition("=")
        name, _, visit = place.partition(":")
        if name not in FAILPOINTS or action not in {"kill", "raise", "hang"}:
            raise ValueError(
                f"{part!r} is not <failpoint>[:<visit>]=kill|raise|hang; failpoints: {', '.join(FAILPOINTS)}"
            )
        _armed[name] = _Armed(action=action, visits_left=int(visit or 1))  # type: ignore[arg-type] # checked above
    _let_visit(_visit if _armed else None)


def arm_from_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Arm what ``TENURE_FAIL`` names; called once when a process starts."""
    arm(environment.get("TENURE_FAIL", ""))


@contextmanager
def armed(specification: str) -> Iterator[None]:
    """Arm failpoints for a block."""
    arm(specification)
    _hits.clear()
    try:
        yield
    finally:
        arm("")


@contextmanager
def visited_by(visitor: Visitor) -> Iterator[None]:
    """Let somebody decide about every visit of a block; what is armed does not strike meanwhile."""
    before = _visitor
    _let_visit(visitor)
    try:
        yield
    finally:
        _let_visit(before)


def hits(name: str) -> int:
    """Tell how often an armed failpoint has struck since `armed`: the proof that a fault happened."""
    return _hits.get(name, 0)


def _let_visit(visitor: Visitor | None) -> None:
    global _visitor  # noqa: PLW0603 - failpoints are called from everywhere and belong to the process
    _visitor = visitor


async def _visit(name: str) -> None:
    armed_here = _armed.get(name)
    if armed_here is None:
        return
    armed_here.visits_left -= 1
    if armed_here.visits_left != 0:
        return
    _hits[name] = _hits.get(name, 0) + 1
    print(f"failpoint {name}: {armed_here.action}", file=sys.stderr, flush=True)  # noqa: T201 - the last words
    if armed_here.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if armed_here.action == "hang":
        await asyncio.Event().wait()
    raise FailpointError(name)
