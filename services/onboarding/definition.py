"""What a workflow definition is made of, and what is wrong with one before it ever runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from services.onboarding.saga import PlannedStep
from shared.contracts.base import Ask, Message
from shared.contracts.tenant import ProductVersion

STEP_TIMEOUT_SECONDS = 30.0
STEP_ATTEMPTS = 3
STEP_BACKOFF_SECONDS = 1.0


class DefinitionError(Exception):
    """A workflow definition that could not run, or not be undone."""


@dataclass(frozen=True)
class Context:
    """What the builder of an ask may look at.

    Attributes:
        request: the accepted request, JSON.
        results: the answers of the steps that have succeeded, JSON, by step.
    """

    tenant_id: str
    request: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]

    def result(self, step_name: str) -> Mapping[str, Any]:
        """Return the answer of a step that this one comes after."""
        return self.results[step_name]

    def products(self) -> tuple[ProductVersion, ...]:
        """Return the products that were ordered."""
        return tuple(ProductVersion.model_validate(product) for product in self.request.get("products", ()))

    def registration(self) -> dict[str, Any]:
        """Return the fields of the request that the tenant record takes over."""
        taken = ("customerName", "tier", "phone", "address", "region", "expiration", "tags", "attributes")
        fields = {name: self.request[name] for name in taken if self.request.get(name) is not None}
        return fields | {"email": self.request["adminEmails"][0], "products": self.products()}


Builder = Callable[[Context], Message]


@dataclass(frozen=True)
class DefinedStep:
    """One step of a definition: the builder of its ask, and the ask that undoes it."""

    name: str
    ask: Builder
    does: type[Ask]
    undo: type[Ask]
    after: tuple[str, ...]
    timeout: float
    attempts: int
    backoff: float


def step(
    name: str,
    *,
    ask: Builder,
    undo: type[Ask],
    after: Sequence[str] = (),
    timeout: float = STEP_TIMEOUT_SECONDS,
    attempts: int = STEP_ATTEMPTS,
    backoff: float = STEP_BACKOFF_SECONDS,
) -> DefinedStep:
    """Define a step.

    Args:
        ask: builds what is asked.
        undo: what takes it back; it names what it undoes, and with it what ``ask`` builds.
        after: the steps that must have succeeded before.
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
    return DefinedStep(name, ask, undo.undoes, undo, tuple(after), timeout, attempts, backoff)


class Definition:
    """A kind of workflow.

    Args:
        kind: as in the public contract.
        version: grows when steps change; a running workflow keeps the plan it started with.

    Raises:
        DefinitionError: names repeat, an ``after`` names no step, or the steps form a cycle.
    """

    def __init__(self, *, kind: str, version: int, steps: Sequence[DefinedStep]) -> None:
        self.kind = kind
        self.version = version
        self.steps = {each.name: each for each in steps}
        _refuse_broken(kind, steps)
        self.plan = tuple(
            PlannedStep(
                name=each.name,
                service=each.undo.owner,
                after=each.after,
                ask=each.does.routing_key(),
                undo=each.undo.routing_key(),
                timeout=each.timeout,
                attempts=each.attempts,
                backoff=each.backoff,
            )
            for each in steps
        )

    def message(self, step_name: str, routing_key: str, context: Context) -> Message:
        """Build what is sent for a step: its ask, or its undo."""
        defined = self.steps[step_name]
        if routing_key == defined.undo.routing_key():
            return defined.undo(tenant_id=context.tenant_id)
        return defined.ask(context)


def _refuse_broken(kind: str, steps: Sequence[DefinedStep]) -> None:
    names = [each.name for each in steps]
    if len(set(names)) != len(names):
        raise DefinitionError(f"{kind}: a step's name is used twice")
    for each in steps:
        if unknown := set(each.after) - set(names):
            raise DefinitionError(f"{kind}: {each.name} comes after {', '.join(sorted(unknown))}, which is no step")
    try:
        TopologicalSorter({each.name: each.after for each in steps}).prepare()
    except CycleError as error:
        raise DefinitionError(f"{kind}: the steps wait for each other: {', '.join(error.args[1])}") from error
