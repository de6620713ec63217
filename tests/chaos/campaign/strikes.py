"""Faults, one after the other, each amid the load, and how long it took until things went on."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.testing import eventually
from tests.chaos.campaign.faults.fault import Fault
from tests.chaos.campaign.faults.full_disk import FullDisk
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.plant import Plant
from tests.chaos.campaign.records import Records
from tests.chaos.campaign.traffic import Traffic

RECOVERY_SECONDS = 60.0
"""How long after the end of a fault the first onboarding may take to complete."""

_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 0.25
_LOAD_SECONDS = 30.0


@dataclass(frozen=True)
class Strike:
    """A fault that has struck.

    Attributes:
        recovery: seconds from its end to the first onboarding that completed; None where none did.
    """

    kind: str
    target: str
    struck_at: datetime
    healed_at: datetime
    recovery: float | None


@dataclass
class Strikes:
    """Lets faults happen.

    Attributes:
        struck: those that have.
        findings: what was wrong with the others, and with what came after them.
        untried: what could not be tried here, or not in time, and why.
    """

    plant: Plant
    traffic: Traffic
    records: Records
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.struck: list[Strike] = []
        self.findings: list[Finding] = []
        self.untried: list[str] = []

    async def run(self, faults: Sequence[Fault], *, until: float) -> None:
        """Let all of them happen in turn, as long as there is time by the loop's clock."""
        for number, fault in enumerate(faults, 1):
            name = f"{fault.kind}: {fault.target}"
            if asyncio.get_running_loop().time() > until:
                self.untried.append(f"{name} (no time left)")
            elif isinstance(fault, FullDisk) and self.plant.disk.trouble:
                self.untried.append(f"{name} ({self.plant.disk.trouble})")
            else:
                await self._one(fault, f"{number:3}/{len(faults)} {name}")

    async def _one(self, fault: Fault, name: str) -> None:
        await eventually(lambda: self.traffic.under_way > 0, within=_LOAD_SECONDS, describe="orders are under way")
        under_way, struck_at = self.traffic.under_way, datetime.now(UTC)
        try:
            proof = await fault.strike(self.plant)
            await asyncio.sleep(fault.seconds)
            healed_at, waiting = datetime.now(UTC), self.traffic.under_way
            proof = "; ".join(filter(None, [proof, await fault.heal(self.plant)]))
        except AssertionError as error:
            self.findings.append(Finding("vacuous", f"{name}: {error}"))
            self.say(f"{name}: NOT PROVEN: {error}")
            with suppress(AssertionError):
                await fault.heal(self.plant)
            return
        recovery = await self._recovery(name, healed_at)
        self.struck.append(Strike(fault.kind, fault.target, struck_at, healed_at, recovery))
        again = "no onboarding" if recovery is None else f"an onboarding completed {recovery:.1f} s after"
        self.say(f"{name}: {proof}; {under_way} orders under way, {waiting} at its end; {again}")
        await asyncio.sleep(_PAUSE_SECONDS)

    async def _recovery(self, name: str, healed_at: datetime) -> float | None:
        deadline = asyncio.get_running_loop().time() + RECOVERY_SECONDS
        while (first := await self.records.onboarded_after(healed_at)) is None:
            if asyncio.get_running_loop().time() > deadline:
                self.findings.append(Finding("unrecovered", f"{name}: no onboarding for {RECOVERY_SECONDS:.0f} s"))
                return None
            await asyncio.sleep(_LOOK_SECONDS)
        try:
            await self.plant.ready()
        except AssertionError as error:
            self.findings.append(Finding("unrecovered", f"{name}: {error}"))
        return (first - healed_at).total_seconds()
