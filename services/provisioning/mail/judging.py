"""Whether what comes of a tenant's mails is still good enough for it to go on: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Self

import asyncpg

Reason = Literal["bounce_rate", "complaint_rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is too much.

    Amazon looks into an account from 5 % bounces or 0.1 % complaints on, and may end its sending from 10 % or 0.5 %:
    https://docs.aws.amazon.com/ses/latest/dg/reputationdashboard-bounce-rate.html and
    https://docs.aws.amazon.com/ses/latest/dg/reputationdashboard-complaint-rate.html. So the defaults lie in between.

    Attributes:
        window: how far back is looked.
        bounces: per cent of what is sent that may bounce for good.
        complaints: per cent of what is sent that somebody may complain about.
        least_sends: fewer sends count as so many, so that few mails are no proof and many bounces of few are.
    """

    window: timedelta = timedelta(hours=24)
    bounces: float = 8.0
    complaints: float = 0.4
    least_sends: int = 500

    def since(self, now: datetime) -> datetime:
        """Return the beginning of the first hour that counts."""
        return now.replace(minute=0, second=0, microsecond=0) - self.window

    @property
    def hours(self) -> int:
        """How far back is looked, in whole hours."""
        return int(self.window.total_seconds() // 3600)

    def of(self, reason: Reason) -> float:
        """Return the limit, in per cent."""
        return self.bounces if reason == "bounce_rate" else self.complaints


@dataclass(frozen=True, slots=True)
class Score:
    """What came of a tenant's mails.

    Attributes:
        sends: to how many recipients.
        bounces: for good.
    """

    sends: int
    bounces: int
    complaints: int

    @classmethod
    def of(cls, row: Mapping[str, Any] | asyncpg.Record) -> Self:
        """Make it from a row of `queries.mail`, or from what was kept of one."""
        return cls(int(row["sends"]), int(row["bounces"]), int(row["complaints"]))

    @property
    def bounce_rate(self) -> float | None:
        """Per cent of sends; None where nothing was sent."""
        return _per_cent(self.bounces, self.sends)

    @property
    def complaint_rate(self) -> float | None:
        """Per cent of sends; None where nothing was sent."""
        return _per_cent(self.complaints, self.sends)


def judge(score: Score, limits: Limits) -> Reason | None:
    """Return why a tenant must not go on sending; None where it may."""
    sends = max(score.sends, limits.least_sends)
    if score.bounces * 100 > limits.bounces * sends:
        return "bounce_rate"
    if score.complaints * 100 > limits.complaints * sends:
        return "complaint_rate"
    return None


def _per_cent(part: int, whole: int) -> float | None:
    return round(part * 100 / whole, 2) if whole else None
