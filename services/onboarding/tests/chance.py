"""Plans and worlds by chance: made of whatever picks a number, be it a seeded generator or Hypothesis.

``python -m services.onboarding.tests.chance <seed>`` lives through the world of a seed again and says what happens.
"""

import random
import sys
from collections.abc import Callable, Iterator, Sequence

from services.onboarding.tests.world import ANY_CHOICE, Remedy, Trouble, World
from services.onboarding.workflow import PlannedStep

Pick = Callable[[int], int]
"""Picks a number from 0 to below the one given; 0 is always the plainest."""

_BRIEF = (Trouble.DEAF, Trouble.MUTE, Trouble.BUSY, Trouble.UNWILLING)
"""What may be wrong with participants, but for what takes thousands of messages until it is over."""

_MOST_BEFORE = 6
_MOST_AFTER = 3


def any_plan(pick: Pick) -> list[PlannedStep]:
    """Make up to ten steps, some of which wait; a pivot, if there is one, has every other step before or after it."""
    before = _any_steps(pick, "before", 1 + pick(_MOST_BEFORE), may_be_undone=True)
    if pick(2) == 0:
        return _shuffled(pick, before)
    pivot = _asks(pick, "pivot", tuple(_last(before)), pivot=True)
    after = _any_steps(pick, "after", pick(_MOST_AFTER + 1), may_be_undone=False, all_after="pivot")
    return _shuffled(pick, [*before, pivot, *after])


def seeded_world(seed: int) -> World:
    """Make the world of a seed, always the same."""
    chance = random.Random(seed).random
    return any_world(lambda below: int(chance() * below))


def any_world(pick: Pick) -> World:
    """Make a world in which anything may go wrong."""
    plan = any_plan(pick)
    length = (0, 8, 24, 70)[pick(4)]
    return World(
        plan,
        [pick(ANY_CHOICE) for _ in range(length)],
        calm=pick(40) if pick(3) else 0,
        deadline=_any_deadline(pick, plan),
        troubles=_any_troubles(pick, plan),
        lasting=pick(2) == 1,
        remedy=tuple(Remedy)[pick(4)],
    )


def _any_deadline(pick: Pick, plan: Sequence[PlannedStep]) -> float | None:
    """Pick seconds that suffice, that suffice if little goes wrong, or that do not even suffice for the waits."""
    waits = sum(step.timeout for step in plan if step.ask is None)
    return (None, waits + 7200.0, waits + 100.0, waits / 2 + 1.0)[pick(4)]


def _any_troubles(pick: Pick, plan: Sequence[PlannedStep]) -> dict[str, Trouble]:
    names = [step.name for step in plan if step.ask]
    return {names[pick(len(names))]: _BRIEF[pick(4)] for _ in range(pick(3))} if names else {}


def _any_steps(
    pick: Pick, name: str, count: int, *, may_be_undone: bool, all_after: str | None = None
) -> list[PlannedStep]:
    steps: list[PlannedStep] = []
    for number in range(count):
        after = tuple(step.name for step in steps if pick(2)) or ((all_after,) if all_after else ())
        if pick(6) < 5:
            steps.append(_asks(pick, f"{name}-{number}", after, may_be_undone=may_be_undone))
        else:
            steps.append(_waits(pick, f"{name}-{number}", after))
    return steps


def _asks(
    pick: Pick, name: str, after: tuple[str, ...], *, may_be_undone: bool = False, pivot: bool = False
) -> PlannedStep:
    return PlannedStep(
        name=name,
        service="any",
        after=after,
        ask=f"do {name}",
        undo=f"undo {name}" if may_be_undone else None,
        timeout=(30.0, 1.0)[pick(2)],
        attempts=1 + pick(3),
        backoff=(0.5, 60.0)[pick(2)],
        pivot=pivot,
    )


def _waits(pick: Pick, name: str, after: tuple[str, ...]) -> PlannedStep:
    return PlannedStep(name, "onboarding", after, None, None, timeout=(5.0, 86400.0)[pick(2)], attempts=1, backoff=0.0)


def _last(steps: Sequence[PlannedStep]) -> list[str]:
    followed = {name for step in steps for name in step.after}
    return [step.name for step in steps if step.name not in followed]


def _shuffled(pick: Pick, steps: Sequence[PlannedStep]) -> list[PlannedStep]:
    rest = list(steps)
    return [rest.pop(pick(len(rest))) for _ in steps]


def _told(world: World) -> Iterator[str]:
    """Tell the plan, and then everything that happened, each time with what the workflow made of it."""
    yield from map(str, world.workflow.plan)
    ends = [number for number, _ in world.inputs[1:]] + [len(world.history)]
    for (begin, happened), end in zip(world.inputs, ends, strict=True):
        yield f"* {happened}"
        for entry in world.history[begin:end]:
            yield f"  {entry.seq} {entry.at:%d %H:%M:%S} {entry.kind} {entry.step or ''} {entry.attempt or ''}"


def _replay(seed: int) -> None:
    world = seeded_world(seed)
    try:
        world.live()
    finally:
        sys.stdout.writelines(f"{line}\n" for line in _told(world))


if __name__ == "__main__":
    _replay(int(sys.argv[1]))
