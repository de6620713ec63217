"""The saga core, told as stories of an onboarding: given, when, expect."""

import pytest

from services.onboarding.onboard import ONBOARD
from services.onboarding.saga import NEEDS_ATTENTION_AFTER, Failure, Notice, Started, Status, Succeeded, TimerDue
from services.onboarding.tests.catalogue import REQUEST, TENANT_ID, answers
from services.onboarding.tests.story import Story, line
from shared.contracts import billing, identity, metrics, provisioning, tenant

REGISTER, ACTIVATE = "register-tenant", "activate-tenant"
MIDDLE = ("create-administrators", "open-account", "track-tenant", "provision-environment")
STEPS = (REGISTER, *MIDDLE, ACTIVATE)

TIMEOUT = ONBOARD.plan[0].timeout
ATTEMPTS = ONBOARD.plan[0].attempts
BACKOFF = ONBOARD.plan[0].backoff


@pytest.fixture
def story() -> Story:
    return Story(ONBOARD, request=REQUEST, answers=answers())


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
            identity.CreateAdministrators(tenant_id=TENANT_ID, customer_name="Acme", emails=("ada@example.com",)),
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
