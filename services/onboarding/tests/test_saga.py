"""The saga core, told as stories of an onboarding and of an off-boarding: given, when, expect."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.saga import (
    NEEDS_ATTENTION_AFTER,
    Abandon,
    Action,
    Cancel,
    DeadlinePassed,
    Notice,
    Refused,
    Retry,
    Skip,
    Started,
    Succeeded,
    TimerDue,
    Undone,
    UnknownStepError,
)
from services.onboarding.tests.catalogue import REQUEST, TENANT_ID, answers
from services.onboarding.tests.story import ACTOR, REASON, Onboarding, Story, line
from services.onboarding.workflow import Failure, PlannedStep, Status
from shared.contracts import billing, identity, metrics, provisioning, tenant

REGISTER, ACTIVATE = "register-tenant", "activate-tenant"
MIDDLE = ("create-administrators", "open-account", "track-tenant", "provision-environment")
STEPS = (REGISTER, *MIDDLE, ACTIVATE)

TIMEOUT = ONBOARD.plan[0].timeout
ATTEMPTS = ONBOARD.plan[0].attempts
BACKOFF = ONBOARD.plan[0].backoff


@pytest.fixture
def story() -> Onboarding:
    return Onboarding(ONBOARD, request=REQUEST, answers=answers())


def exhaust(story: Story, step: str) -> Story:
    """Let a step get no answer until it has failed."""
    for _ in range(ATTEMPTS):
        story.time_is_up(step)
    return story


# Forward


def test_an_onboarding_begins_by_registering_the_tenant(story: Story) -> None:
    asked = tenant.RegisterTenant(tenant_id=TENANT_ID, customer_name="Acme", tier="standard", email="ada@example.com")

    story.starts().sends((REGISTER, 1, asked)).remembers(
        line("started"), line("asked", REGISTER, attempt=1, message=1)
    ).tells(Notice("status", "started"))


def test_what_needs_only_the_registration_is_asked_at_once(story: Story) -> None:
    story.starts().succeeds(REGISTER).sends(
        (
            "create-administrators",
            1,
            identity.CreateAdministrators(
                tenant_id=TENANT_ID, customer_name="Acme", emails=("ada@example.com",), isolation="pool"
            ),
        ),
        ("open-account", 1, billing.OpenAccount(tenant_id=TENANT_ID, customer_name="Acme", plan="standard")),
        ("track-tenant", 1, metrics.TrackTenant(tenant_id=TENANT_ID, quotas={"seats": 25})),
        ("provision-environment", 1, provisioning.ProvisionEnvironment(tenant_id=TENANT_ID, isolation="pool")),
    ).remembers(
        line("succeeded", REGISTER, attempt=1, message=1),
        line("asked", "create-administrators", attempt=1, message=2),
        line("asked", "open-account", attempt=1, message=3),
        line("asked", "track-tenant", attempt=1, message=4),
        line("asked", "provision-environment", attempt=1, message=5),
    ).tells()


@pytest.mark.parametrize("last", MIDDLE)
def test_the_tenant_is_activated_when_the_last_of_the_others_is_done(story: Story, last: str) -> None:
    story.starts().succeeds(REGISTER)
    for step in MIDDLE:
        if step != last:
            story.succeeds(step).sends()

    story.succeeds(last).sends((ACTIVATE, 1, tenant.ActivateTenant(tenant_id=TENANT_ID)))


def test_the_workflow_is_completed_when_the_tenant_is_active(story: Story) -> None:
    story.reaches(ACTIVATE).passes(5).succeeds(ACTIVATE).sends().remembers(
        line("succeeded", ACTIVATE, attempt=1, message=6), line("completed")
    ).tells(Notice("status", "completed"))

    assert story.workflow.status is Status.COMPLETED
    assert story.workflow.finished_at == story.workflow.updated_at == story.now
    assert set(story.statuses().values()) == {"succeeded"}
    assert not [step for step in story.workflow.steps.values() if step.due_at is not None]


# Refusals


@pytest.mark.parametrize("refused", STEPS)
def test_a_refusal_undoes_everything_else_in_reverse_order(story: Story, refused: str) -> None:
    undone_in = {REGISTER: [], ACTIVATE: [set(MIDDLE), {REGISTER}]}.get(refused, [set(MIDDLE) - {refused}, {REGISTER}])
    story.reaches(refused).refuses(refused, code="no_way", detail="Not here.")
    assert story.workflow.failure == Failure(refused, "no_way", "Not here.")

    assert story.waves() == undone_in
    assert story.workflow.status is Status.COMPENSATED
    assert story.workflow.finished_at is not None
    assert story.statuses()[refused] == "failed"
    assert not [step for step in story.workflow.steps.values() if step.may_have_effect]


def test_a_refusal_is_told_with_its_reason_before_and_after_the_undoing(story: Story) -> None:
    story.reaches(ACTIVATE).refuses(ACTIVATE, code="wrong_state", detail="It is archived.").tells(
        Notice("error", "compensating", ACTIVATE, 1, "wrong_state: It is archived."),
        Notice("status", "compensating", ACTIVATE, error="wrong_state: It is archived."),
    )
    story.waves()

    assert story.notices[-1] == Notice("status", "compensated", ACTIVATE, error="wrong_state: It is archived.")


def test_undos_name_the_tenant_and_are_remembered(story: Story) -> None:
    story.reaches(ACTIVATE).refuses(ACTIVATE).sends(
        ("provision-environment", 1, provisioning.DeprovisionEnvironment(tenant_id=TENANT_ID)),
        ("track-tenant", 1, metrics.UntrackTenant(tenant_id=TENANT_ID)),
        ("open-account", 1, billing.VoidAccount(tenant_id=TENANT_ID)),
        ("create-administrators", 1, identity.RemoveAdministrators(tenant_id=TENANT_ID)),
    ).remembers(
        line("refused", ACTIVATE, attempt=1, message=6, code="no", detail="No."),
        line("failed", ACTIVATE, attempt=1, code="no", detail="No."),
        line("compensating"),
        line("undo_asked", "provision-environment", attempt=1, message=7),
        line("undo_asked", "track-tenant", attempt=1, message=8),
        line("undo_asked", "open-account", attempt=1, message=9),
        line("undo_asked", "create-administrators", attempt=1, message=10),
    )


def test_a_registration_that_is_refused_leaves_nothing_to_undo(story: Story) -> None:
    story.starts().refuses(REGISTER).sends().remembers(
        line("refused", REGISTER, attempt=1, message=1, code="no", detail="No."),
        line("failed", REGISTER, attempt=1, code="no", detail="No."),
        line("compensating"),
        line("compensated"),
    )

    assert [notice.status for notice in story.notices if notice.topic == "status"] == [
        "started",
        "compensating",
        "compensated",
    ]


def test_steps_that_were_never_asked_are_not_undone(story: Story) -> None:
    story.reaches("open-account").refuses("open-account")
    story.waves()

    assert story.statuses()[ACTIVATE] == "pending"
    assert ACTIVATE not in {send.step for send in story.sent}


def test_a_step_that_is_still_being_asked_is_undone_too(story: Story) -> None:
    story.reaches("open-account").refuses("open-account")

    assert story.statuses()["track-tenant"] == "undoing"
    story.when(Succeeded("track-tenant", None, {})).remembers(line("late_success", "track-tenant")).changes_nothing()
    assert story.statuses()["track-tenant"] == "undoing"


# Silence


def test_a_step_without_an_answer_is_asked_again(story: Story) -> None:
    asked = tenant.RegisterTenant(tenant_id=TENANT_ID, customer_name="Acme", tier="standard", email="ada@example.com")

    story.starts().time_is_up(REGISTER).sends((REGISTER, 2, asked)).remembers(
        line("timed_out", REGISTER, attempt=1), line("asked", REGISTER, attempt=2, message=2)
    ).tells(Notice("retry", "running", REGISTER, 2, "no answer in time"))


def test_a_step_keeps_the_time_of_its_first_attempt(story: Story) -> None:
    story.starts()
    started_at = story.now
    story.time_is_up(REGISTER).passes(3).succeeds(REGISTER)

    step = story.workflow.steps[REGISTER]
    assert (step.started_at, step.finished_at, step.attempts) == (started_at, story.now, 2)


@pytest.mark.parametrize("silent", STEPS)
def test_a_step_that_never_answers_is_undone_first_because_it_may_have_happened(story: Story, silent: str) -> None:
    undone_in = {REGISTER: [{REGISTER}], ACTIVATE: [{ACTIVATE}, set(MIDDLE), {REGISTER}]}
    exhaust(story.reaches(silent), silent)
    assert story.workflow.failure is not None
    assert (story.workflow.failure.step, story.workflow.failure.code) == (silent, "timed_out")

    assert story.waves() == undone_in.get(silent, [set(MIDDLE), {REGISTER}])
    assert story.workflow.status is Status.COMPENSATED
    assert story.workflow.steps[silent].attempts == ATTEMPTS


def test_an_answer_after_an_attempt_timed_out_still_counts(story: Story) -> None:
    story.starts()
    first = story.ask_id(REGISTER)
    story.time_is_up(REGISTER).when(Succeeded(REGISTER, first, answers()[REGISTER].model_dump(mode="json")))

    assert story.statuses()[REGISTER] == "succeeded"
    assert story.workflow.steps[REGISTER].due_at is None


def test_a_timer_that_is_early_or_superfluous_does_nothing(story: Story) -> None:
    story.starts().passes(TIMEOUT - 0.001).when(TimerDue(REGISTER)).changes_nothing().remembers()
    story.succeeds(REGISTER).passes(2 * TIMEOUT).when(TimerDue(REGISTER)).changes_nothing().remembers()
    story.when(TimerDue(ACTIVATE)).changes_nothing().remembers()


# Refusals that may pass


def test_a_refusal_that_may_pass_is_followed_by_another_attempt_later(story: Story) -> None:
    story.starts().refuses(REGISTER, code="busy", detail="Busy.", retryable=True).sends().remembers(
        line("refused", REGISTER, attempt=1, message=1, code="busy", detail="Busy."),
        line("retry_scheduled", REGISTER, attempt=2, seconds=BACKOFF),
    ).tells(Notice("retry", "running", REGISTER, 2, "Busy."))
    story.passes(BACKOFF - 0.001).when(TimerDue(REGISTER)).changes_nothing()

    story.time_is_up(REGISTER).remembers(line("asked", REGISTER, attempt=2, message=2)).tells()
    assert story.statuses()[REGISTER] == "running"
    story.succeeds(REGISTER)
    assert story.workflow.steps[REGISTER].error is None


def test_the_wait_doubles_from_attempt_to_attempt_and_the_last_refusal_fails_the_step(story: Story) -> None:
    story.starts()
    waits = []
    while story.workflow.status is Status.RUNNING:
        story.refuses(REGISTER, retryable=True)
        if story.workflow.status is Status.RUNNING:
            waits += [entry.detail["seconds"] for entry in story.entries[-1:]]
            story.time_is_up(REGISTER)

    assert waits == [BACKOFF, 2 * BACKOFF]
    assert story.waves() == [{REGISTER}], "an attempt before may still be under way"
    assert story.workflow.status is Status.COMPENSATED


def test_a_refusal_that_may_pass_counts_only_for_the_attempt_that_is_waited_for(story: Story) -> None:
    story.starts()
    first = story.ask_id(REGISTER)
    story.time_is_up(REGISTER)
    story.refuses_attempt(REGISTER, first, retryable=True).changes_nothing().remembers(
        line("late_refusal", REGISTER, message=1, code="no")
    )

    story.refuses(REGISTER, retryable=True)
    story.refuses(REGISTER, retryable=True).changes_nothing().remembers(
        line("late_refusal", REGISTER, message=2, code="no")
    )
    assert story.workflow.steps[REGISTER].attempts == 2


def test_an_answer_while_another_attempt_is_planned_counts(story: Story) -> None:
    story.starts().refuses(REGISTER, retryable=True).succeeds(REGISTER)

    assert story.statuses()[REGISTER] == "succeeded"
    assert story.workflow.steps[REGISTER].due_at is None


def test_a_step_that_waits_for_another_attempt_is_undone_when_another_one_fails(story: Story) -> None:
    story.reaches("open-account").refuses("track-tenant", retryable=True).refuses("open-account")

    assert story.statuses()["track-tenant"] == "undoing"
    assert story.waves() == [set(MIDDLE) - {"open-account"}, {REGISTER}]


# Late and repeated


def test_a_repeated_answer_is_only_remembered(story: Story) -> None:
    story.starts().succeeds(REGISTER).succeeds(REGISTER).changes_nothing().remembers(
        line("late_success", REGISTER, message=1)
    )


def test_a_repeated_start_is_only_remembered(story: Story) -> None:
    story.starts().when(Started()).changes_nothing().remembers(line("late_start"))


def test_a_second_refusal_does_not_change_the_reason(story: Story) -> None:
    story.reaches("open-account").refuses("open-account", code="first")
    story.refuses("track-tenant", code="second").changes_nothing().remembers(
        line("late_refusal", "track-tenant", message=7, code="second")
    )

    assert story.workflow.failure == Failure("open-account", "first", "No.")


def test_a_repeated_undone_is_only_remembered(story: Story) -> None:
    story.reaches(ACTIVATE).refuses(ACTIVATE).undoes("track-tenant", "track-tenant").changes_nothing().remembers(
        line("late_undo", "track-tenant", message=8)
    )


def test_nothing_moves_a_completed_workflow(story: Story) -> None:
    story.reaches(ACTIVATE).succeeds(ACTIVATE)
    finished_at = story.workflow.finished_at

    story.passes(1000)
    for step in STEPS:
        story.succeeds(step).changes_nothing()
        story.refuses(step).changes_nothing()
        story.undoes(step).changes_nothing()
        story.when(TimerDue(step)).changes_nothing().remembers()

    assert (story.workflow.status, story.workflow.finished_at) == (Status.COMPLETED, finished_at)


def test_nothing_moves_a_compensated_workflow(story: Story) -> None:
    story.reaches(ACTIVATE).refuses(ACTIVATE).waves()
    before = story.workflow

    for step in STEPS:
        story.succeeds(step).changes_nothing().refuses(step).changes_nothing().undoes(step).changes_nothing()

    assert (story.workflow.steps, story.workflow.status) == (before.steps, Status.COMPENSATED)


# Undos that do not succeed


def test_an_undo_without_an_answer_is_asked_again_and_again(story: Story) -> None:
    exhaust(story.starts(), REGISTER)

    story.time_is_up(REGISTER).sends((REGISTER, 2, tenant.DeregisterTenant(tenant_id=TENANT_ID))).remembers(
        line("undo_timed_out", REGISTER, attempt=1), line("undo_asked", REGISTER, attempt=2, message=5)
    ).tells(Notice("retry", "compensating", REGISTER, 2, "no answer to the undo in time"))


def test_the_wait_for_an_undo_grows_up_to_ten_minutes(story: Story) -> None:
    exhaust(story.starts(), REGISTER)
    waits = []
    for _ in range(12):
        before = story.now
        story.time_is_up(REGISTER)
        waits.append((story.now - before).total_seconds())

    assert waits == [30, 30, 30, 30, 30, 32, 64, 128, 256, 512, 600, 600]


def test_a_person_is_called_when_an_undo_does_not_succeed(story: Story) -> None:
    exhaust(story.starts(), REGISTER)
    for _ in range(NEEDS_ATTENTION_AFTER - 1):
        story.time_is_up(REGISTER)
    assert story.workflow.status is Status.COMPENSATING

    story.time_is_up(REGISTER).tells(
        Notice("status", "needs_attention", REGISTER, error="the undo does not succeed"),
        Notice("retry", "needs_attention", REGISTER, NEEDS_ATTENTION_AFTER + 1, "no answer to the undo in time"),
    )
    assert not story.workflow.finished_at
    assert story.time_is_up(REGISTER).workflow.status is Status.NEEDS_ATTENTION
    assert [notice.status for notice in story.notices].count("needs_attention") == 3, "told once, retried twice"


def test_a_workflow_that_needed_attention_ends_compensated_when_its_undos_succeed(story: Story) -> None:
    exhaust(story.reaches("open-account"), "open-account")
    for _ in range(NEEDS_ATTENTION_AFTER):
        story.time_is_up("track-tenant")
    assert story.notices[-2].status == "needs_attention"

    assert story.waves() == [set(MIDDLE), {REGISTER}]
    assert story.workflow.status is Status.COMPENSATED
    assert story.notices[-1].status == "compensated"


# A workflow that waits, and that comes to a point of no return

DAY = 86400.0


def planned_step(name: str, *after: str, undo: bool = True, pivot: bool = False) -> PlannedStep:
    ask, back = f"any.{name}.v1", f"any.undo_{name}.v1" if undo else None
    return PlannedStep(name, "any", after, ask, back, timeout=30, attempts=3, backoff=1, pivot=pivot)


def planned_wait(name: str, *after: str, days: int) -> PlannedStep:
    return PlannedStep(name, "onboarding", after, None, None, timeout=days * DAY, attempts=1, backoff=0)


LEAVE = (
    planned_step("block"),
    planned_wait("grace", "block", days=7),
    planned_step("close", "grace"),
    planned_step("export", "grace"),
    planned_step("purge", "close", "export", undo=False, pivot=True),
    planned_step("archive", "purge", undo=False),
    planned_wait("keep", "purge", days=30),
    planned_step("forget", "keep", undo=False),
)


@pytest.fixture
def leaving() -> Story:
    return Story(LEAVE, deadline=60 * DAY)


def stuck_forward(story: Story) -> Story:
    """Let the step after the pivot get no answer until a person is called."""
    return story.reaches("archive").time_is_up("archive", times=NEEDS_ATTENTION_AFTER)


def stuck_back(story: Story) -> Story:
    """Let an undo get no answer until a person is called."""
    return story.reaches("close").refuses("close").time_is_up("export", times=NEEDS_ATTENTION_AFTER)


def ended(story: Story) -> Story:
    """Let everything succeed from the pivot on."""
    return story.reaches("archive").succeeds("archive").time_is_up("keep").succeeds("forget")


# Waits


def test_a_wait_begins_by_itself_and_asks_nobody(leaving: Story) -> None:
    leaving.starts().passes(5).succeeds("block").sends().remembers(
        line("succeeded", "block", attempt=1, message=1), line("waiting", "grace", seconds=7 * DAY)
    ).tells()

    step = leaving.workflow.steps["grace"]
    assert (step.started_at, step.attempts, step.may_have_effect, step.ask_id) == (leaving.now, 0, False, None)


def test_a_wait_ends_when_its_time_is_up_and_what_comes_after_it_is_asked(leaving: Story) -> None:
    leaving.starts().succeeds("block").passes(7 * DAY - 0.001).when(TimerDue("grace")).changes_nothing().remembers()

    leaving.time_is_up("grace").sends(("close", 1, "any.close.v1"), ("export", 1, "any.export.v1")).remembers(
        line("waited", "grace"),
        line("asked", "close", attempt=1, message=2),
        line("asked", "export", attempt=1, message=3),
    ).tells()
    assert leaving.workflow.steps["grace"].finished_at == leaving.now
    leaving.when(TimerDue("grace")).changes_nothing().remembers()


def test_a_wait_is_over_at_once_when_the_workflow_is_cancelled(leaving: Story) -> None:
    leaving.starts().succeeds("block").passes(DAY).cancelled().sends(("block", 1, "any.undo_block.v1")).remembers(
        line("cancel_requested", actor=ACTOR, reason=REASON),
        line("compensating"),
        line("undone", "grace"),
        line("undo_asked", "block", attempt=1, message=2),
    )
    leaving.passes(30 * DAY).when(TimerDue("grace")).changes_nothing().remembers()
    assert leaving.workflow.failure == Failure("grace", "cancelled", REASON)

    leaving.undoes("block").stands(Status.COMPENSATED, block="undone", grace="undone", close="pending")


def test_what_came_before_a_wait_is_undone_after_what_came_after_it(leaving: Story) -> None:
    leaving.reaches("close").refuses("close")

    leaving.sends(("export", 1, "any.undo_export.v1"))
    assert leaving.waves() == [{"export"}, {"block"}]
    leaving.stands(Status.COMPENSATED, grace="succeeded")


def test_a_workflow_of_waits_alone_completes() -> None:
    story = Story([planned_wait("first", days=1), planned_wait("second", "first", days=1)])
    story.starts().time_is_up("first").time_is_up("second").remembers(line("waited", "second"), line("completed"))

    assert not story.sent


def test_a_wait_is_neither_retried_nor_counted(leaving: Story) -> None:
    leaving.starts().succeeds("block").forbids(Retry(ACTOR, REASON), "nothing_to_retry")
    assert leaving.time_is_up("grace").workflow.steps["grace"].attempts == 0
    assert not [notice for notice in leaving.notices if notice.topic == "retry"]


# The pivot


def test_the_pivot_is_asked_until_it_answers(leaving: Story) -> None:
    waits = leaving.reaches("purge").waits("purge", times=13)

    assert waits == [30, 30, 30, 30, 30, 32, 64, 128, 256, 512, 600, 600, 600]
    leaving.sends(("purge", 14, "any.purge.v1")).stands(Status.NEEDS_ATTENTION, purge="running")
    assert leaving.succeeds("purge").told() == ["started", "needs_attention", "running"]


def test_a_refusal_of_the_pivot_that_may_pass_is_followed_by_attempts_without_end(leaving: Story) -> None:
    leaving.reaches("purge")
    waits = []
    for _ in range(13):
        leaving.refuses("purge", retryable=True)
        waits += leaving.waits("purge", times=1)

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    leaving.stands(Status.NEEDS_ATTENTION, purge="running").forbids(Cancel(ACTOR, REASON), "past_point_of_no_return")


@pytest.mark.parametrize("attempts_before", [0, 2, NEEDS_ATTENTION_AFTER])
def test_a_pivot_that_is_refused_for_good_has_done_nothing_and_everything_is_undone(
    leaving: Story, attempts_before: int
) -> None:
    leaving.reaches("purge").time_is_up("purge", times=attempts_before).refuses("purge", code="held")

    leaving.stands(Status.COMPENSATING, purge="failed", close="undoing", export="undoing")
    assert leaving.waves() == [{"close", "export"}, {"block"}]
    assert leaving.workflow.failure == Failure("purge", "held", "No.")
    leaving.stands(Status.COMPENSATED, archive="pending")


def test_what_comes_after_the_pivot_is_asked_until_it_answers(leaving: Story) -> None:
    leaving.reaches("archive").time_is_up("archive", times=20)

    leaving.sends(("archive", 21, "any.archive.v1")).stands(Status.NEEDS_ATTENTION, archive="running")
    assert {send.ask for send in leaving.sent} == {
        f"any.{name}.v1" for name in ("block", "close", "export", "purge", "archive")
    }


def test_a_person_is_called_once_when_a_step_past_the_pivot_does_not_succeed(leaving: Story) -> None:
    leaving.reaches("archive").time_is_up("archive", times=NEEDS_ATTENTION_AFTER - 1).stands(Status.RUNNING)

    leaving.time_is_up("archive").remembers(
        line("timed_out", "archive", attempt=8),
        line("needs_attention", "archive"),
        line("asked", "archive", attempt=9, message=13),
    ).tells(
        Notice("status", "needs_attention", "archive", error="the step does not succeed"),
        Notice("retry", "needs_attention", "archive", 9, "no answer in time"),
    )
    leaving.time_is_up("archive").tells(Notice("retry", "needs_attention", "archive", 10, "no answer in time"))


def test_a_person_is_called_when_a_step_past_the_pivot_is_refused_again_and_again(leaving: Story) -> None:
    leaving.reaches("archive")
    for _ in range(NEEDS_ATTENTION_AFTER - 1):
        leaving.refuses("archive", retryable=True).time_is_up("archive")
    leaving.stands(Status.RUNNING)

    leaving.refuses("archive", code="busy", detail="Busy.", retryable=True).tells(
        Notice("status", "needs_attention", "archive", error="busy: Busy."),
        Notice("retry", "needs_attention", "archive", 9, "Busy."),
    )


def test_a_person_is_called_at_once_when_a_step_past_the_pivot_is_refused_for_good(leaving: Story) -> None:
    leaving.reaches("archive").refuses("archive", code="gone", detail="Gone.").sends().remembers(
        line("refused", "archive", attempt=1, message=5, code="gone", detail="Gone."),
        line("retry_scheduled", "archive", attempt=2, seconds=1.0),
        line("needs_attention", "archive"),
    ).tells(
        Notice("status", "needs_attention", "archive", error="gone: Gone."),
        Notice("retry", "needs_attention", "archive", 2, "Gone."),
    )
    assert leaving.workflow.failure is None
    assert leaving.residue() == {"block", "close", "export", "purge"}

    leaving.time_is_up("archive").sends(("archive", 2, "any.archive.v1"))
    assert "archive" in leaving.residue()


def test_a_refusal_for_good_that_is_repeated_is_only_remembered(leaving: Story) -> None:
    leaving.reaches("archive").refuses("archive")
    due_at = leaving.workflow.steps["archive"].due_at

    leaving.passes(0.5).refuses("archive").changes_nothing().remembers(
        line("late_refusal", "archive", message=5, code="no")
    )
    assert leaving.workflow.steps["archive"].due_at == due_at


def test_a_workflow_needs_nobody_any_more_when_what_was_stuck_succeeds(leaving: Story) -> None:
    stuck_forward(leaving).succeeds("archive").remembers(
        line("succeeded", "archive", attempt=9, message=13), line("running")
    ).tells(Notice("status", "running"))

    leaving.time_is_up("keep").succeeds("forget").stands(Status.COMPLETED)
    assert leaving.told() == ["started", "needs_attention", "running", "completed"]


def test_a_workflow_needs_attention_until_all_that_was_stuck_succeeds(leaving: Story) -> None:
    leaving.reaches("archive").time_is_up("keep")
    leaving.refuses("archive").refuses("forget").time_is_up("archive")

    leaving.succeeds("archive").stands(Status.NEEDS_ATTENTION).tells()
    leaving.time_is_up("forget").succeeds("forget").stands(Status.COMPLETED)
    assert leaving.told() == ["started", "needs_attention", "completed"]


def test_a_workflow_that_is_stuck_on_its_way_back_goes_on_by_itself_too(leaving: Story) -> None:
    stuck_back(leaving).undoes("export").remembers(
        line("undone", "export", message=12),
        line("undo_asked", "block", attempt=1, message=13),
        line("compensating"),
    ).tells(Notice("status", "compensating", "close", error="no: No."))


# The deadline


def test_a_workflow_that_does_not_end_in_time_is_undone(leaving: Story) -> None:
    leaving.reaches("close").deadline_passes().sends(
        ("export", 1, "any.undo_export.v1"), ("close", 1, "any.undo_close.v1")
    ).remembers(
        line("deadline_passed"),
        line("compensating"),
        line("undo_asked", "export", attempt=1, message=4),
        line("undo_asked", "close", attempt=1, message=5),
    ).tells(
        Notice("status", "compensating", "close", error="deadline_exceeded: the workflow did not end in time"),
    )
    assert leaving.workflow.failure == Failure("close", "deadline_exceeded", "the workflow did not end in time")

    assert leaving.waves() == [{"close", "export"}, {"block"}]
    leaving.stands(Status.COMPENSATED)


def test_a_wait_does_not_outlast_the_deadline() -> None:
    story = Story(LEAVE, deadline=DAY).starts().succeeds("block").deadline_passes()

    story.stands(Status.COMPENSATING, grace="undone", block="undoing")
    assert story.timers() == {"block"}


def test_a_workflow_that_is_not_undone_in_time_needs_attention(leaving: Story) -> None:
    leaving.reaches("close").refuses("close").deadline_passes().sends().remembers(
        line("deadline_passed"), line("needs_attention", "export")
    ).tells(Notice("status", "needs_attention", "export", error="the workflow did not end in time"))

    assert leaving.waves() == [{"export"}, {"block"}]
    leaving.stands(Status.COMPENSATED)


def test_a_workflow_that_is_past_the_pivot_in_time_but_does_not_end_needs_attention(leaving: Story) -> None:
    leaving.reaches("archive").deadline_passes().sends().remembers(
        line("deadline_passed"), line("needs_attention", "archive")
    ).tells(Notice("status", "needs_attention", "archive", error="the workflow did not end in time"))

    leaving.succeeds("archive").stands(Status.RUNNING, keep="running")


def test_a_pivot_that_may_have_taken_effect_is_past_when_the_deadline_passes(leaving: Story) -> None:
    leaving.reaches("purge").deadline_passes().stands(Status.NEEDS_ATTENTION, purge="running", close="succeeded")


@pytest.mark.parametrize("stuck", [stuck_forward, stuck_back])
def test_a_deadline_changes_nothing_where_a_person_is_called_already(
    leaving: Story, stuck: Callable[[Story], Story]
) -> None:
    stuck(leaving).deadline_passes().changes_nothing().remembers(line("deadline_passed"))


def test_a_deadline_passes_once_and_not_before_its_time(leaving: Story) -> None:
    leaving.starts().passes(60 * DAY - 0.001).when(DeadlinePassed()).changes_nothing().remembers()
    leaving.deadline_passes().when(DeadlinePassed()).changes_nothing().remembers()

    assert leaving.workflow.deadline_at is None
    leaving.stands(Status.COMPENSATING)


def test_what_has_ended_has_no_deadline_any_more(leaving: Story) -> None:
    assert ended(leaving).workflow.deadline_at is None
    leaving.passes(90 * DAY).when(DeadlinePassed()).changes_nothing().remembers()


def test_what_has_no_deadline_is_never_too_late() -> None:
    Story(LEAVE).starts().passes(1000 * DAY).when(DeadlinePassed()).changes_nothing().remembers()


# What operators can do

BEGINNINGS: Mapping[str, Callable[[Story], Story]] = {
    "running": lambda story: story.reaches("close"),
    "waiting": lambda story: story.starts().succeeds("block"),
    "past the pivot": lambda story: story.reaches("archive"),
    "stuck forward": stuck_forward,
    "compensating": lambda story: story.reaches("close").refuses("close"),
    "stuck back": stuck_back,
    "completed": ended,
    "compensated": lambda story: story.starts().refuses("block"),
    "abandoned": lambda story: stuck_forward(story).abandoned(),
    "abandoned on its way back": lambda story: stuck_back(story).abandoned(),
}
FORBIDDEN: Mapping[str, Sequence[str | None]] = {
    #                  cancel, retry, skip the step at work, abandon
    "running": (None, None, "not_stuck", "not_stuck"),
    "waiting": (None, "nothing_to_retry", "not_stuck", "not_stuck"),
    "past the pivot": ("past_point_of_no_return", None, "not_stuck", "not_stuck"),
    "stuck forward": ("past_point_of_no_return", None, None, None),
    "compensating": ("already_undoing", None, "not_stuck", "not_stuck"),
    "stuck back": ("already_undoing", None, None, None),
    "completed": ("workflow_ended", "workflow_ended", "workflow_ended", "workflow_ended"),
    "compensated": ("workflow_ended", "workflow_ended", "workflow_ended", "workflow_ended"),
    "abandoned": ("workflow_ended", "workflow_ended", "workflow_ended", "workflow_ended"),
    "abandoned on its way back": ("workflow_ended", "workflow_ended", "workflow_ended", "workflow_ended"),
}
REQUESTED = {
    "Cancel": "cancel_requested",
    "Retry": "retry_requested",
    "Skip": "skipped",
    "Abandon": "abandon_requested",
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("column", range(4))
def test_an_operator_can_do_what_the_state_allows_and_is_told_why_not_otherwise(
    leaving: Story, beginning: str, column: int
) -> None:
    BEGINNINGS[beginning](leaving)
    at_work = next((name for name in ("export", "archive", "grace") if name in leaving.timers()), "block")
    actions: list[Action] = [
        Cancel(ACTOR, REASON),
        Retry(ACTOR, REASON),
        Skip(at_work, ACTOR, REASON),
        Abandon(ACTOR, REASON),
    ]
    action, code = actions[column], FORBIDDEN[beginning][column]
    if code is not None:
        leaving.forbids(action, code)
        return
    before = len(leaving.entries)
    entry = leaving.when(action).entries[before]
    assert entry.kind == REQUESTED[type(action).__name__]
    assert entry.detail == {"actor": ACTOR, "reason": REASON}


def test_a_cancelled_workflow_is_undone_whatever_has_succeeded(leaving: Story) -> None:
    leaving.reaches("close").succeeds("close").cancelled().tells(
        Notice("status", "compensating", "export", error=f"cancelled: {REASON}")
    )
    leaving.succeeds("export").changes_nothing().remembers(line("late_success", "export", message=4))

    assert leaving.waves() == [{"close", "export"}, {"block"}]
    assert leaving.workflow.failure == Failure("export", "cancelled", REASON)
    assert leaving.notices[-1] == Notice("status", "compensated", "export", error=f"cancelled: {REASON}")


def test_a_workflow_that_is_cancelled_before_anything_took_effect_is_undone_at_once() -> None:
    story = Story([planned_wait("grace", days=7), planned_step("close", "grace")])
    story.starts().cancelled().remembers(
        line("cancel_requested", actor=ACTOR, reason=REASON),
        line("compensating"),
        line("undone", "grace"),
        line("compensated"),
    )


@pytest.mark.parametrize("answered", [False, True])
def test_a_workflow_cannot_be_cancelled_once_the_pivot_is_asked(leaving: Story, *, answered: bool) -> None:
    leaving.reaches("purge")
    if answered:
        leaving.refuses("purge", retryable=True)

    leaving.forbids(Cancel(ACTOR, REASON), "past_point_of_no_return")


def test_whatever_is_waited_for_is_asked_again_when_an_operator_wants_it(leaving: Story) -> None:
    leaving.reaches("close").refuses("export", retryable=True).passes(0.1).retried().sends(
        ("close", 2, "any.close.v1"), ("export", 2, "any.export.v1")
    ).remembers(
        line("retry_requested", actor=ACTOR, reason=REASON),
        line("asked", "close", attempt=2, message=4),
        line("asked", "export", attempt=2, message=5),
    ).tells()
    leaving.succeeds("close", "export").stands(Status.RUNNING, purge="running")


def test_an_undo_is_asked_again_when_an_operator_wants_it(leaving: Story) -> None:
    stuck_back(leaving).retried().sends(("export", 10, "any.undo_export.v1")).remembers(
        line("retry_requested", actor=ACTOR, reason=REASON),
        line("compensating"),
        line("undo_asked", "export", attempt=10, message=13),
    ).tells(Notice("status", "compensating", "close", error="no: No."))


def test_a_retry_that_does_not_help_calls_the_person_again(leaving: Story) -> None:
    stuck_forward(leaving).retried().tells(Notice("status", "running"))

    leaving.time_is_up("archive").stands(Status.NEEDS_ATTENTION)
    assert leaving.told() == ["started", "needs_attention", "running", "needs_attention"]


def test_operators_retries_do_not_keep_a_step_before_the_pivot_from_failing(leaving: Story) -> None:
    leaving.reaches("close").retried().retried().retried().time_is_up("close").stands(
        Status.COMPENSATING, close="undoing"
    )
    assert leaving.workflow.failure == Failure("close", "timed_out", "any did not answer in time")


def test_a_step_that_an_operator_skips_counts_as_done(leaving: Story) -> None:
    leaving.reaches("archive").time_is_up("keep").refuses("forget").skipped("forget").sends().remembers(
        line("skipped", "forget", actor=ACTOR, reason=REASON), line("running")
    ).tells(Notice("status", "running"))
    leaving.succeeds("archive").stands(Status.COMPLETED, forget="skipped", archive="succeeded")


def test_what_comes_after_a_skipped_step_is_asked(leaving: Story) -> None:
    leaving.reaches("purge").time_is_up("purge", times=NEEDS_ATTENTION_AFTER).skipped("purge")

    leaving.sends(("archive", 1, "any.archive.v1")).stands(Status.RUNNING, purge="skipped", keep="running")
    leaving.forbids(Cancel(ACTOR, REASON), "past_point_of_no_return")


def test_a_wait_can_be_skipped_where_a_person_is_called(leaving: Story) -> None:
    stuck_forward(leaving).skipped("keep").sends(("forget", 1, "any.forget.v1")).stands(
        Status.NEEDS_ATTENTION, keep="skipped", archive="running"
    )
    assert "keep" not in leaving.timers()


def test_an_undo_that_an_operator_skips_counts_as_undone(leaving: Story) -> None:
    stuck_back(leaving).skipped("export").sends(("block", 1, "any.undo_block.v1")).remembers(
        line("skipped", "export", actor=ACTOR, reason=REASON),
        line("undo_asked", "block", attempt=1, message=13),
        line("compensating"),
    )
    leaving.undoes("export").changes_nothing().remembers(line("late_undo", "export", message=12))
    leaving.undoes("block").stands(Status.COMPENSATED, export="skipped", block="undone")


@pytest.mark.parametrize("step", ["block", "purge", "forget"])
def test_only_what_is_waited_for_can_be_skipped(leaving: Story, step: str) -> None:
    stuck_forward(leaving).forbids(Skip(step, ACTOR, REASON), "not_waiting")


def test_a_step_that_the_workflow_does_not_have_cannot_be_skipped(leaving: Story) -> None:
    with pytest.raises(UnknownStepError, match="nonsense"):
        leaving.starts().skipped("nonsense")


def test_an_abandoned_workflow_says_where_it_stood_and_keeps_what_it_leaves(leaving: Story) -> None:
    stuck_forward(leaving).abandoned().sends().remembers(
        line("abandon_requested", actor=ACTOR, reason=REASON), line("abandoned", "archive")
    ).tells(Notice("status", "abandoned", "archive", error=f"abandoned: {REASON}"))

    assert not leaving.timers()
    assert leaving.workflow.deadline_at is None
    assert leaving.workflow.finished_at == leaving.now
    assert leaving.residue() == {"block", "close", "export", "purge", "archive"}


def test_what_is_abandoned_on_its_way_back_leaves_what_was_not_undone(leaving: Story) -> None:
    stuck_back(leaving).abandoned().stands(Status.ABANDONED, export="undoing", block="succeeded")

    assert leaving.residue() == {"block", "export"}
    assert leaving.workflow.failure == Failure("close", "no", "No.")


# Late, where somebody has stepped in


@pytest.mark.parametrize("beginning", ["completed", "compensated", "abandoned", "abandoned on its way back"])
def test_whatever_is_late_is_remembered_and_moves_nothing(leaving: Story, beginning: str) -> None:
    ended_as = BEGINNINGS[beginning](leaving).workflow

    leaving.passes(1000 * DAY)
    for step in leaving.statuses():
        leaving.when(Succeeded(step, None, {})).changes_nothing().remembers(line("late_success", step))
        leaving.when(Refused(step, None, "no", "No.", retryable=False)).changes_nothing().remembers(
            line("late_refusal", step, code="no")
        )
        leaving.when(Undone(step, None)).changes_nothing().remembers(line("late_undo", step))
        leaving.when(TimerDue(step)).changes_nothing().remembers()
    leaving.when(Started()).changes_nothing().remembers(line("late_start"))

    after = leaving.workflow
    assert (after.status, after.steps, after.failure) == (ended_as.status, ended_as.steps, ended_as.failure)
    assert (after.finished_at, after.deadline_at) == (ended_as.finished_at, None)


def test_a_success_of_a_skipped_step_is_only_remembered(leaving: Story) -> None:
    stuck_forward(leaving).skipped("archive").succeeds("archive").changes_nothing().remembers(
        line("late_success", "archive", message=13)
    )
    leaving.stands(Status.RUNNING, archive="skipped")


def test_an_undo_that_nobody_asked_for_is_only_remembered(leaving: Story) -> None:
    leaving.reaches("close").undoes("block").changes_nothing().remembers(line("late_undo", "block", message=1))
    leaving.stands(Status.RUNNING, block="succeeded")
