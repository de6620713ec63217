"""What holds for every plan, and for every order of answers, timeouts, repetitions, losses and operators' actions.

The world itself checks everything that must hold; what Hypothesis finds here, it shows with the fewest surprises.
`test_saga_schedules` lives through many more worlds, without making them smaller.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.onboarding.saga import LONGEST_STANDSTILL, MOST_PROGRESS, NEEDS_ATTENTION_AFTER
from services.onboarding.tests.chance import Pick, any_plan, any_world
from services.onboarding.tests.world import LONGEST_BACKOFF, Trouble, World
from services.onboarding.workflow import PlannedStep, Status, StepStatus


def _pick(draw: st.DrawFn) -> Pick:
    return lambda below: draw(st.integers(0, below - 1))


@st.composite
def plans(draw: st.DrawFn) -> list[PlannedStep]:
    return any_plan(_pick(draw))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    return any_world(_pick(draw))


@settings(max_examples=300, deadline=None)
@given(world=worlds())
def test_every_workflow_ends_as_it_must_whatever_happens(world: World) -> None:
    world.live()


@settings(max_examples=100, deadline=None)
@given(plan=plans())
def test_without_surprises_every_step_is_asked_once(plan: list[PlannedStep]) -> None:
    world = World(plan)
    world.live()

    assert world.workflow.status is Status.COMPLETED
    assert {step.status for step in world.workflow.steps.values()} == {StepStatus.SUCCEEDED}
    assert {world.workflow.steps[step.name].attempts for step in plan if step.ask} <= {1}


@settings(max_examples=300, deadline=None)
@given(plan=plans(), data=st.data())
def test_with_a_participant_that_is_broken_for_ever_somebody_knows_soon_after_the_deadline(
    plan: list[PlannedStep], data: st.DataObject
) -> None:
    broken = data.draw(st.sampled_from(plan))
    trouble = data.draw(st.sampled_from(Trouble))
    deadline = data.draw(st.sampled_from([1.0, 100.0, 5000.0, 200_000.0]))
    world = World(plan, deadline=deadline, troubles={broken.name: trouble}, lasting=True)

    talking = _patience_with_talk(broken) if trouble is Trouble.TALKATIVE else 0.0
    assert world.live_unhelped() <= deadline + _patience_with_an_undo(broken) + talking
    assert world.workflow.status in {Status.COMPLETED, Status.COMPENSATED, Status.NEEDS_ATTENTION}


def _patience_with_talk(step: PlannedStep) -> float:
    return MOST_PROGRESS * max(step.timeout, step.backoff) + LONGEST_STANDSTILL


def _patience_with_an_undo(step: PlannedStep) -> float:
    waits = [step.backoff * 2.0**doublings for doublings in range(NEEDS_ATTENTION_AFTER)]
    return sum(max(step.timeout, min(LONGEST_BACKOFF, wait)) for wait in waits)
