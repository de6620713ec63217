"""How far behind a tenant is with its payments: decided of its oldest invoice of which something is due, without I/O.

The defaults are those of Kill Bill's documented schedule: told after 10 days, suspended after 14, gone after 21. Nobody
is taken further than one step at once, and between two steps there is always as much time as the terms put between
them. So a tenant that is found to be far behind, after an outage or because dunning was switched on, is told first like
any other.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, get_args

from shared.contracts.billing import Overdue

CLEAR: Final[Overdue] = "clear"
SOON: Final = timedelta(days=1)
"""How long nobody is looked at of whom something is due, at most: the terms may be others meanwhile."""

_STEPS: Final[tuple[Overdue, ...]] = get_args(Overdue)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long after the issue of an invoice of which something is due a tenant is as far behind as this.

    Attributes:
        past_due: told of it; its plan stays.
        suspension: to be suspended.
        termination: to be off-boarded; None for never.
    """

    past_due: timedelta
    suspension: timedelta
    termination: timedelta | None

    @property
    def delays(self) -> tuple[timedelta, ...]:
        """The time to each step, in their order; none for being clear."""
        last = () if self.termination is None else (self.termination,)
        return (timedelta(0), self.past_due, self.suspension, *last)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far behind a tenant is, as it was told last.

    Attributes:
        since: when it became so.
    """

    overdue: Overdue
    since: datetime


@dataclass(frozen=True, slots=True)
class Review:
    """How far behind a tenant is now.

    Attributes:
        next_at: when it may be further behind; None for not before something is due.
    """

    overdue: Overdue
    next_at: datetime | None


def review(standing: Standing, oldest: datetime | None, *, now: datetime, terms: Terms) -> Review:
    """Decide how far behind a tenant is: at once where it is less than before, else one step at most.

    Args:
        oldest: when the oldest invoice was issued of which something is due; None where nothing is.
    """
    if oldest is None:
        return Review(CLEAR, None)
    before = _STEPS.index(standing.overdue)
    reached = sum(oldest + delay <= now for delay in terms.delays[1:])
    if reached <= before:
        step, since = reached, standing.since if reached == before else now
    elif _following(before, standing.since, oldest, terms) <= now:
        step, since = before + 1, now
    else:
        step, since = before, standing.since
    is_last = step + 1 == len(terms.delays)
    next_at = now + SOON if is_last else min(now + SOON, _following(step, since, oldest, terms))
    return Review(_STEPS[step], next_at)


def _following(step: int, since: datetime, oldest: datetime, terms: Terms) -> datetime:
    """Return when the step after one is taken by a tenant that has taken that one."""
    due_at = oldest + terms.delays[step + 1]
    if step == 0:  # nobody is told of being clear, so nothing counts from then
        return due_at
    return max(due_at, since + terms.delays[step + 1] - terms.delays[step])
