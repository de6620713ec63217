"""Steps that take longer than they are waited for, told as stories: given, when, expect."""

from collections.abc import Callable, Mapping

import pytest

from services.onboarding.saga import (
    LONGEST_STANDSTILL,
    MOST_PROGRESS,
    NEEDS_ATTENTION_AFTER,
    Notice,
    Progressed,
)
from services.onboarding.tests.story import Story, line
from services.onboarding.workflow import PlannedStep, Status

TIMEOUT = 30.0
ATTEMPTS = 3


def planned_step(name: str, *after: str, undo: bool = True, pivot: bool = False) -> PlannedStep:
    ask, back = f"any.{name}.v1", f"any.undo_{name}.v1" if undo else None
    return PlannedStep(name, "any", after, ask, back, timeout=TIMEOUT, attempts=ATTEMPTS, backoff=1, pivot=pivot)


PLAN = (
    planned_step("make"),
    PlannedStep("rest", "onboarding", ("make",), None, None, timeout=86400.0, attempts=1, backoff=0.0),
    planned_step("remove", "rest", undo=False, pivot=True),
    planned_step("forget", "remove", undo=False),
)


@pytest.fixture
def story() -> Story:
    return Story(PLAN, deadline=100 * 86400.0)


def undoing(story: Story) -> Story:
    """Let the first step be undone."""
    return story.starts().cancelled()


# While it is waited for


def test_a_step_that_tells_how_far_it_is_is_waited_for_anew_and_not_asked_again(story: Story) -> None:
    story.starts().passes(TIMEOUT - 1).progresses("make", "account", "Two of five.").changes_nothing().remembers(
        line("progressed", "make", message=1, stage="account", detail="Two of five.")
    )

    story.waits_for("make", TIMEOUT).stands(Status.RUNNING, make="running")
    assert story.workflow.steps["make"].attempts == 1


def test_a_step_that_takes_an_hour_succeeds_at_its_first_attempt(story: Story) -> None:
    story.starts()
    for stage in ("order", "account", "network"):
        story.is_at_work("make", seconds=1200, every=25, stage=stage)

    assert [send.attempt for send in story.sent] == [1]
    story.succeeds("make").stands(Status.RUNNING, make="succeeded")
    assert [entry.kind for entry in story.entries].count("progressed") == 3


def test_silence_after_progress_is_silence(story: Story) -> None:
    story.starts().passes(20).progresses("make").time_is_up("make").sends(("make", 2, "any.make.v1")).tells(
        Notice("retry", "running", "make", 2, "no answer in time")
    )

    story.progresses("make", "other").time_is_up("make").progresses("make", "more").time_is_up("make")
    story.stands(Status.COMPENSATING, make="undoing")


def test_progress_of_an_earlier_attempt_counts(story: Story) -> None:
    story.starts()
    first = story.ask_id("make")
    story.time_is_up("make").passes(10).when(Progressed("make", first, "account", None)).remembers(
        line("progressed", "make", message=1, stage="account", detail=None)
    )

    story.waits_for("make", TIMEOUT)
    assert story.workflow.steps["make"].attempts == 2


def test_the_patience_is_that_of_the_latest_attempt(story: Story) -> None:
    story.reaches("forget").time_is_up("forget", times=7).waits_for("forget", 128).passes(100).progresses("forget")

    story.waits_for("forget", 128)


def test_progress_never_shortens_the_wait(story: Story) -> None:
    story.reaches("forget").time_is_up("forget", times=7).progresses("forget").waits_for("forget", 128)

    story.when(Progressed("forget", None, "work", None)).changes_nothing().remembers().waits_for("forget", 128)


# What is written down


def test_what_is_told_twice_is_written_down_once_and_waited_for_all_the_same(story: Story) -> None:
    story.starts().passes(10).progresses("make", "account", "Two of five.")
    written_at = story.workflow.updated_at

    story.passes(10).progresses("make", "account", "Two of five.").changes_nothing().remembers()
    story.waits_for("make", TIMEOUT)
    assert story.workflow.updated_at == written_at
    assert story.workflow.steps["make"].progress is not None
    assert story.workflow.steps["make"].progress.at == written_at


@pytest.mark.parametrize(("stage", "detail"), [("account", "Three of five."), ("network", "Two of five.")])
def test_another_stage_or_other_words_are_written_down(story: Story, stage: str, detail: str) -> None:
    story.starts().progresses("make", "account", "Two of five.").progresses("make", stage, detail)

    story.remembers(line("progressed", "make", message=1, stage=stage, detail=detail))


def test_the_history_stays_short_whatever_is_told(story: Story) -> None:
    story.starts()
    for number in range(3 * MOST_PROGRESS):
        story.passes(10).progresses("make", str(number))

    story.changes_nothing().waits_for("make", TIMEOUT)
    assert [entry.kind for entry in story.entries].count("progressed") == MOST_PROGRESS
    assert shown(story, "make") == str(MOST_PROGRESS - 1)


def test_the_undo_of_a_step_begins_to_tell_anew(story: Story) -> None:
    story.starts().progresses("make", "account").cancelled()
    assert shown(story, "make") is None

    story.progresses("make", "account").remembers(line("progressed", "make", message=2, stage="account", detail=None))


def test_what_was_refused_and_is_asked_again_begins_to_tell_anew(story: Story) -> None:
    story.starts().progresses("make", "account").refuses("make", retryable=True).time_is_up("make")
    assert shown(story, "make") is None

    story.progresses("make", "account").remembers(line("progressed", "make", message=2, stage="account", detail=None))


def test_what_was_told_stays_told_while_the_step_is_asked_again_for_want_of_an_answer(story: Story) -> None:
    story.starts().progresses("make", "account").time_is_up("make").progresses("make", "account").remembers()

    assert shown(story, "make") == "account"


# What progress is not


def test_the_undo_of_a_step_is_waited_for_as_long_as_it_is_at_work(story: Story) -> None:
    undoing(story).is_at_work("make", seconds=3000, every=25).stands(Status.COMPENSATING, make="undoing")

    assert [send.ask for send in story.sent] == ["any.make.v1", "any.undo_make.v1"]
    story.undoes("make").stands(Status.COMPENSATED)


def test_what_tells_for_ever_that_it_is_at_work_has_failed_in_the_end(story: Story) -> None:
    story.starts().is_at_work("make", seconds=LONGEST_STANDSTILL, every=25).stands(Status.RUNNING, make="running")

    story.is_at_work("make", seconds=ATTEMPTS * TIMEOUT + 50, every=25).stands(Status.COMPENSATING, make="undoing")
    assert story.workflow.failure is not None
    assert story.workflow.failure.code == "timed_out"


def test_a_person_is_called_when_an_undo_tells_for_ever_that_it_is_at_work(story: Story) -> None:
    undoing(story).is_at_work("make", seconds=LONGEST_STANDSTILL, every=25).stands(Status.COMPENSATING)

    story.is_at_work("make", seconds=600, every=25).stands(Status.NEEDS_ATTENTION, make="undoing")


def test_progress_does_not_mean_that_nobody_is_needed_any_more(story: Story) -> None:
    undoing(story).time_is_up("make", times=NEEDS_ATTENTION_AFTER).stands(Status.NEEDS_ATTENTION).passes(200)

    story.progresses("make").changes_nothing().stands(Status.NEEDS_ATTENTION).waits_for("make", 256)
    story.undoes("make").stands(Status.COMPENSATED)


def test_what_an_operator_has_asked_again_may_stand_still_as_long_once_more(story: Story) -> None:
    undoing(story).is_at_work("make", seconds=LONGEST_STANDSTILL + 600, every=25).retried().progresses("make")

    story.passes(100).progresses("make").waits_for("make", 512).stands(Status.COMPENSATING)


def test_the_deadline_stands_whatever_is_told() -> None:
    story = Story(PLAN, deadline=600).starts().is_at_work("make", seconds=590, every=25)

    story.deadline_passes().stands(Status.COMPENSATING, make="undoing")
    assert story.workflow.failure is not None
    assert story.workflow.failure.code == "deadline_exceeded"


def test_a_person_is_called_at_the_deadline_although_what_cannot_be_undone_is_at_work(story: Story) -> None:
    story.reaches("remove").progresses("remove").deadline_passes().progresses("remove", "other")

    story.changes_nothing().stands(Status.NEEDS_ATTENTION, remove="running")


def test_what_is_at_work_can_be_cancelled(story: Story) -> None:
    story.starts().progresses("make").cancelled().sends(("make", 1, "any.undo_make.v1"))


# Late


BEGINNINGS: Mapping[str, Callable[[Story], Story]] = {
    "never asked": lambda story: story,
    "succeeded": lambda story: story.starts().succeeds("make"),
    "waiting for another attempt": lambda story: story.starts().refuses("make", retryable=True),
    "undone": lambda story: undoing(story).undoes("make"),
    "skipped": lambda story: undoing(story).time_is_up("make", times=NEEDS_ATTENTION_AFTER).skipped("make"),
    "abandoned": lambda story: undoing(story).time_is_up("make", times=NEEDS_ATTENTION_AFTER).abandoned(),
    "completed": lambda story: story.reaches("forget").succeeds("forget"),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("step", ["make", "rest"])
def test_progress_of_what_is_not_waited_for_changes_nothing_and_is_not_written_down(
    story: Story, beginning: str, step: str
) -> None:
    before = BEGINNINGS[beginning](story).progresses(step).changes_nothing().remembers().workflow

    assert story.passes(1000).when(Progressed(step, None, "late", None)).changes_nothing().workflow == before


def shown(story: Story, step: str) -> str | None:
    progress = story.workflow.steps[step].progress
    return progress.stage if progress else None
