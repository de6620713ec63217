"""A quiet moment: publishers are held, and all that was ever sent has been handled.

Messages are in no backup. So the moment that is backed up has none: the broker is told that it has no memory left,
which holds everybody who publishes and nobody who reads, and the queues run empty within a second or two. What is to be
said meanwhile waits in the outboxes, which are in the backup: docs/decisions/0024-backup-at-a-quiet-moment.md.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.backup.places import Words
from deploy.backup.programs import ProgramFailedError, Say, said
from shared.contracts import SERVICES
from shared.messaging.topology import RETRY_DELAYS, USAGE_QUEUE, parking_queue_of, retry_queue_of, work_queue_of

PATIENCE_SECONDS = 300.0
"""How long a quiet moment is sought."""

HELD_SECONDS = 30.0
"""How long publishers are held at most: then the broker itself lets them go, whatever has become of who held them."""

Depths = Mapping[str, int]
"""How many messages a queue has, those included that somebody is at work on."""

_ADVICE = "Where some wait to be tried again a handler fails: docs/operations.md. Else try when there is less to do."
_EMPTYING_SECONDS = 10.0
_PAUSE_SECONDS = 3.0
_RETRYING = frozenset(retry_queue_of(service, delay) for service in SERVICES for delay in RETRY_DELAYS)
_UNDER_WAY = _RETRYING | {USAGE_QUEUE} | {work_queue_of(service) for service in SERVICES}
_PARKING = frozenset(parking_queue_of(service) for service in SERVICES)

# What `rabbitmqctl list_queues` says of quorum queues is some seconds old; this asks the leader of each.
_DEPTHS = """
    [begin
        {ok, {_, Count}, _} = ra:leader_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1),
        {resource, _, queue, Name} = amqqueue:get_name(Queue),
        {Name, Count}
    end || Queue <- rabbit_amqqueue:list(<<"/">>), amqqueue:get_type(Queue) =:= rabbit_quorum_queue].
"""
_DEPTH = re.compile(r'<<"([^"]+)">>,(\d+)')

# rabbitmqctl(8), set_vm_memory_high_watermark: with 0 all publishing is disabled. The broker takes it back by itself.
_HOLD = """
    Asking = self(),
    {_, Watch} = spawn_monitor(fun() ->
        register(tenure_backup, self()),
        Limit = vm_memory_monitor:get_vm_memory_high_watermark(),
        vm_memory_monitor:set_vm_memory_high_watermark(0.0),
        Asking ! held,
        receive release -> ok after %d -> ok end,
        vm_memory_monitor:set_vm_memory_high_watermark(Limit)
    end),
    receive held -> held; {'DOWN', Watch, _, _, Reason} -> Reason end.
"""
_RELEASE = """
    case whereis(tenure_backup) of
        undefined -> late;
        Keeper ->
            Watch = monitor(process, Keeper),
            Keeper ! release,
            receive {'DOWN', Watch, _, _, normal} -> released; {'DOWN', Watch, _, _, _} -> late end
    end.
"""


class NeverQuietError(Exception):
    """There was no quiet moment, or it did not last; the message says what there was instead."""


@dataclass(frozen=True)
class Quiet:
    """A quiet moment, as long as its block lasts.

    Attributes:
        parked: how many messages wait for an operator.
        since: when publishers were held, as `time.monotonic` has it.
    """

    parked: int
    since: float


@contextmanager
def quiet_moment(place: Words, say: Say, *, patience: float = PATIENCE_SECONDS) -> Iterator[Quiet]:
    """Hold publishers until the end of the block, which begins as soon as no message is under way.

    The block must be done within some seconds, see `HELD_SECONDS`.

    Args:
        place: as in `deploy.backup.places.Places.rabbitmq`.
        patience: seconds, after which it is given up.

    Raises:
        NeverQuietError: something was under way all the time; or the block took too long, and the moment was none.
        ProgramFailedError: the broker cannot be controlled, or somebody else holds publishers.
    """
    deadline = time.monotonic() + patience
    while True:
        depths = _depths(place)
        if not _waiting(depths, _RETRYING):
            with _publishers_held(place) as since:
                depths = _emptied(place)
                if not _waiting(depths, _UNDER_WAY):
                    yield Quiet(sum(_waiting(depths, _PARKING).values()), since)
                    return
        busy = ", ".join(f"{queue} {count}" for queue, count in sorted(_waiting(depths, _UNDER_WAY).items()))
        if time.monotonic() > deadline:
            raise NeverQuietError(f"For {patience:.0f} s there were messages under way, now: {busy}. {_ADVICE}")
        say(f"messages are under way: {busy}")
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def _publishers_held(place: Words) -> Iterator[float]:
    since = time.monotonic()
    answer = _evaluated(place, _HOLD % (HELD_SECONDS * 1000))
    if answer != "held":
        raise ProgramFailedError(f"Publishers could not be held; is another backup being made? {answer}")
    try:
        yield since
    except BaseException:
        _evaluated(place, _RELEASE)
        raise
    if _evaluated(place, _RELEASE) != "released":
        raise NeverQuietError(f"Publishers were held for {HELD_SECONDS:.0f} s, and more was to be done meanwhile.")


def _emptied(place: Words) -> Depths:
    """Wait until two looks in a row find no message under way; return what there was at last."""
    deadline = time.monotonic() + _EMPTYING_SECONDS
    was_empty = False
    while True:
        depths = _depths(place)
        is_empty = not _waiting(depths, _UNDER_WAY)
        if (is_empty and was_empty) or time.monotonic() > deadline:
            return depths
        was_empty = is_empty


def _depths(place: Words) -> Depths:
    return {queue: int(count) for queue, count in _DEPTH.findall(_evaluated(place, _DEPTHS))}


def _waiting(depths: Depths, queues: frozenset[str]) -> Depths:
    return {queue: depths[queue] for queue in queues if depths.get(queue)}


def _evaluated(place: Words, expression: str) -> str:
    return said(*place, "rabbitmqctl", "--quiet", "eval", " ".join(expression.split())).strip()
