"""The states of workflows and steps, and what operators can do in them: found by trying everything."""

from collections.abc import Iterable, Iterator, Sequence

from docs.generators.catalogue import prose
from docs.generators.exploration import ACCEPTED, Edges, Position, Transitions, explore, shortened, unreached
from docs.generators.markdown import mermaid, table
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.saga import Abandon, Action, Cancel, Retry, Skip
from services.onboarding.workflow import Status, StepStatus
from shared.messaging.topology import STATUS_EXCHANGE

EXPLORED = shortened(
    OFFBOARD.plan, ("begin-offboarding", "grace-period", "block-sign-in", "remove-environment", "purge-users")
)
"""As many steps as it takes to see every transition: two that are undone, one that waits, a pivot and one past it."""

ACTIONS: Sequence[type[Action]] = (Cancel, Retry, Skip, Abandon)

_WORKFLOW_STATES = f"""\
Each change is told on `{STATUS_EXCHANGE}`, the beginning as `started`. A workflow that needs attention goes on by
itself, in the direction in which it went, as soon as nothing is left that was asked in vain; it turns back only where
the point of no return itself is refused for good in the end.

Both diagrams show all that can happen: they were found by giving `advance` every input in every state of a workflow
with steps of every sort. The arrows carry the kinds of the entries in the history (`GET
/v1/workflows/{{id}}/history`).
"""

_STEP_STATES = """\
An arrow from a status back to itself is another attempt. Only a workflow that was abandoned leaves steps that are
running or undoing.
"""

_OPERATORS = """\
An operator steps in with `POST /v1/workflows/{id}/<action>`, a `reason` and, for `skip`, a `step`. Who it was, and why,
is in the history.
"""

_TRIED = """\
An action that the state of the workflow forbids is a 409 with one of these codes. Where a cell says several things, it
depends on how far the workflow has come, and for `skip` on the step that it names.
"""


def states_and_operators() -> str:
    """Return the sections about the states, and about operators."""
    found = explore(EXPLORED)
    return "\n".join(
        [
            "## States of a workflow\n",
            _WORKFLOW_STATES,
            _diagram(Status.RUNNING, [status for status in Status if status.is_final], found.workflow),
            *_unreached(Status, found.workflow),
            "## States of a step\n",
            _STEP_STATES,
            _diagram(StepStatus.PENDING, found.step_ends, found.step),
            *_unreached(StepStatus, found.step),
            "## What operators can do\n",
            _OPERATORS,
            table(["action", "taken by an operator who"], [[f"`{_name(each)}`", _meaning(each)] for each in ACTIONS]),
            _TRIED,
            table(["status", *(f"`{_name(each)}`" for each in ACTIONS)], _outcomes(found)),
        ]
    )


def _diagram(initial: str, final: Iterable[str], edges: Edges) -> str:
    lines = [f"[*] --> {initial}"]
    lines += [
        f"{before} --> {after} : {' or '.join(sorted(causes))}" for (before, after), causes in sorted(edges.items())
    ]
    lines += [f"{status} --> [*]" for status in sorted(final)]
    return mermaid("stateDiagram-v2", *(f"    {line}" for line in lines))


def _unreached(statuses: type[Status] | type[StepStatus], edges: Edges) -> Iterator[str]:
    names = unreached(statuses, edges)
    if names:
        yield f"No transition leads to {' or '.join(f'`{name}`' for name in names)} yet.\n"


def _name(action: type[Action]) -> str:
    return action.__name__.lower()


def _meaning(action: type[Action]) -> str:
    """Return what an action means, from its docstring, such as ``Input: an operator wants it undone.``."""
    return prose(action.__doc__ or "").removeprefix("Input: an operator ").removesuffix(".")


def _outcomes(found: Transitions) -> Iterator[list[str]]:
    """Yield a row for each status, and two where it matters whether the workflow goes forward or back."""
    for status in Status:
        positions = [
            each for each in (Position(status, True), Position(status, False)) if (each, Cancel) in found.actions
        ]
        rows = {position: [_outcome(found.actions[position, action]) for action in ACTIONS] for position in positions}
        if len({tuple(row) for row in rows.values()}) == 1:
            yield [f"`{status}`", *rows[positions[0]]]
            continue
        for position, row in rows.items():
            yield [f"`{status}`, on the way {'forward' if position.is_forward else 'back'}", *row]


def _outcome(outcomes: Iterable[str]) -> str:
    forbidden = [f"`{code}`" for code in sorted(outcomes) if code != ACCEPTED]
    return " or ".join([*([ACCEPTED] if ACCEPTED in outcomes else []), *forbidden])
