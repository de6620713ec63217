"""Every fault that the campaign knows, by the word that picks it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from random import Random

from shared.contracts import SERVICES
from shared.failpoints import FAILPOINTS
from tests.chaos.campaign.faults.cuts import BlackHole, Cut
from tests.chaos.campaign.faults.failpoints import DieAt
from tests.chaos.campaign.faults.fault import Fault
from tests.chaos.campaign.faults.freezes import LONG_SECONDS, SHORT_SECONDS, Freeze
from tests.chaos.campaign.faults.full_disk import FullDisk
from tests.chaos.campaign.faults.kills import KillAgain, KillBroker, KillPostgres, KillService, KillTwo
from tests.chaos.campaign.faults.outage import Outage
from tests.chaos.campaign.faults.restarts import Restart

_SERVERS = ("rabbitmq", "postgres")
_OF_ONE_SERVICE = {
    "before_202": "onboarding",
    "due_claimed": "onboarding",
    "job_claimed": "provisioning",
    "job_stepped": "provisioning",
}
_NOT_PASSED = {"usage_inserted", "usage_committed"}  # the load has no usage; see tests/chaos/test_kill_metering.py
_NOT_PASSED |= {"lake_planned", "lake_stored", "lake_written"}  # nor a lake; see services/metrics/tests/test_lake.py
_SOME = 3


def _kills(_: Random) -> Sequence[Fault]:
    return [KillBroker(), KillPostgres(), *map(KillService, SERVICES)]


def _freezes(_: Random) -> Sequence[Fault]:
    return [Freeze(each, SHORT_SECONDS) for each in (*SERVICES, *_SERVERS)]


def _long_freezes(_: Random) -> Sequence[Fault]:
    return [Freeze(each, LONG_SECONDS) for each in (*SERVICES, *_SERVERS)]


def _restarts(_: Random) -> Sequence[Fault]:
    return [Restart(each) for each in SERVICES]


def _failpoints(random: Random) -> Sequence[Fault]:
    passed = [failpoint for failpoint in FAILPOINTS if failpoint not in _NOT_PASSED]
    return [DieAt(_OF_ONE_SERVICE.get(failpoint) or random.choice(SERVICES), failpoint) for failpoint in passed]


def _cuts(_: Random) -> Sequence[Fault]:
    return [Cut(service, end) for service in SERVICES for end in ("broker", "database")]


def _black_holes(_: Random) -> Sequence[Fault]:
    return [BlackHole(service, end) for service in SERVICES for end in ("broker", "database")]


def _full_disk(_: Random) -> Sequence[Fault]:
    return [FullDisk()]


def _pairs(random: Random) -> Sequence[Fault]:
    shuffled = random.sample(SERVICES, len(SERVICES))
    return [KillTwo(first, second) for first, second in list(pairwise(shuffled))[:_SOME]]


def _again(random: Random) -> Sequence[Fault]:
    return [KillAgain(service) for service in random.sample(SERVICES, _SOME)]


def _outage(_: Random) -> Sequence[Fault]:
    return [Outage()]


CATALOGUE: Mapping[str, Callable[[Random], Sequence[Fault]]] = {
    "kill": _kills,
    "freeze": _freezes,
    "long-freeze": _long_freezes,
    "restart": _restarts,
    "failpoint": _failpoints,
    "cut": _cuts,
    "black-hole": _black_holes,
    "disk": _full_disk,
    "two": _pairs,
    "again": _again,
    "outage": _outage,
}
"""What makes the faults of a family, by its name."""


def chosen(names: Sequence[str], random: Random) -> list[Fault]:
    """Return the faults of some families, in random order."""
    faults = [fault for name in names for fault in CATALOGUE[name](random)]
    random.shuffle(faults)
    return faults
