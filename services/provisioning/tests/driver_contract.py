"""What every driver promises, each held to the same.

A driver comes with a kit, which knows how a tenant uses what the driver makes, and how to break it.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol
from uuid import uuid4

import pytest

from services.provisioning.drivers import Done, Driver, Environment, Next, Outcome, Refused, Retry, Task

PATIENCE = 60.0
"""How many seconds a job may take here."""

_MOST_STAGES = 20
_LONGEST_PAUSE = 0.05


class Fault(Enum):
    """What may happen to a step."""

    FAILS = "it fails before it has done anything"
    LOST = "it is done, and nobody hears of it"
    HANGS = "it does nothing and does not end, until it is cancelled"


class DriverKit(Protocol):
    """A driver, and what a test needs to know of it."""

    @property
    def driver(self) -> Driver:
        """The driver."""
        ...

    @property
    def faults(self) -> Collection[Fault]:
        """What can be done to it."""
        ...

    @property
    def deploys(self) -> bool:
        """Tell whether it can be seen which products run."""
        ...

    def break_next(self, fault: Fault) -> None:
        """Let this happen to the next step."""
        ...

    def is_hanging(self) -> bool:
        """Tell whether a step is at the point where it does not go on."""
        ...

    def mend(self) -> bool:
        """Let nothing happen any more, and return whether it had yet to happen."""
        ...

    async def is_usable(self, environment: Environment) -> bool:
        """Try to work as the tenant, and return whether it can."""
        ...

    async def keep(self, environment: Environment, note: str) -> None:
        """Let the tenant keep something."""
        ...

    async def kept(self, environment: Environment) -> set[str]:
        """Return what a tenant keeps there that is or was let work, whether it may at the moment or not."""
        ...

    async def remains(self, tenant_id: str) -> set[str]:
        """Return whatever is left of a tenant, each with the isolation that it belongs to before a slash."""
        ...


def environment(tenant_id: str, isolation: str, **more: Any) -> Environment:
    """Return an environment that nothing has been made of."""
    given: dict[str, Any] = {"environment_id": uuid4(), "region": "local", "connections": 5, **more}
    return Environment(tenant_id=tenant_id, isolation=isolation, **given)


@dataclass
class Job:
    """What the service does with a driver for one environment: step after step, and what each says is stored.

    Attributes:
        environment: as it is now.
        tried: what was of no use.
        is_careful: every step is done twice, as after a crash.
    """

    kit: DriverKit
    operation: str
    environment: Environment
    target: Environment | None = None
    stage: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    is_careful: bool = False
    done: Done | None = None
    has_switched: bool = False

    async def finish(self) -> Done:
        """Do all steps, within bounds, and return the last outcome.

        Raises:
            AssertionError: it was refused.
        """
        async with asyncio.timeout(PATIENCE):
            while self.done is None:
                await self.advance()
        return self.done

    async def advance(self) -> None:
        """Do steps until another stage is reached, or the end."""
        stage = self.stage
        while self.done is None and self.stage == stage:
            outcome = await self.step()
            if not isinstance(outcome, Done):
                await asyncio.sleep(_LONGEST_PAUSE if isinstance(outcome, Retry) or outcome.after else 0)

    async def step(self) -> Done | Next | Retry:
        """Do one step, and store what it says."""
        if self.is_careful:
            await self.ask()
        outcome = await self.ask()
        match outcome:
            case Refused():
                raise AssertionError(f"{self.operation} is refused: {outcome}")
            case Retry():
                self.tried.append(outcome.detail)
            case Next():
                self._go_on(outcome)
            case Done():
                self._end(outcome)
        return outcome

    async def ask(self) -> Outcome:
        """Do one step; what it raises, and what does not end, is as good as a retry."""
        task = Task(environment=self.environment, target=self.target, stage=self.stage, notes=self.notes)
        step = asyncio.ensure_future(getattr(self.kit.driver, self.operation)([task]))
        while not step.done() and not self.kit.is_hanging():
            await asyncio.wait({step}, timeout=_LONGEST_PAUSE)
        if not step.done():
            step.cancel()
            with suppress(asyncio.CancelledError):
                await step
            return Retry(detail="cancelled")
        try:
            (outcome,) = step.result()
        except Exception as error:  # noqa: BLE001 - as the service does it
            return Retry(detail=repr(error))
        assert isinstance(outcome, Done | Next | Retry | Refused)
        return outcome

    def _go_on(self, outcome: Next) -> None:
        self.stage, self.notes = outcome.stage, {**self.notes, **outcome.notes}
        if outcome.has_switched:
            assert self.target is not None
            self.environment = self.target = replace(self.target, resources=outcome.resources)
            self.has_switched = True
        elif self.operation != "move":
            self.environment = replace(self.environment, resources=outcome.resources)

    def _end(self, outcome: Done) -> None:
        self.environment = replace(self.target or self.environment, resources=outcome.resources)
        self.done = outcome


class DriverContract:
    """Inherit, and provide the fixture ``kit``."""

    @pytest.fixture(autouse=True)
    async def other(self, kit: DriverKit) -> AsyncIterator[Environment]:
        """Somebody else's environment, which nothing of a test may concern; its name begins like the tenants' here."""
        isolation = kit.driver.isolations[0]
        other = await _provisioned(kit, environment("t-other", isolation))
        await kit.keep(other, "of the other")
        before = await kit.driver.inspect([other])
        yield other
        assert await kit.kept(other) == {"of the other"}
        assert await kit.driver.inspect([other]) == before
        assert await kit.is_usable(other)

    async def test_what_is_provisioned_can_be_used(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            made = await _provisioned(kit, environment(isolation, isolation))

            assert await kit.is_usable(made)
            assert await kit.kept(made) == set()

    async def test_every_step_may_be_done_twice(self, kit: DriverKit) -> None:
        for isolation, target in _circle(kit):
            wanted = environment("t", isolation, products={"notes": "1"})
            made = await _provisioned(kit, wanted, is_careful=True)
            await kit.keep(made, "kept")
            made = (await _course(kit, "deploy", replace(made, products={"notes": "2"}), is_careful=True)).environment
            made = (await _course(kit, "throttle", replace(made, is_throttled=True), is_careful=True)).environment
            made = (await _course(kit, "throttle", replace(made, is_throttled=False), is_careful=True)).environment
            made = (await _course(kit, "move", made, _elsewhere(made, target), is_careful=True)).environment

            assert await kit.is_usable(made)
            assert await kit.kept(made) == {"kept"}
            await _course(kit, "deprovision", made, is_careful=True)
            assert await kit.remains("t") == set()

    async def test_what_is_there_already_is_made_again_without_harm(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            made = await _provisioned(kit, environment(isolation, isolation))
            await kit.keep(made, "kept")
            before = await kit.remains(isolation)

            again = await _provisioned(kit, made)

            assert again.resources == made.resources
            assert await kit.kept(again) == {"kept"}
            assert await kit.remains(isolation) == before

    async def test_of_what_is_removed_nothing_is_left(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            made = await _provisioned(kit, environment(isolation, isolation))
            await kit.keep(made, "gone")
            assert await kit.remains(isolation) != set()

            removed = await _removed(kit, made)

            assert await kit.remains(isolation) == set()
            assert not await kit.is_usable(made)
            assert removed.resources == {}
            assert sum(removed.result.values()) >= 1
            again = await _removed(kit, made)
            assert again.result == removed.result or sum(again.result.values()) == 0

    async def test_what_is_throttled_can_be_removed(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            made = await _throttled(kit, await _provisioned(kit, environment(isolation, isolation)))

            await _removed(kit, made)

            assert await kit.remains(isolation) == set()

    async def test_of_what_was_never_made_there_is_nothing_to_remove(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            removed = await _removed(kit, environment(isolation, isolation))

            assert sum(removed.result.values()) == 0
            assert await kit.remains(isolation) == set()

    async def test_of_what_is_half_made_nothing_is_left(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            begin = _beginning(kit, "provision", environment("t", isolation))
            async for job in _stopped_at_each_stage(begin):
                await _removed(kit, job.environment, notes=job.notes)

                assert await kit.remains("t") == set()

    async def test_nobody_works_where_it_is_throttled_until_it_is_not(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            made = await _provisioned(kit, environment(isolation, isolation))
            await kit.keep(made, "kept")

            closed = await _throttled(kit, made)
            assert not await kit.is_usable(closed)
            assert await kit.kept(closed) == {"kept"}

            opened = (await _course(kit, "throttle", replace(closed, is_throttled=False))).environment
            assert await kit.is_usable(opened)
            assert await kit.kept(opened) == {"kept"}

    async def test_exactly_the_products_run_that_are_named(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            made = await _provisioned(kit, environment(isolation, isolation, products={"notes": "1", "tasks": "1"}))
            await kit.keep(made, "kept")
            for products in ({"notes": "1", "tasks": "1"}, {"notes": "2"}, {}, {"tasks": "1"}):
                made = (await _course(kit, "deploy", replace(made, products=products))).environment

                (found,) = await kit.driver.inspect([made])
                assert not kit.deploys or found.products == products
                assert await kit.kept(made) == {"kept"}
                assert await kit.is_usable(made)

    async def test_what_moves_takes_all_along_and_leaves_nothing(self, kit: DriverKit) -> None:
        for isolation, target in _pairs(kit):
            made = await _provisioned(kit, environment("t", isolation))
            await kit.keep(made, "kept")

            moved = (await _course(kit, "move", made, _elsewhere(made, target))).environment

            assert moved.isolation == target
            assert await _places(kit) == {target}
            assert await kit.kept(moved) == {"kept"}
            assert await kit.is_usable(moved)
            back = (await _course(kit, "move", moved, _elsewhere(moved, isolation))).environment
            assert await _places(kit) == {isolation}
            assert await kit.kept(back) == {"kept"}
            assert await kit.is_usable(back)
            await _removed(kit, back)
            assert await kit.remains("t") == set()

    async def test_what_is_throttled_moves_and_stays_so(self, kit: DriverKit) -> None:
        for isolation, target in _circle(kit):
            made = await _provisioned(kit, environment("t", isolation))
            await kit.keep(made, "kept")
            closed = await _throttled(kit, made)

            moved = (await _course(kit, "move", closed, _elsewhere(closed, target))).environment

            assert not await kit.is_usable(moved)
            assert await kit.kept(moved) == {"kept"}
            await _removed(kit, moved)
            assert await kit.remains("t") == set()

    async def test_a_move_that_is_given_up_leaves_all_as_it_was(self, kit: DriverKit) -> None:
        for isolation, target in _circle(kit):
            made = await _provisioned(kit, environment("t", isolation))
            await kit.keep(made, "kept")
            begin = _beginning(kit, "move", made, _elsewhere(made, target))
            async for job in _stopped_at_each_stage(begin):
                if job.has_switched:
                    break
                await _course(kit, "move", job.environment, job.environment, notes=job.notes)

                assert await _places(kit) == {isolation}
                assert await kit.kept(made) == {"kept"}
                assert await kit.is_usable(made)
            await _removed(kit, job.environment, notes=job.notes)
            assert await kit.remains("t") == set()

    async def test_of_what_is_removed_amid_a_move_nothing_is_left(self, kit: DriverKit) -> None:
        for isolation, target in _circle(kit):
            for stop in itertools.count():
                made = await _provisioned(kit, environment("t", isolation))
                job = await _stopped(_beginning(kit, "move", made, _elsewhere(made, target)), stop)
                if not job.has_switched:
                    await _course(kit, "move", job.environment, job.environment, notes=job.notes)
                await _removed(kit, job.environment, notes=job.notes)

                assert await kit.remains("t") == set()
                if job.done:
                    break

    async def test_who_looks_finds_what_there_is_and_changes_nothing(self, kit: DriverKit, other: Environment) -> None:
        for isolation in kit.driver.isolations:
            wanted = environment(isolation, isolation)
            (nothing,) = await kit.driver.inspect([wanted])
            assert (nothing.exists, nothing.isolation) == (False, None)
            assert await kit.remains(isolation) == set()

            made = await _provisioned(kit, wanted)
            before = await kit.remains(isolation)
            (found, others) = await kit.driver.inspect([made, other])
            assert (found.exists, found.is_throttled, found.isolation) == (True, False, isolation)
            assert others.exists
            assert await kit.remains(isolation) == before
            assert await kit.is_usable(made)

            (found,) = await kit.driver.inspect([await _throttled(kit, made)])
            assert (found.exists, found.is_throttled, found.isolation) == (True, True, isolation)

    async def test_whatever_happens_to_a_step_it_is_done_in_the_end(self, kit: DriverKit) -> None:
        for fault in kit.faults:
            for isolation, target in _circle(kit):
                made = await _broken(kit, fault, "provision", environment("t", isolation))
                await kit.keep(made, "kept")
                assert await kit.is_usable(made)
                made = await _broken(kit, fault, "throttle", replace(made, is_throttled=True))
                assert not await kit.is_usable(made)
                made = await _broken(kit, fault, "throttle", replace(made, is_throttled=False))
                made = await _broken(kit, fault, "deploy", replace(made, products={"notes": "2"}))
                made = await _broken(kit, fault, "move", made, target)
                assert await _places(kit) == {target}
                assert await kit.kept(made) == {"kept"}
                assert await kit.is_usable(made)
                await _broken(kit, fault, "deprovision", made)
                assert await kit.remains("t") == set()

    async def test_whatever_happens_to_a_step_of_what_is_given_up_nothing_is_left(self, kit: DriverKit) -> None:
        for fault, isolation in itertools.product(kit.faults, kit.driver.isolations):
            for stop in itertools.count():
                job = await _stopped(_beginning(kit, "provision", environment("t", isolation)), stop)
                kit.break_next(fault)
                if job.done is None:
                    await job.step()
                if kit.mend() and job.done:
                    await _removed(kit, job.environment, notes=job.notes)
                    break
                await _removed(kit, job.environment, notes=job.notes)

                assert await kit.remains("t") == set()

    async def test_a_move_to_whose_step_something_happens_can_be_given_up(self, kit: DriverKit) -> None:
        for fault, (isolation, target) in itertools.product(kit.faults, _circle(kit)):
            made = await _provisioned(kit, environment("t", isolation))
            await kit.keep(made, "kept")
            for stop in itertools.count():
                job = await _stopped(_beginning(kit, "move", made, _elsewhere(made, target)), stop)
                if job.has_switched:
                    break
                kit.break_next(fault)
                await job.step()
                kit.mend()
                if job.has_switched:
                    break
                # What is written there would be lost, for it is not known yet that there has been a switch.
                assert not await kit.is_usable(_elsewhere(made, target))
                await _course(kit, "move", job.environment, job.environment, notes=job.notes)

                assert await _places(kit) == {isolation}
                assert await kit.kept(made) == {"kept"}
                assert await kit.is_usable(made)
            await job.finish()
            await _removed(kit, job.environment, notes=job.notes)
            assert await kit.remains("t") == set()

    async def test_several_at_once_are_as_one_by_one(self, kit: DriverKit) -> None:
        for isolation in kit.driver.isolations:
            jobs = [Job(kit, "provision", environment(f"{isolation}{number}", isolation)) for number in range(3)]
            made = await _together(kit, "provision", jobs)
            for each in made:
                assert await kit.is_usable(each)
            closed = await _together(kit, "throttle", [Job(kit, "", replace(each, is_throttled=True)) for each in made])
            for each in closed:
                assert not await kit.is_usable(each)
            await _together(kit, "deprovision", [Job(kit, "", each) for each in closed[:2]])
            assert await kit.remains(f"{isolation}0") | await kit.remains(f"{isolation}1") == set()
            assert await kit.remains(f"{isolation}2") != set()


async def _course(
    kit: DriverKit,
    operation: str,
    environment: Environment,
    target: Environment | None = None,
    *,
    notes: dict[str, Any] | None = None,
    is_careful: bool = False,
) -> Job:
    job = Job(kit, operation, environment, target, notes=notes or {}, is_careful=is_careful)
    await job.finish()
    return job


async def _provisioned(kit: DriverKit, wanted: Environment, *, is_careful: bool = False) -> Environment:
    return (await _course(kit, "provision", wanted, is_careful=is_careful)).environment


async def _throttled(kit: DriverKit, made: Environment) -> Environment:
    return (await _course(kit, "throttle", replace(made, is_throttled=True))).environment


async def _removed(kit: DriverKit, made: Environment, *, notes: dict[str, Any] | None = None) -> Done:
    job = await _course(kit, "deprovision", made, notes=notes)
    assert job.done is not None
    return job.done


async def _places(kit: DriverKit) -> set[str]:
    return {each.partition("/")[0] for each in await kit.remains("t")}


def _pairs(kit: DriverKit) -> Sequence[tuple[str, str]]:
    return list(itertools.permutations(kit.driver.isolations, 2))


def _circle(kit: DriverKit) -> Sequence[tuple[str, str]]:
    """Return pairs in which each isolation is left once and reached once."""
    isolations = kit.driver.isolations
    return list(zip(isolations, (*isolations[1:], isolations[0]), strict=True)) if len(isolations) > 1 else []


def _elsewhere(made: Environment, isolation: str) -> Environment:
    return replace(made, isolation=isolation, resources={})


def _beginning(
    kit: DriverKit, operation: str, environment: Environment, target: Environment | None = None
) -> Callable[[], Job]:
    return lambda: Job(kit, operation, environment, target)


async def _stopped(begin: Callable[[], Job], stop: int) -> Job:
    """Begin a job and go on for some stages."""
    assert stop < _MOST_STAGES
    job = begin()
    async with asyncio.timeout(PATIENCE):
        for _ in range(stop):
            await job.advance()
    return job


async def _stopped_at_each_stage(begin: Callable[[], Job]) -> AsyncIterator[Job]:
    """Begin a job again and again, and go one stage further each time, until it is done."""
    for stop in itertools.count():
        job = await _stopped(begin, stop)
        yield job
        if job.done:
            return


async def _broken(
    kit: DriverKit, fault: Fault, operation: str, made: Environment, isolation: str | None = None
) -> Environment:
    """Do something to whose every stage something happens."""
    job = Job(kit, operation, made, None if isolation is None else _elsewhere(made, isolation))
    async with asyncio.timeout(PATIENCE):
        while job.done is None:
            kit.break_next(fault)
            await job.step()
            kit.mend()
            await job.advance()
    return job.environment


async def _together(kit: DriverKit, operation: str, jobs: Sequence[Job]) -> list[Environment]:
    """Do something to several environments in one call for each stage."""
    for job in jobs:
        job.operation = operation
    async with asyncio.timeout(PATIENCE):
        while under_way := [job for job in jobs if job.done is None]:
            tasks = [Task(environment=job.environment, stage=job.stage, notes=job.notes) for job in under_way]
            outcomes = await getattr(kit.driver, operation)(tasks)
            for job, outcome in zip(under_way, outcomes, strict=True):
                assert not isinstance(outcome, Refused)
                if isinstance(outcome, Next):
                    job._go_on(outcome)
                elif isinstance(outcome, Done):
                    job._end(outcome)
            await asyncio.sleep(_LONGEST_PAUSE)
    return [job.environment for job in jobs]
