"""A quiet moment: publishers are held, and all that was ever sent has been handled.

Messages are in no backup. So the moment that is backed up has none: the broker is told that it has no memory left,
which holds everybody who publishes and nobody who reads, and the queues run empty within a second or two. What is to be
said meanwhile waits in the outboxes, which are in the backup: docs/decisions/0024-backup-at-a-quiet-moment.md.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from deploy.backup.places import Words
from deploy.backup.programs import ProgramFailedError, Say, said
from shared.contracts import SERVICES
from shared.messaging.topology import RETRY_DELAYS, USAGE_QUEUE, parking_queue_of, retry_queue_of, work_queue_of

PATIENCE_SECONDS = 300.0
"""How long a quiet moment is sought."""

HELD_SECONDS = 30.0
"""How long publishers are held at most: then the broker itself lets them go, whatever has become of who held them."""

Result = TypeVar("Result")


_ADVICE = "Where some wait to be tried again a handler fails: docs/operations.md. Else try when there is less to do."
_EMPTYING_SECONDS = 10.0
_PAUSE_SECONDS = 3.0
_RETRYING = frozenset(retry_queue_of(service, delay) for service in SERVICES for delay in RETRY_DELAYS)
_UNDER_WAY = _RETRYING | {USAGE_QUEUE} | {work_queue_of(service) for service in SERVICES}
_PARKING = frozenset(parking_queue_of(service) for service in SERVICES)

# What `rabbitmqctl list_queues` says of quorum queues is some seconds old; this asks the leader of each.
_DEPTHS = """
    [begin
        {ok, {{Index, _}, Count}, _} = ra:leader_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1),
        {resource, _, queue, Name} = amqqueue:get_name(Queue),
        {Name, Index, Count}
    end || Queue <- rabbit_amqqueue:list(<<"/">>), amqqueue:get_type(Queue) =:= rabbit_quorum_queue].
"""
_DEPTH = re.compile(r'<<"([^"]+)">>,\s*(\d+),\s*(\d+)')

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


@dataclass(frozen=True, order=True)
class Depth:
    """A queue at a moment.

    Attributes:
        index: of the last command in its log; another one whenever anything has happened to it.
        messages: those included that somebody is at work on.
    """

    index: int
    messages: int


Depths = Mapping[str, Depth]


class NeverQuietError(Exception):
    """There was no quiet moment, or it did not last; the message says what there was instead."""


@dataclass(frozen=True)
class Quiet(Generic[Result]):
    """What was done at a quiet moment.

    Attributes:
        held_seconds: for how long publishers were held.
    """

    result: Result
    held_seconds: float


def at_quiet_moment(
    place: Words, act: Callable[[int], Result], say: Say, *, patience: float = PATIENCE_SECONDS
) -> Quiet[Result]:
    """Do something while publishers are held and no message is under way.

    Args:
        place: as in `deploy.backup.places.Places.rabbitmq`.
        act: gets how many messages are parked; must be done within some seconds, see `HELD_SECONDS`. It is done again
            if anything has happened to a queue meanwhile: who has not published for a while may say one thing more.
        patience: seconds, after which it is given up.

    Raises:
        NeverQuietError: something was under way all the time; or it took too long, and the moment was none.
        ProgramFailedError: the broker cannot be controlled, or somebody else holds publishers.
    """
    deadline = time.monotonic() + patience
    while True:
        busy = _under_way(_look(place), _RETRYING)
        if not busy:
            began = time.monotonic()
            with _publishers_held(place):
                seen = _emptied(place)
                busy = _under_way(seen, _UNDER_WAY)
                result = None if busy else act(sum(depth.messages for depth in _of(seen, _PARKING).values()))
                is_quiet = not busy and _of(_look(place), _UNDER_WAY) == _of(seen, _UNDER_WAY)
            if is_quiet:
                return Quiet(cast("Result", result), time.monotonic() - began)
        if time.monotonic() > deadline:
            raise NeverQuietError(f"For {patience:.0f} s there were messages under way, now: {busy}. {_ADVICE}")
        say(f"messages are under way: {busy or 'one was sent just now'}")
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def _publishers_held(place: Words) -> Iterator[None]:
    answer = _evaluated(place, _HOLD % (HELD_SECONDS * 1000))
    if answer != "held":
        raise ProgramFailedError(f"Publishers could not be held; is another backup being made? {answer}")
    try:
        yield
    except BaseException:
        _evaluated(place, _RELEASE)
        raise
    if _evaluated(place, _RELEASE) != "released":
        raise NeverQuietError(f"Publishers were held for {HELD_SECONDS:.0f} s, and more was to be done meanwhile.")


def _emptied(place: Words) -> Depths:
    """Wait until no message is under way, not for long; return what there was at last."""
    deadline = time.monotonic() + _EMPTYING_SECONDS
    while True:
        seen = _look(place)
        if not _under_way(seen, _UNDER_WAY) or time.monotonic() > deadline:
            return seen


def _look(place: Words) -> Depths:
    answer = _evaluated(place, _DEPTHS)
    depths = {queue: Depth(int(index), int(count)) for queue, index, count in _DEPTH.findall(answer)}
    if missing := (_UNDER_WAY | _PARKING) - depths.keys():
        raise ProgramFailedError(f"The broker does not tell how many messages are in {', '.join(sorted(missing))}.")
    return depths


def _of(depths: Depths, queues: frozenset[str]) -> Depths:
    return {queue: depth for queue, depth in depths.items() if queue in queues}


def _under_way(depths: Depths, queues: frozenset[str]) -> str:
    """Name the queues that are not empty."""
    return ", ".join(
        f"{queue} {depth.messages}" for queue, depth in sorted(_of(depths, queues).items()) if depth.messages
    )


def _evaluated(place: Words, expression: str) -> str:
    return said(*place, "rabbitmqctl", "--quiet", "eval", " ".join(expression.split())).strip()
