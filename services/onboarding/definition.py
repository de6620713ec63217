"""What a workflow definition is made of, and what is wrong with one before it ever runs.

step    is asked, and can be taken back
wait    lets time pass
pivot   is asked, and cannot be taken back: from here on the workflow only goes forward
onward  is asked after the pivot
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any
from uuid import UUID

from services.onboarding.workflow import PlannedStep
from shared.contracts.base import Ask, Message
from shared.contracts.billing import Licence
from shared.contracts.tenant import LicensedProduct, PlacedProduct, ProductVersion

STEP_TIMEOUT_SECONDS = 30.0
STEP_ATTEMPTS = 3
STEP_BACKOFF_SECONDS = 1.0
DEADLINE_SECONDS = 3600.0

_OWN = "onboarding"

Request = Mapping[str, Any]


class DefinitionError(Exception):
    """A workflow definition that could not run, or not be undone."""


@dataclass(frozen=True)
class Context:
    """What the builder of an ask may look at.

    Attributes:
        request: the accepted request, JSON.
        results: the answers of the steps that have succeeded, JSON, by step.
    """

    workflow_id: UUID
    tenant_id: str
    request: Request
    results: Mapping[str, Mapping[str, Any]]

    def result(self, step_name: str) -> Mapping[str, Any]:
        """Return the answer of a step that this one comes after."""
        return self.results[step_name]

    def products(self) -> tuple[ProductVersion, ...]:
        """Return the products that were ordered."""
        return tuple(ProductVersion.model_validate(product) for product in self.request.get("products", ()))

    def placed(self, step_name: str) -> tuple[PlacedProduct, ...]:
        """Return the products with where they run, as the tenant service has answered a step."""
        return tuple(PlacedProduct.model_validate(each.model_dump()) for each in self._licensed(step_name))

    def licences(self, step_name: str) -> tuple[Licence, ...]:
        """Return which products are paid for by plans of their own, as the tenant service has answered a step."""
        licensed = self._licensed(step_name)
        return tuple(Licence(product=each.name, plan=each.plan) for each in licensed if each.plan is not None)

    def _licensed(self, step_name: str) -> tuple[LicensedProduct, ...]:
        """Return what the products mean; where the tenant service told of none, as before it knew, it is the least."""
        told = self.result(step_name).get("products")
        ordered = self.request.get("products", ()) if told is None else told
        return tuple(LicensedProduct.model_validate(product) for product in ordered)

    def registration(self) -> dict[str, Any]:
        """Return the fields of the request that the tenant record takes over."""
        taken = ("customerName", "tier", "phone", "address", "region", "expiration", "tags", "attributes")
        fields = {name: self.request[name] for name in taken if self.request.get(name) is not None}
        return fields | {"email": self.request["adminEmails"][0], "products": self.products()}


Builder = Callable[[Context], Message]
Condition = Callable[[Request], bool]
Duration = Callable[[Request], float]


def _always(_: Request) -> bool:
    return True


@dataclass(frozen=True)
class DefinedStep:
    """One step of a definition: the builder of its ask, and the ask that undoes it; neither for one that waits.

    Attributes:
        only_if: tells from the request whether the step is part of the workflow.
        seconds: tells from the request how long a step that waits waits.
    """

    name: str
    ask: Builder | None = None
    does: type[Ask] | None = None
    undo: type[Ask] | None = None
    after: tuple[str, ...] = ()
    timeout: float = 0.0
    attempts: int = 1
    backoff: float = 0.0
    pivot: bool = False
    only_if: Condition = _always
    seconds: Duration | None = None

    def planned(self) -> PlannedStep:
        """Return the step as a workflow runs it."""
        return PlannedStep(
            name=self.name,
            service=self.does.owner if self.does else _OWN,
            after=self.after,
            ask=self.does.routing_key() if self.does else None,
            undo=self.undo.routing_key() if self.undo else None,
            timeout=self.timeout,
            attempts=self.attempts,
            backoff=self.backoff,
            pivot=self.pivot,
        )


def step(
    name: str,
    *,
    ask: Builder,
    undo: type[Ask],
    after: Sequence[str] = (),
    only_if: Condition = _always,
    timeout: float = STEP_TIMEOUT_SECONDS,
    attempts: int = STEP_ATTEMPTS,
    backoff: float = STEP_BACKOFF_SECONDS,
) -> DefinedStep:
    """Define a step that can be taken back.

    Args:
        ask: builds what is asked.
        undo: what takes it back; it names what it undoes, and with it what ``ask`` builds.
        after: the steps that must have succeeded before.
        only_if: tells from the request whether the step is needed.
        timeout: seconds to wait for an answer.
        attempts: how often it is asked.
        backoff: seconds before the second attempt, doubled for each further one.

    Raises:
        DefinitionError: ``undo`` undoes nothing, or there is no time or no attempt for the ask.
    """
    if undo.undoes is None:
        raise DefinitionError(f"{name}: {undo.__name__} undoes nothing")
    if timeout <= 0 or attempts < 1 or backoff < 0:
        raise DefinitionError(f"{name}: {attempts} attempts of {timeout} s, {backoff} s apart, are none")
    return DefinedStep(
        name, ask, undo.undoes, undo, tuple(after), timeout, attempts=attempts, backoff=backoff, only_if=only_if
    )


def wait(name: str, *, seconds: Duration, after: Sequence[str] = ()) -> DefinedStep:
    """Define a step that lets time pass: as many seconds as follow from the request."""
    return DefinedStep(name, after=tuple(after), seconds=seconds)


def pivot(name: str, *, does: type[Ask], ask: Builder, after: Sequence[str]) -> DefinedStep:
    """Define the step that cannot be taken back; every other step comes before or after it."""
    return replace(onward(name, does=does, ask=ask, after=after), pivot=True)


def onward(name: str, *, does: type[Ask], ask: Builder, after: Sequence[str]) -> DefinedStep:
    """Define a step past the pivot: it is tried until it succeeds, and never taken back.

    Args:
        does: what ``ask`` builds.
    """
    return DefinedStep(
        name,
        ask,
        does,
        after=tuple(after),
        timeout=STEP_TIMEOUT_SECONDS,
        attempts=STEP_ATTEMPTS,
        backoff=STEP_BACKOFF_SECONDS,
    )


class Definition:
    """A kind of workflow.

    Args:
        kind: as in the public contract.
        version: grows when steps change; a running workflow keeps the plan it started with.
        name: of this way to do what ``kind`` says, where there are several.
        deadline: seconds in which a workflow must have ended, not counting those that it waits.
        urgent: whether there is room for it when there is none for others.

    Attributes:
        plan: all its steps, those included that depend on the request.

    Raises:
        DefinitionError: names repeat, an ``after`` names no step, the steps form a cycle, or one that cannot be taken
            back is neither the pivot nor after it.
    """

    def __init__(
        self,
        *,
        kind: str,
        version: int,
        steps: Sequence[DefinedStep],
        name: str | None = None,
        deadline: float = DEADLINE_SECONDS,
        urgent: bool = False,
    ) -> None:
        self.kind = kind
        self.name = name or kind
        self.version = version
        self.deadline = deadline
        self.urgent = urgent
        self.steps = {each.name: each for each in steps}
        _refuse_broken(self.name, steps)
        _refuse_without_return(self.name, steps)
        self.plan = tuple(each.planned() for each in steps)
        self._depends_on_request = any(each.seconds or each.only_if is not _always for each in steps)

    def plan_for(self, request: Request) -> tuple[PlannedStep, ...]:
        """Return the steps that a request needs; those that come after a step that is left out come after its own."""
        if not self._depends_on_request:
            return self.plan
        left_out = {name for name, each in self.steps.items() if not each.only_if(request)}
        return tuple(
            replace(
                each,
                after=self._predecessors(each.name, left_out),
                timeout=seconds(request) if (seconds := self.steps[each.name].seconds) else each.timeout,
            )
            for each in self.plan
            if each.name not in left_out
        )

    def seconds_for(self, request: Request) -> float:
        """Return how long a workflow for this request may take, the time that it waits included."""
        return self.deadline + sum(each.seconds(request) for each in self.steps.values() if each.seconds)

    def message(self, step_name: str, routing_key: str, context: Context) -> Message:
        """Build what is sent for a step: its ask, or its undo."""
        defined = self.steps[step_name]
        if defined.undo is not None and routing_key == defined.undo.routing_key():
            return defined.undo(tenant_id=context.tenant_id)
        assert defined.ask is not None
        return defined.ask(context)

    def _predecessors(self, name: str, left_out: set[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for each in self.steps[name].after:
            found |= dict.fromkeys(self._predecessors(each, left_out) if each in left_out else [each])
        return tuple(found)


def _refuse_broken(name: str, steps: Sequence[DefinedStep]) -> None:
    names = [each.name for each in steps]
    if len(set(names)) != len(names):
        raise DefinitionError(f"{name}: a step's name is used twice")
    for each in steps:
        if unknown := set(each.after) - set(names):
            raise DefinitionError(f"{name}: {each.name} comes after {', '.join(sorted(unknown))}, which is no step")
    try:
        TopologicalSorter({each.name: each.after for each in steps}).prepare()
    except CycleError as error:
        raise DefinitionError(f"{name}: the steps wait for each other: {', '.join(error.args[1])}") from error


def _refuse_without_return(name: str, steps: Sequence[DefinedStep]) -> None:
    pivots = [each.name for each in steps if each.pivot]
    if len(pivots) > 1:
        raise DefinitionError(f"{name}: there are several pivots: {', '.join(pivots)}")
    before = {each.name: _all_before(each.name, steps) for each in steps}
    for each in steps:
        is_past = bool(before[each.name].intersection(pivots))
        if is_past and each.undo:
            raise DefinitionError(f"{name}: {each.name} can be taken back, but comes after the pivot")
        if each.does and not each.undo and not (each.pivot or is_past):
            raise DefinitionError(f"{name}: {each.name} cannot be taken back, but comes before any pivot")
        if pivots and not (each.pivot or is_past or each.name in before[pivots[0]]):
            raise DefinitionError(f"{name}: {each.name} comes neither before nor after the pivot {pivots[0]}")


def _all_before(name: str, steps: Sequence[DefinedStep]) -> set[str]:
    direct = next(each.after for each in steps if each.name == name)
    return set(direct).union(*(_all_before(each, steps) for each in direct))
