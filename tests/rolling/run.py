"""A whole rolling restart: old code under load, the new one service by service, quiet, and every check."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from cryptography.fernet import Fernet

from deploy.logins import ENCRYPTION_KEYS
from tests.chaos.campaign.check_replays import check_replays
from tests.chaos.campaign.comparison import compare
from tests.chaos.campaign.customer import Customer
from tests.chaos.campaign.door import Door
from tests.chaos.campaign.figures import conditions, counters
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.fleet import Fleet, customers_client, open_ledger
from tests.chaos.campaign.journal import Journal
from tests.chaos.campaign.orders import PATHS
from tests.chaos.campaign.quiet import rest, settle
from tests.chaos.campaign.traffic import NEWCOMERS, Traffic
from tests.chaos.processes import ServiceProcess
from tests.chaos.watcher import watching
from tests.rolling.check_client import check_client
from tests.rolling.deployment import ORDER, Deployment
from tests.rolling.figures import table, used
from tests.rolling.legacy import Legacy
from tests.rolling.parked import replay_unknown
from tests.rolling.release import Release, ReleaseFailedError
from tests.rolling.servers import Servers, running_servers
from tests.rolling.visitors import Visitors

_SHOWN = 40
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a run is told.

    Attributes:
        rate: orders a second.
        pause: seconds of load at each stage of the deployment: old code, new schema, mixed versions, new code.
        legacy: customers who wait with their tenants for the new code.
    """

    seed: int
    rate: float
    pause: float
    legacy: int = 24


async def run(options: Options, old: Release, new: Release, folder: Path, say: Say) -> bool:
    """Deploy a release over another one, and return whether all was as it must be."""
    try:
        findings = await _findings(options, old, new, folder, say)
    except (AssertionError, ReleaseFailedError) as error:
        say(f"The deployment has failed: {error}")
        return False
    return not findings


async def _findings(options: Options, old: Release, new: Release, folder: Path, say: Say) -> Sequence[Finding]:
    async with _running(old, folder, say) as (fleet, servers):
        with Journal(folder / "journal.jsonl") as journal:
            door = Door(fleet.client, journal, Random(options.seed))
            traffic = _traffic(options, door)
            visitors = Visitors(fleet.client, {name: process.url for name, process in fleet.processes.items()})
            deployment = Deployment(new, fleet, servers, journal, visitors, options.pause, say)
            legacy = _legacy(options, door, journal)
            traffic.customers += legacy.customers
            await _offer_what_is_known(fleet, traffic, door)
            known = "everything" if door.knows_lifecycles else "onboardings only, because it knows nothing else"
            say(f"old code is ready; customers order {known}")
            with traffic.flowing(), visitors.looking():
                await _deploy(deployment, traffic, door, legacy)
            say("No more orders: waiting for what is under way")
            await rest(traffic, say)
            await settle(fleet)
            findings = [*legacy.findings(), *await check_replays(door, Random(options.seed))]
            findings += await compare(fleet, traffic, journal, say)
            findings += await check_client(journal, visitors, fleet.records)
            await _report(options, deployment, legacy, findings)
    return findings


async def _deploy(deployment: Deployment, traffic: Traffic, door: Door, legacy: Legacy) -> None:
    """Deploy everything amid the load, and have new code go on with tenants that were there before."""
    await legacy.onboard()
    await asyncio.sleep(deployment.pause)
    await deployment.declare()
    await asyncio.sleep(deployment.pause)
    for service in ORDER:
        await deployment.replace(service)
    replayed = await replay_unknown(deployment.fleet)
    deployment.say(f"replayed {replayed.total()} messages that old code had parked unknown: {dict(replayed)}")
    await _offer_what_is_known(deployment.fleet, traffic, door)
    await legacy.go_on()
    await asyncio.sleep(deployment.pause)


async def _offer_what_is_known(fleet: Fleet, traffic: Traffic, door: Door) -> None:
    """Let customers order what onboarding's own description of itself says that it knows."""
    document = (await fleet.client.get("/openapi.json")).json()
    door.knows_lifecycles = document["paths"].keys() >= PATHS
    traffic.newcomers = NEWCOMERS if door.knows_lifecycles else 1.0


def _traffic(options: Options, door: Door) -> Traffic:
    prefix = f"rolling-{secrets.token_hex(3)}"

    def make(number: int) -> Customer:
        return Customer(f"{prefix} {number}", door, Random(f"{options.seed} {number}"))

    return Traffic(options.rate, make, Random(options.seed))


def _legacy(options: Options, door: Door, journal: Journal) -> Legacy:
    prefix = f"legacy-{secrets.token_hex(3)}"
    seeds = [f"{options.seed} legacy {number}" for number in range(options.legacy)]
    return Legacy([Customer(f"{prefix} {number}", door, Random(seed)) for number, seed in enumerate(seeds)], journal)


@asynccontextmanager
async def _running(old: Release, folder: Path, say: Say) -> AsyncIterator[tuple[Fleet, Servers]]:
    async with AsyncExitStack() as exits:
        servers = await exits.enter_async_context(running_servers(old, folder, say))
        stack = servers.stack
        processes = {
            name: ServiceProcess(name, {**_new_settings(name), **told}, folder)
            for name, told in stack.environment.items()
        }
        for process in processes.values():
            process.root = old.tree
            exits.callback(process.kill)
        fleet = Fleet(
            stack=stack,
            processes=processes,
            client=await exits.enter_async_context(customers_client(processes["onboarding"].url, stack.admin_key)),
            ledger=await exits.enter_async_context(open_ledger(stack)),
            watcher=await exits.enter_async_context(watching(stack.watcher_url)),
        )
        async with fleet.running():
            yield fleet, servers


def _new_settings(service: str) -> dict[str, str]:
    """Return what the new code has to be told and older code had no use for; whoever deploys it sees to that first."""
    return {ENCRYPTION_KEYS: Fernet.generate_key().decode()} if service == "identity" else {}


async def _report(options: Options, deployment: Deployment, legacy: Legacy, findings: Sequence[Finding]) -> None:
    fleet, say = deployment.fleet, deployment.say
    for finding in findings[:_SHOWN]:
        say(str(finding))
    if len(findings) > _SHOWN:
        say(f"... and {len(findings) - _SHOWN} more")
    say("")
    for line in await table(deployment.restarts, deployment.visitors, fleet.records):
        say(line)
    say("")
    say(conditions(options.seed, options.rate))
    for line in (*await used(legacy, fleet.records), *await counters(deployment.journal, fleet.records, findings)):
        say(line)
