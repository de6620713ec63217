"""A whole campaign: load, faults amid it, quiet, and the comparison of what was promised with what there is."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos.campaign.check_replays import check_replays
from tests.chaos.campaign.comparison import compare
from tests.chaos.campaign.customer import Customer
from tests.chaos.campaign.door import Door
from tests.chaos.campaign.faults.catalogue import chosen
from tests.chaos.campaign.figures import conditions, counters, recoveries, table
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.journal import Journal
from tests.chaos.campaign.plant import running_plant
from tests.chaos.campaign.quiet import rest, settle
from tests.chaos.campaign.strikes import Strikes
from tests.chaos.campaign.traffic import Traffic

WARM_UP_SECONDS = 5.0
RESERVE_SECONDS = 240.0
"""What is left of the time for the quiet and the checks."""

_SHOWN = 40
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a campaign is told.

    Attributes:
        minutes: how long it may take altogether.
        families: the faults, by the names of `faults.catalogue.CATALOGUE`.
        rate: orders a second.
    """

    seed: int
    minutes: float
    families: Sequence[str]
    rate: float


async def run(options: Options, folder: Path, say: Say) -> bool:
    """Run a campaign in a folder, and return whether all was as it must be."""
    started = asyncio.get_running_loop().time()
    until = started + max(0.0, options.minutes * 60 - RESERVE_SECONDS)
    async with running_plant(folder, say=say) as plant:
        with Journal(folder / "journal.jsonl") as journal:
            door = Door(plant.client, journal, Random(options.seed))
            traffic = _traffic(options, door)
            strikes = Strikes(plant, traffic, plant.records, say)
            with traffic.flowing():
                await asyncio.sleep(WARM_UP_SECONDS)
                faults = chosen(options.families, Random(options.seed))
                say(f"{len(faults)} faults, amid {options.rate:g} orders a second")
                await strikes.run(faults, until=until)
            say("No more faults, no more orders: waiting for what is under way")
            await rest(traffic, say)
            await settle(plant)
            findings = [*strikes.findings, *await check_replays(door, Random(options.seed))]
            findings += await compare(plant, traffic, journal, say)  # nothing may have come of the repetitions
            await _report(options, strikes, journal, findings, say)
    return not findings


def _traffic(options: Options, door: Door) -> Traffic:
    prefix = f"chaos-{secrets.token_hex(3)}"

    def make(number: int) -> Customer:
        return Customer(f"{prefix} {number}", door, Random(f"{options.seed} {number}"))

    return Traffic(options.rate, make, Random(options.seed))


async def _report(options: Options, strikes: Strikes, journal: Journal, findings: Sequence[Finding], say: Say) -> None:
    plant, records = strikes.plant, strikes.records
    for finding in findings[:_SHOWN]:
        say(str(finding))
    if len(findings) > _SHOWN:
        say(f"... and {len(findings) - _SHOWN} more")
    say("")
    for line in table(await recoveries(strikes.struck, records)):
        say(line)
    say("")
    say(conditions(options.seed, options.rate))
    memory = ", ".join(f"{service} {peak >> 20} MB" for service, peak in plant.peaks.items())
    say(f"most memory: {memory}; {plant.watcher.repeated} status events came more than once")
    for untried in strikes.untried:
        say(f"not tried: {untried}")
    say(f"faults struck {len(strikes.struck):4}  each of them proven")
    for line in await counters(journal, records, findings):
        say(line)
