"""What holds for every definition, and for every order of answers, timeouts, repetitions and losses."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.onboarding.saga import PlannedStep, Status, StepStatus
from services.onboarding.tests.world import World

FINAL = {Status.COMPLETED, Status.COMPENSATED, Status.ABANDONED}


@st.composite
def plans(draw: st.DrawFn) -> list[PlannedStep]:
    """Up to eight steps, each after any of those before it, written down in any order."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 8)))]
    steps = [
        PlannedStep(
            name=name,
            service="any",
            after=tuple(draw(st.sets(st.sampled_from(names[:place])) if place else st.just(set()))),
            ask=f"do {name}",
            undo=f"undo {name}",
            timeout=draw(st.sampled_from([1.0, 30.0])),
            attempts=draw(st.integers(1, 3)),
            backoff=draw(st.sampled_from([0.5, 60.0])),
        )
        for place, name in enumerate(names)
    ]
    return draw(st.permutations(steps))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A workflow that has lived through everything that was chosen."""
    plan = draw(plans())
    length = draw(st.sampled_from([0, 5, 20, 60]))
    choices = draw(st.lists(st.integers(0, 2**16), min_size=length, max_size=length))
    world = World(plan, choices, draw(st.sets(st.sampled_from([step.name for step in plan]), max_size=2)))
    world.live()
    return world


every_world = given(world=worlds())
thoroughly = settings(max_examples=150, deadline=None)


@thoroughly
@every_world
def test_everything_ends_done_or_undone_without_residue(world: World) -> None:
    statuses = [step.status for step in world.workflow.steps.values()]
    effects = [effect for effect in world.effects.values() if effect == "done"]
    if world.workflow.status is Status.COMPLETED:
        assert set(statuses) == {StepStatus.SUCCEEDED}
        assert len(effects) == len(world.workflow.plan)
        assert world.workflow.failure is None
        return
    assert world.workflow.status is Status.COMPENSATED
    assert world.workflow.failure is not None
    assert not effects
    assert not {StepStatus.RUNNING, StepStatus.UNDOING}.intersection(statuses)
    assert not [step for step in world.workflow.steps.values() if step.may_have_effect]


@thoroughly
@every_world
def test_everybody_outside_hears_the_start_first_and_one_end_last(world: World) -> None:
    statuses = [notice.status for notice in world.notices if notice.topic == "status"]
    assert world.notices[0].status == statuses[0] == "started"
    assert statuses.count("started") == 1
    assert [status for status in statuses if status in FINAL] == [world.workflow.status] == statuses[-1:]
    assert world.notices[-1].status == world.workflow.status
    assert len(set(statuses)) == len(statuses)


@thoroughly
@every_world
def test_the_history_accounts_for_every_step(world: World) -> None:
    assert [entry.seq for entry in world.history] == list(range(1, world.workflow.seq + 1))
    for name, step in world.workflow.steps.items():
        counts = {kind: len([e for e in world.history if (e.kind, e.step) == (kind, name)]) for kind in KINDS}
        assert counts["asked"] == step.attempts
        assert counts["undo_asked"] == step.undo_attempts
        assert (counts["succeeded"] > 0, counts["failed"] > 0).count(True) <= 1
        assert counts["undone"] == (step.status is StepStatus.UNDONE)


KINDS = ("asked", "undo_asked", "succeeded", "failed", "undone")


@settings(max_examples=50, deadline=None)
@given(plan=plans())
def test_without_surprises_every_step_is_asked_once(plan: list[PlannedStep]) -> None:
    world = World(plan, [])
    world.live()

    assert world.workflow.status is Status.COMPLETED
    assert {step.attempts for step in world.workflow.steps.values()} == {1}


def test_the_worlds_are_not_all_alike() -> None:
    """A property proves nothing of what never happens: count what the worlds above are made of."""
    seen: dict[str, int] = {}

    @settings(max_examples=400, deadline=None, database=None, derandomize=True)
    @every_world
    def look(world: World) -> None:
        for kind in {str(entry.kind) for entry in world.history}:
            seen[kind] = seen.get(kind, 0) + 1

    look()
    rare = {kind: seen.get(kind, 0) for kind in EXPECTED if seen.get(kind, 0) < 2}
    assert not rare, seen


EXPECTED = (
    "completed",
    "compensated",
    "timed_out",
    "retry_scheduled",
    "undo_timed_out",
    "needs_attention",
    "late_start",
    "late_success",
    "late_refusal",
    "late_undo",
)
