"""A driver in memory that takes several steps for everything, and fails when it is told to."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from services.provisioning.drivers import (
    Capacity,
    Done,
    Environment,
    Inspection,
    Next,
    Outcome,
    Refused,
    Retry,
    Task,
)

STAGES = ("", "build", "open")
"""Of making an environment; after the last one it can be used."""


class BrokenError(Exception):
    """What the driver raises when it is told to; its text is nothing to show to anybody."""


@dataclass
class Made:
    """What there is of an environment."""

    isolation: str
    is_throttled: bool = False
    connections: int | None = None
    products: dict[str, str] = field(default_factory=dict)
    stage: str = ""


class StagedDriver:
    """Makes environments step by step, and keeps what it was asked.

    Attributes:
        made: what there is, by tenant.
        asked: the method, the tenant and the stage of each call.
        answers: outcomes that are given instead of doing anything, by method and stage, each once.
        breaks: methods and stages at which it raises once the effect is there, each once.
        hangs: methods and stages at which it never answers.
    """

    name = "staged"
    isolations = ("pool", "silo")

    def __init__(self, *, batch: int = 10, after: timedelta = timedelta(0)) -> None:
        self.made: dict[str, Made] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.answers: list[tuple[str, str, Outcome]] = []
        self.breaks: list[tuple[str, str]] = []
        self.hangs: set[tuple[str, str]] = set()
        self._batch = batch
        self._after = after

    def capacity(self, place: str) -> Capacity:
        """Take few at a time."""
        return Capacity(batch=1 if place == "move" else self._batch, at_once=2, step=timedelta(seconds=5))

    async def provision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Make environments in three steps."""
        return [await self._take("provision", task, self._provision) for task in tasks]

    def _provision(self, task: Task) -> Outcome:
        environment = task.environment
        made = self.made.setdefault(environment.tenant_id, Made(environment.isolation, stage="reserved"))
        resources = {**environment.resources, "place": f"place of {environment.tenant_id}"}
        if task.stage != STAGES[-1]:
            following = STAGES[STAGES.index(task.stage) + 1]
            return Next(
                stage=following,
                resources=resources,
                notes={following: True},
                after=self._after,
                said=f"on to {following}",
            )
        made.stage, made.products, made.connections = "open", dict(environment.products), environment.connections
        return Done(resources=resources)

    async def deprovision(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Remove environments in two steps."""
        return [await self._take("deprovision", task, self._deprovision) for task in tasks]

    def _deprovision(self, task: Task) -> Outcome:
        if task.stage == "":
            return Next(stage="clear", resources=task.environment.resources, said="closed")
        gone = self.made.pop(task.environment.tenant_id, None)
        return Done(result={"app.note": 3 if gone else 0})

    async def move(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Carry in three steps, of which the second switches."""
        return [await self._take("move", task, self._move) for task in tasks]

    def _move(self, task: Task) -> Outcome:
        assert task.target is not None
        tenant_id, target = task.environment.tenant_id, task.target
        if task.stage == "" and target.isolation == task.environment.isolation:
            self.made.pop(f"copy of {tenant_id}", None)
            return Done(resources=task.environment.resources)
        if task.stage == "":
            self.made[f"copy of {tenant_id}"] = Made(target.isolation)
            return Next(stage="switch", resources=task.environment.resources, notes={"copied": True}, said="copied")
        if task.stage == "switch":
            self.made.pop(f"copy of {tenant_id}", None)
            self.made[tenant_id] = replace(self.made[tenant_id], isolation=target.isolation)
            resources = {"place": f"{target.isolation} of {tenant_id}"}
            return Next(stage="clear", resources=resources, has_switched=True, said="switched")
        return Done(resources=task.environment.resources, result={"frozenMilliseconds": 12})

    async def throttle(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Open or close in one step."""
        return [await self._take("throttle", task, self._throttle) for task in tasks]

    def _throttle(self, task: Task) -> Outcome:
        made = self.made[task.environment.tenant_id]
        made.is_throttled, made.connections = task.environment.is_throttled, task.environment.connections
        return Done(resources=task.environment.resources)

    async def deploy(self, tasks: Sequence[Task]) -> Sequence[Outcome]:
        """Deploy in one step."""
        return [await self._take("deploy", task, self._deploy) for task in tasks]

    def _deploy(self, task: Task) -> Outcome:
        self.made[task.environment.tenant_id].products = dict(task.environment.products)
        return Done(resources=task.environment.resources)

    async def inspect(self, environments: Sequence[Environment]) -> Sequence[Inspection]:
        """Tell what there is."""
        return [self._inspect(self.made.get(each.tenant_id)) for each in environments]

    def _inspect(self, made: Made | None) -> Inspection:
        if made is None:
            return Inspection(exists=False)
        return Inspection(
            exists=True, is_throttled=made.is_throttled, isolation=made.isolation, products=dict(made.products)
        )

    async def _take(self, method: str, task: Task, do: Any) -> Outcome:
        place = (method, task.stage)
        self.asked.append((method, task.environment.tenant_id, task.stage))
        for index, (wanted_method, stage, outcome) in enumerate(self.answers):
            if (wanted_method, stage) == place:
                del self.answers[index]
                return outcome
        done: Outcome = do(task)
        if place in self.hangs:
            await asyncio.Event().wait()
        if place in self.breaks:
            self.breaks.remove(place)
            raise BrokenError("a secret")
        return done

    def refuse(self, method: str, stage: str, code: str = "no_room") -> None:
        """Refuse once."""
        self.answers.append((method, stage, Refused(code=code, detail="There is no room.")))

    def fail(self, method: str, stage: str, times: int, after: timedelta = timedelta(0)) -> None:
        """Do nothing for some times and say that it may be tried again."""
        self.answers += [(method, stage, Retry(detail="The line is busy.", after=after))] * times

    @property
    def stages(self) -> list[tuple[str, str]]:
        """What it was asked, tenants left out."""
        return [(method, stage) for method, _, stage in self.asked]

    def snapshot(self) -> Mapping[str, Made]:
        """Return what there is, to be compared later."""
        return {name: replace(made, products=dict(made.products)) for name, made in self.made.items()}
