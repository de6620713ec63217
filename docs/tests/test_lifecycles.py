import random
import re
from collections.abc import Iterator

import pytest

from docs.generators import PAGES
from docs.generators.doors import Door, doors
from docs.generators.dunning import ordered_by_dunning
from docs.generators.expirations import ordered_by_expiration
from docs.generators.exploration import ACCEPTED, Position, Transitions, explore, inputs, note, unreached
from docs.generators.simulation import NO_ID, NOW, obliging, play, refusing, silent
from docs.generators.states import ACTIONS, EXPLORED
from services.onboarding.definition import Definition
from services.onboarding.lifecycles import CURRENT
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.saga import (
    NEEDS_ATTENTION_AFTER,
    Abandon,
    Cancel,
    DeadlinePassed,
    Input,
    Refused,
    Retry,
    Skip,
    Started,
    Succeeded,
    TimerDue,
)
from services.onboarding.settings import OnboardingSettings
from services.onboarding.workflow import Status, StepStatus, Workflow, planned
from shared.contracts import CATALOGUE

EACH = pytest.mark.parametrize("definition", CURRENT, ids=lambda definition: definition.name)


@pytest.fixture(scope="module")
def page() -> str:
    return PAGES["docs/lifecycles.md"]()


@pytest.fixture(scope="module")
def explored() -> Transitions:
    return explore(EXPLORED)


def section(page: str, heading: str) -> str:
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def row(text: str, first: str) -> list[str]:
    found = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    assert len(found) == 1, (first, found)
    return found[0].strip("| ").split(" | ")


# What starts them


@EACH
def test_every_lifecycle_is_in_the_overview_with_what_starts_it(definition: Definition, page: str) -> None:
    name, kind, started_by, version, *_ = row(section(page, "All lifecycles"), f"[{definition.name}]")

    assert (name, kind) == (f"[{definition.name}](#{definition.name})", f"`{definition.kind}`")
    assert version == str(definition.version)
    assert re.match(r"`(POST|PUT) /v1/", started_by)


def test_the_routes_are_known_by_what_they_start() -> None:
    found = doors()

    assert found["onboard"] == [Door("POST", "/v1/onboardings"), Door("PUT", "/v1/accounts")]
    assert found["update-account"] == [Door("PUT", "/v1/accounts", ("accountId",))]
    assert found["offboard"] == [Door("POST", "/v1/offboardings", ("tenantId", "customerName"))]
    assert found.keys() == {definition.kind for definition in CURRENT}


# Their steps, and how they run


@EACH
def test_every_step_is_in_the_table_of_its_lifecycle_and_drawn(definition: Definition, page: str) -> None:
    text = section(page, definition.name)
    steps = text.partition("When all goes well")[0]
    for step in definition.plan:
        cells = row(steps, f"`{step.name}`")
        assert cells[1] == step.service
        if step.ask is not None:
            assert f"[{CATALOGUE[step.ask].__name__}]" in cells[3]
            assert f"->>{step.service}: {CATALOGUE[step.ask].__name__}\n" in text


@EACH
def test_what_is_asked_together_is_drawn_in_parallel(definition: Definition, page: str) -> None:
    drawn = section(page, definition.name).partition("```mermaid")[2].partition("```")[0]
    blocks = re.findall(r"^ +par (.*?)^ +end$", drawn, re.MULTILINE | re.DOTALL)
    rounds = play(definition.kind, definition.plan, obliging(definition.plan))

    assert [{block.split("\n")[0], *re.findall(r"and ([\w-]+)", block)} for block in blocks] == [
        {send.step for send in each.sends} for each in rounds if len(each.sends) > 1
    ]


def test_what_waits_depends_or_cannot_be_taken_back_is_marked(page: str) -> None:
    steps = section(page, "offboard").partition("When all goes well")[0]
    waiting, asked = row(steps, "`grace-period`"), row(steps, "`block-sign-in`")
    pivot, past = row(steps, "`remove-environment`"), row(steps, "`purge-users`")

    assert waiting[3] == "none: it waits as long as the request's `graceDays` says"
    assert row(steps, "`export-data`")[0] == "`export-data`<br>only if the request's `export` says so"
    assert pivot[0].endswith("**point of no return**")
    assert past[0].endswith("<br>past the point of no return")
    assert asked[0] == "`block-sign-in`"
    assert [cells[6].strip() for cells in (pivot, past)] == ["", ""]
    assert [cells[7] for cells in (asked, pivot, past)] == ["3", "until it succeeds", "until it succeeds"]


# How they are undone


@EACH
def test_a_refused_first_step_undoes_nothing_and_a_silent_one_is_undone(definition: Definition, page: str) -> None:
    plan, first = definition.plan, definition.plan[0]
    refused = play(definition.kind, plan, refusing(plan, first.name))
    unanswered = play(definition.kind, plan, silent(plan, first.name))
    undone = section(page, definition.name).partition("What is undone")[2]

    assert [send.ask for each in refused for send in each.sends] == [first.ask]
    assert [send.ask for each in unanswered for send in each.sends] == [first.ask] * first.attempts + [first.undo]
    assert row(undone, f"`{first.name}`")[1:] == ["nothing", f"`{first.name}`"]


def test_the_failing_onboarding_is_drawn_with_every_undo(page: str) -> None:
    text = section(page, "onboard")

    assert text.count("```mermaid") == 2
    for step in ONBOARD.plan:
        assert step.undo is not None
        assert f"->>{step.service}: {CATALOGUE[step.undo].__name__}\n" in text


def test_past_the_point_of_no_return_nothing_is_undone_and_a_person_is_called(page: str) -> None:
    undone = section(page, "offboard").partition("What is undone")[2]
    asked_on = "nothing: it is asked until it succeeds, and a person is called"
    late = f"{asked_on} after {NEEDS_ATTENTION_AFTER} attempts"

    assert row(undone, "`close-account`")[2].startswith("`close-account`<br>then `export-data`<br>then ")
    assert row(undone, "`remove-environment`")[1:] == ["never refused", late]
    assert row(undone, "`purge-users`")[1:] == ["never refused", late]
    assert row(undone, "`archive-tenant`")[1:] == [f"{asked_on} at once", late]


def test_an_off_boarding_that_is_cancelled_while_it_waits_is_undone(page: str) -> None:
    rounds = play("offboard", OFFBOARD.plan, obliging(OFFBOARD.plan), cancelled_at="grace-period")

    assert rounds[-1].status is Status.COMPENSATED
    assert "cancels during `grace-period`: `begin-offboarding`." in section(page, "offboard")


# States and operators


def test_what_is_explored_shows_every_transition_that_any_lifecycle_makes(explored: Transitions) -> None:
    walked, chance = Transitions(), random.Random(7)
    for definition in CURRENT:
        for _ in range(100 if definition is OFFBOARD else 20):
            walk(definition, walked, chance)

    assert arrows(walked) <= arrows(explored)
    assert walked.step_ends <= explored.step_ends
    assert {Position(Status.NEEDS_ATTENTION, is_forward=way) for way in (True, False)} <= {
        position for position, _ in walked.actions
    }


def walk(definition: Definition, found: Transitions, chance: random.Random) -> None:
    """Let a workflow run well for a while, and then let anything happen."""
    begun = planned(NO_ID, definition.kind, "tenant", definition.plan, deadline_at=NOW)
    workflow, all_well = note(found, begun, Started()), chance.randrange(3 * len(definition.plan))
    frequent: type[Input] = Succeeded
    for moment in range(300):
        if moment >= all_well and chance.random() < 0.05:
            frequent = chance.choice((Succeeded, Refused, TimerDue))
        possible = list(inputs(workflow) if moment >= all_well else progress(workflow))
        weights = [30 if isinstance(each, frequent) else 0.2 if isinstance(each, RARE) else 1 for each in possible]
        if not possible:
            continue
        workflow = note(found, workflow, chance.choices(possible, weights)[0])
        if workflow.status.is_final and chance.random() < 0.3:
            return


RARE = (Cancel, Abandon, DeadlinePassed)


def progress(workflow: Workflow) -> Iterator[Input]:
    for step in workflow.plan:
        if workflow.steps[step.name].status is StepStatus.RUNNING:
            yield Succeeded(step.name, NO_ID, {}) if step.ask else TimerDue(step.name)


def arrows(found: Transitions) -> set[tuple[object, str]]:
    edges = [*found.workflow.items(), *found.step.items(), *found.actions.items()]
    return {(edge, cause) for edge, causes in edges for cause in causes}


def test_every_status_is_reached(explored: Transitions) -> None:
    assert unreached(Status, explored.workflow) == []
    assert unreached(StepStatus, explored.step) == []


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        (Status.RUNNING, Status.COMPENSATING, "cancel_requested"),
        (Status.RUNNING, Status.COMPENSATING, "deadline_passed"),
        (Status.RUNNING, Status.NEEDS_ATTENTION, "deadline_passed"),
        (Status.RUNNING, Status.NEEDS_ATTENTION, "timed_out"),
        (Status.COMPENSATING, Status.NEEDS_ATTENTION, "deadline_passed"),
        (Status.COMPENSATING, Status.NEEDS_ATTENTION, "undo_timed_out"),
        (Status.NEEDS_ATTENTION, Status.RUNNING, "succeeded"),
        (Status.NEEDS_ATTENTION, Status.RUNNING, "retry_requested"),
        (Status.NEEDS_ATTENTION, Status.COMPENSATING, "undone"),
        (Status.NEEDS_ATTENTION, Status.COMPENSATING, "retry_requested"),
        (Status.NEEDS_ATTENTION, Status.COMPLETED, "skipped"),
        (Status.NEEDS_ATTENTION, Status.COMPENSATED, "skipped"),
        (Status.NEEDS_ATTENTION, Status.ABANDONED, "abandon_requested"),
    ],
)
def test_deadlines_attention_and_operators_are_in_the_diagram(
    before: Status, after: Status, cause: str, explored: Transitions
) -> None:
    assert cause in explored.workflow[before, after]


def test_no_transition_leads_out_of_an_end_or_back_over_the_point_of_no_return(explored: Transitions) -> None:
    left = {before for before, _ in explored.workflow}

    assert left == {Status.RUNNING, Status.COMPENSATING, Status.NEEDS_ATTENTION}
    assert (Status.RUNNING, Status.COMPENSATED) not in explored.workflow
    assert (Status.COMPENSATING, Status.RUNNING) not in explored.workflow
    assert explored.actions[Position(Status.NEEDS_ATTENTION, is_forward=True), Cancel] == {"past_point_of_no_return"}


def test_operators_can_act_on_what_needs_attention_and_on_nothing_that_has_ended(
    page: str, explored: Transitions
) -> None:
    text = section(page, "What operators can do")

    assert [f"`{action.__name__.lower()}`" for action in ACTIONS] == row(text, "status")[1:]
    for status in (each for each in Status if each.is_final):
        assert row(text, f"`{status}`")[1:] == ["`workflow_ended`"] * len(ACTIONS)
    for action in (Retry, Skip, Abandon):
        for way in (True, False):
            assert ACCEPTED in explored.actions[Position(Status.NEEDS_ATTENTION, is_forward=way), action]
    assert row(text, "`compensating`")[1:] == ["`already_undoing`", "accepted", "`not_stuck`", "`not_stuck`"]


# The end of a contract


def test_the_settings_that_a_contracts_end_depends_on_are_named_as_they_are_read(page: str) -> None:
    text = " ".join(section(page, "The end of a contract").split())
    named = dict(re.findall(r"`(TENURE_\w+)` days \w+ \((\d+) unless set otherwise\)", text))
    environment = {
        "TENURE_ONBOARDING_DATABASE_URL": "postgresql://127.0.0.1/",
        "TENURE_ONBOARDING_AMQP_URL": "amqp://127.0.0.1/",
        "TENURE_ADMIN_KEY": "a-key-of-the-administrator",
    }
    by_default = OnboardingSettings.from_environment(environment)
    otherwise = OnboardingSettings.from_environment(environment | {name: f"{days}0" for name, days in named.items()})

    assert sorted(map(int, named.values())) == sorted([by_default.warning_days, by_default.grace_days])
    assert otherwise.warning_days == 10 * by_default.warning_days
    assert otherwise.grace_days == 10 * by_default.grace_days


def test_the_end_of_a_contract_warns_suspends_and_off_boards(page: str) -> None:
    text = section(page, "The end of a contract")

    assert ordered_by_expiration() == {"suspend", "reactivate", "offboard"}
    assert row(text, "earlier")[1:] == ["nothing", "[reactivate](#reactivate)", "nothing"]
    assert row(text, "14 days before")[1] == "a warning"
    assert row(text, "when the day begins")[1:] == ["[suspend](#suspend)", "nothing", "nothing"]
    assert row(text, "30 days after")[1:] == ["[offboard](#offboard)"] * 3


def test_what_unpaid_invoices_order_is_in_the_overview(page: str) -> None:
    overview = section(page, "All lifecycles")

    assert ordered_by_dunning() == {"suspend", "reactivate", "offboard"}
    assert {
        definition.kind for definition in CURRENT if "#dunning" in "|".join(row(overview, f"[{definition.name}]"))
    } == (ordered_by_dunning())
