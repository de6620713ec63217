"""What applications tell of their tenants' use, and the generator's own ledger of it.

The events are of a few meters, one of each aggregation, and happened in shuffled hours of the last days. One in five
says again what was said before.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple

DAYS = 3
"""How far back events are told of."""

REPEATED = 0.2
"""How much of what is told was told before."""

_MEMORY = 20_000
_MICROSECONDS = 1_000_000
_THOUSANDTHS = 100_000
_USERS = 50

Window = Literal["hour", "month"]
"""What is added up."""

Place = tuple[str, str, datetime]
"""A tenant, a meter and the beginning of a window."""


class UsageEvent(NamedTuple):
    """One event as an application tells it.

    Attributes:
        id: of the event; no two events of a run have the same.
        value: what its meter takes of it; how often something was called has none.
    """

    id: str
    kind: "Kind"
    tenant_id: str
    happened_at: datetime
    value: Decimal | str | None


@dataclass(frozen=True)
class Kind:
    """A meter, and the events that feed it.

    Attributes:
        event_type: of the events.
        aggregation: how the meter adds up.
        path: what the meter takes of an event's data; None where it counts.
        weight: how many of a hundred events are of this kind.
        quantity: what events of a window add up to, written down as plainly as can be.
        in_catalog: whether Tenure comes with the meter.
    """

    meter: str
    event_type: str
    aggregation: str
    path: str | None
    weight: int
    quantity: Callable[[Sequence[UsageEvent]], Decimal]
    in_catalog: bool = False

    def value(self, chance: random.Random) -> Decimal | str | None:
        """Return what the meter takes of a new event."""
        if self.aggregation == "count":
            return None
        if self.aggregation == "unique":
            return f"user-{chance.randrange(_USERS)}"
        return Decimal(chance.randrange(_THOUSANDTHS)).scaleb(-3)

    def data(self, value: Decimal | str | None) -> str:
        """Return an event's data, as JSON."""
        if self.path is None:
            return '{"route":"/v1/notes"}'
        name = self.path.removeprefix("$.")
        return f'{{"{name}":{value}}}' if isinstance(value, Decimal) else f'{{"{name}":{json.dumps(value)}}}'


def _values(events: Sequence[UsageEvent]) -> list[Decimal]:
    return [Decimal(event.value or 0) for event in events]


def _latest(events: Sequence[UsageEvent]) -> Decimal:
    return Decimal(max(events, key=lambda event: event.happened_at).value or 0)


KINDS = (
    Kind("api_calls", "api_call", "count", None, 50, lambda events: Decimal(len(events)), in_catalog=True),
    Kind("traffic_gb", "traffic", "sum", "$.gb", 30, lambda events: sum(_values(events), Decimal(0))),
    Kind("storage_gb", "storage", "max", "$.gb", 10, lambda events: max(_values(events)), in_catalog=True),
    Kind("readers", "read", "unique", "$.user", 5, lambda events: Decimal(len({event.value for event in events}))),
    Kind("queue_length", "queue", "latest", "$.length", 5, _latest),
)
"""The meters that are fed."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Events that are sent together; no other batch is the same.

    Attributes:
        body: the request's, ready to be sent.
        repeated: how many of the events were told before.
    """

    events: Sequence[UsageEvent]
    body: bytes
    repeated: int


class Application:
    """Makes batches of events.

    Args:
        run: makes these events different from those of another run, and the same ones again.
        tenants: whose usage it is.
        now: events happened before.
    """

    def __init__(self, run: str, tenants: Sequence[str], *, now: datetime) -> None:
        self._run = run
        self._tenants = tenants
        self._since = (now - timedelta(days=DAYS)).replace(microsecond=0)
        self._chance = random.Random(run)  # noqa: S311 - a load, no secret
        self._made: list[UsageEvent] = []
        self._number = 0

    def batches(self, count: int, *, size: int) -> list[Batch]:
        """Return the next batches, each of so many events."""
        return [self._batch(size) for _ in range(count)]

    def _batch(self, size: int) -> Batch:
        repeated = int(size * REPEATED)
        new = [self._event() for _ in range(size - repeated)]
        self._made = [*self._made, *new][-_MEMORY:]
        events = new + self._chance.choices(self._made, k=repeated)
        self._chance.shuffle(events)
        return Batch(events, b"[%s]" % b",".join(map(_written, events)), repeated)

    def _event(self) -> UsageEvent:
        self._number += 1
        (kind,) = self._chance.choices(KINDS, [kind.weight for kind in KINDS])
        # No two happen in the same moment, so that one of them is the latest.
        ago = timedelta(seconds=self._chance.randrange(DAYS * 86_400), microseconds=self._number % _MICROSECONDS)
        return UsageEvent(
            id=f"{self._run}-{self._number}",
            kind=kind,
            tenant_id=self._chance.choice(self._tenants),
            happened_at=self._since + ago,
            value=kind.value(self._chance),
        )


def source(event: UsageEvent) -> str:
    """Return who tells of an event."""
    return f"/applications/{event.kind.event_type}"


def _written(event: UsageEvent) -> bytes:
    """Return an event as CloudEvents 1.0 has it."""
    return (
        f'{{"specversion":"1.0","id":"{event.id}","source":"{source(event)}","type":"{event.kind.event_type}",'
        f'"subject":"{event.tenant_id}","time":"{event.happened_at.isoformat()}","data":{event.kind.data(event.value)}}}'
    ).encode()


def ledger(batches: Iterable[Batch], window: Window) -> Mapping[Place, Decimal]:
    """Return what all events of some batches add up to, each taken once."""
    places: dict[Place, list[UsageEvent]] = defaultdict(list)
    for event in {event.id: event for batch in batches for event in batch.events}.values():
        places[event.tenant_id, event.kind.meter, _beginning(event.happened_at, window)].append(event)
    return {place: events[0].kind.quantity(events) for place, events in places.items()}


def _beginning(moment: datetime, window: Window) -> datetime:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour if window == "hour" else hour.replace(day=1, hour=0)
