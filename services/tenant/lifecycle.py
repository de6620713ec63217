"""The states of a tenant and the ways between them, as data.

The schema refuses every other way by itself (``tenant_transition`` in ``migrations/0001_tenant.sql``); a test compares
the two tables pair by pair. A state is left on one of these ways, and taken back on one of these ways.
"""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a tenant is in its life."""

    REGISTERED = "registered"
    """On record, its name is taken; other services are still at work for it."""
    ACTIVE = "active"
    """Open for business."""
    SUSPENDED = "suspended"
    """Nobody signs in, nothing is charged, everything is kept."""
    OFFBOARDING = "offboarding"
    """On its way out; can still be taken back."""
    ARCHIVED = "archived"
    """What remains when everything else is deleted; its name is free again. Final."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A way from some states to one other.

    Attributes:
        sources: the states it may start from.
        target: the state it leads to.
        may_be_there: whether a tenant that is in the target state already may stay there as if it had come.
    """

    sources: tuple[State, ...]
    target: State
    may_be_there: bool = False


ACTIVATE = Transition((State.REGISTERED,), State.ACTIVE)
DEACTIVATE = Transition((State.ACTIVE,), State.REGISTERED)
"""The undo of `ACTIVATE`, not a suspension: the tenant is as if it had never been open."""

SUSPEND = Transition((State.ACTIVE,), State.SUSPENDED)
REACTIVATE = Transition((State.SUSPENDED,), State.ACTIVE)
"""Each is the way on which the other is taken back."""

OFFBOARD = Transition((State.ACTIVE, State.SUSPENDED), State.OFFBOARDING, may_be_there=True)
"""Also of a tenant that an earlier attempt, since abandoned, has left on its way out."""

RESTORE_ACTIVE = Transition((State.OFFBOARDING,), State.ACTIVE)
RESTORE_SUSPENDED = Transition((State.OFFBOARDING,), State.SUSPENDED)
"""The two undos of `OFFBOARD`, back to wherever the tenant came from."""

ARCHIVE = Transition((State.OFFBOARDING,), State.ARCHIVED)

TRANSITIONS = (ACTIVATE, DEACTIVATE, SUSPEND, REACTIVATE, OFFBOARD, RESTORE_ACTIVE, RESTORE_SUSPENDED, ARCHIVE)
"""Every way there is."""


def allowed(source: State, target: State) -> bool:
    """Tell whether some way leads from ``source`` straight to ``target``."""
    return any(source in transition.sources and transition.target is target for transition in TRANSITIONS)
