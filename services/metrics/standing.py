"""How far a month of a quota is used while events are added to it: pure, and decided event by event."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Final, NamedTuple

from services.metrics.meter import Aggregation
from services.metrics.queries.quota_use import Key, Portion, Use
from services.metrics.recording.evaluation import ONE
from services.metrics.recording.refusal import RefusedError
from services.metrics.recording.rollup import Total, merged

PERCENTS: Final = (80, 100)
"""Of a limit: what is told when it is reached."""

NOTHING: Final = Total(Decimal(0))


class Quota(NamedTuple):
    """How much of a meter a tenant may use in a month.

    Attributes:
        allows_negative: whether the meter takes values below zero.
        kept: the months of which is kept what was used.
        told: the percents of this limit that have been told of months.
    """

    limit: int
    is_hard: bool
    aggregation: Aggregation
    allows_negative: bool
    kept: Collection[date]
    told: Collection[tuple[date, int]]

    def portion(self, total: Total) -> Portion:
        """Return what is to be added to a month, as the database needs it."""
        return Portion(
            aggregation=self.aggregation,
            ceiling=self.limit if self.is_hard else None,
            quantity=total.quantity,
            peak=total.quantity if self._tells_its_peak else None,
            at=total.at,
            key=total.key,
        )

    @property
    def _tells_its_peak(self) -> bool:
        """Whether nothing that went into a total was above it."""
        return self.aggregation is Aggregation.MAX or not (
            self.aggregation is Aggregation.LATEST or self.allows_negative
        )


class Claim(NamedTuple):
    """What an event adds to a month of a quota.

    Attributes:
        added: a quantity, or the hash of a value for a meter that counts different ones.
    """

    use: Use
    added: Total | bytes


class Claims(NamedTuple):
    """All that an event adds to quotas."""

    key: Key
    claims: Sequence[Claim]


class Standing:
    """What a month of a quota comes to.

    Attributes:
        total: None for nothing yet.
        unseen: those of the events' values that the month does not have.
        is_exhausted: whether the limit has kept an event out.
    """

    def __init__(self, quota: Quota, total: Total | None, unseen: Collection[bytes] = ()) -> None:
        self.quota = quota
        self.total = total
        self.unseen = set(unseen)
        self.is_exhausted = False

    @property
    def used(self) -> Decimal:
        """In the meter's unit."""
        return (self.total or NOTHING).quantity

    def exceeds(self, added: Total | bytes) -> bool:
        """Tell whether something more would be beyond a hard limit, and further than it is already."""
        after = self._with(added)
        if not self.quota.is_hard or after is None or after.quantity <= self.quota.limit:
            return False
        return self.total is None or after.quantity > self.total.quantity

    def add(self, added: Total | bytes) -> None:
        """Let something more be used."""
        self.total = self._with(added)
        if isinstance(added, bytes):
            self.unseen.discard(added)

    def _with(self, added: Total | bytes) -> Total | None:
        if isinstance(added, bytes):
            if added not in self.unseen:
                return self.total
            added = Total(ONE)
        return added if self.total is None else merged(self.quota.aggregation, self.total, added)

    def news(self, month: date) -> list[int]:
        """Return the percents of the limit that it has reached, and that were not told of the month."""
        reached = reached_by(self.used, self.quota.limit)
        if self.is_exhausted and PERCENTS[-1] not in reached:
            reached.append(PERCENTS[-1])
        return [percent for percent in reached if (month, percent) not in self.quota.told]


def reached_by(used: Decimal, limit: int) -> list[int]:
    """Return those of `PERCENTS` of a limit that are used; nothing used is none, of a limit of 0 too."""
    return [percent for percent in PERCENTS if used > 0 and used * 100 >= limit * percent]


def decide(events: Iterable[Claims], standings: Mapping[Use, Standing]) -> dict[Key, RefusedError]:
    """Add events to the months of their quotas, one by one, and return those that a limit keeps out, as a whole."""
    refused: dict[Key, RefusedError] = {}
    for key, claims in events:
        exceeded = [claim.use for claim in claims if standings[claim.use].exceeds(claim.added)]
        for use in exceeded:
            standings[use].is_exhausted = True
        if exceeded:
            refused[key] = _refusal(exceeded[0], standings[exceeded[0]].quota)
        else:
            for claim in claims:
                standings[claim.use].add(claim.added)
    return refused


def _refusal(use: Use, quota: Quota) -> RefusedError:
    detail = f"It exceeds the quota of the meter {use.meter}, which is {quota.limit} in {use.month:%Y-%m}."
    return RefusedError("quota_exceeded", detail)
