"""What a definition may be made of, and the plan that a request makes of it."""

from typing import Any
from uuid import UUID

import pytest

from services.onboarding.definition import Context, DefinedStep, Definition, DefinitionError, onward, pivot, step, wait
from services.onboarding.workflow import PlannedStep
from shared.contracts import billing, metrics, provisioning, tenant
from shared.contracts.base import Message


def _track(context: Context) -> Message:
    return metrics.TrackTenant(tenant_id=context.tenant_id, quotas=context.result("register")["quotas"])


def _activate(context: Context) -> Message:
    return tenant.ActivateTenant(tenant_id=context.tenant_id)


def _remove(context: Context) -> Message:
    return provisioning.RemoveEnvironment(tenant_id=context.tenant_id)


def activate(name: str, *after: str) -> DefinedStep:
    return step(name, ask=_activate, undo=tenant.DeactivateTenant, after=after)


def wanted(name: str, *after: str) -> DefinedStep:
    """A step for requests that name it."""
    return step(name, ask=_activate, undo=tenant.DeactivateTenant, after=after, only_if=lambda request: name in request)


def pause(name: str, *after: str) -> DefinedStep:
    return wait(name, seconds=lambda request: float(request["days"]), after=after)


def removal(name: str, *after: str) -> DefinedStep:
    return pivot(name, does=provisioning.RemoveEnvironment, ask=_remove, after=after)


def rest(name: str, *after: str) -> DefinedStep:
    return onward(name, does=provisioning.RemoveEnvironment, ask=_remove, after=after)


def define(*steps: DefinedStep, **given: Any) -> Definition:
    return Definition(**{"kind": "onboard", "version": 1, "steps": steps, **given})


def order_of(plan: tuple[PlannedStep, ...]) -> dict[str, tuple[str, ...]]:
    return {each.name: each.after for each in plan}


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([activate("a"), activate("a")], "onboard: a step's name is used twice"),
        ([activate("a", "b", "c"), activate("c")], "onboard: a comes after b, which is no step"),
        ([activate("a", "a")], "onboard: the steps wait for each other: a, a"),
        ([activate("a", "b"), activate("b", "a")], "onboard: the steps wait for each other: "),
        ([activate("a"), activate("b", "a", "d"), activate("c", "b"), activate("d", "c")], "wait for each other: "),
        ([activate("a"), pause("b", "c")], "onboard: b comes after c, which is no step"),
    ],
)
def test_a_definition_that_could_never_end_is_refused(steps: list[DefinedStep], complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        define(*steps)


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([rest("a")], "onboard: a cannot be taken back, but comes before any pivot"),
        ([activate("a"), rest("b", "a"), removal("c", "b")], "b cannot be taken back, but comes before any pivot"),
        ([removal("a"), removal("b", "a")], "onboard: there are several pivots: a, b"),
        ([removal("a"), activate("b")], "onboard: b comes neither before nor after the pivot a"),
        ([activate("a"), removal("b", "a"), pause("c", "a")], "onboard: c comes neither before nor after the pivot b"),
    ],
)
def test_a_definition_that_could_neither_go_on_nor_back_is_refused(steps: list[DefinedStep], complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        define(*steps)


def test_a_definition_that_has_a_name_of_its_own_complains_by_it() -> None:
    with pytest.raises(DefinitionError, match="join: a step's name is used twice"):
        define(activate("a"), activate("a"), name="join")


def test_what_comes_after_the_pivot_however_far_need_not_be_taken_back() -> None:
    definition = define(
        activate("a"), pause("b", "a"), removal("c", "b"), rest("d", "c"), pause("e", "d"), rest("f", "e", "a")
    )

    assert [each.name for each in definition.plan if each.pivot] == ["c"]
    assert [each.name for each in definition.plan if each.undo is None] == ["b", "c", "d", "e", "f"]


def test_an_undo_that_takes_nothing_back_is_refused() -> None:
    with pytest.raises(DefinitionError, match="a: ActivateTenant undoes nothing"):
        step("a", ask=_activate, undo=tenant.ActivateTenant)


@pytest.mark.parametrize("broken", [{"timeout": 0.0}, {"timeout": -1.0}, {"attempts": 0}, {"backoff": -1.0}])
def test_a_step_without_time_or_attempts_is_refused(broken: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match="a: "):
        step("a", ask=_activate, undo=tenant.DeactivateTenant, **broken)  # type: ignore[arg-type] # on purpose


def test_the_plan_says_who_is_asked_what_and_how_long() -> None:
    definition = define(
        activate("first"),
        step("second", ask=_track, undo=metrics.UntrackTenant, after=("first",), timeout=7, attempts=2, backoff=0.5),
    )

    (_, second) = definition.plan
    assert (second.name, second.service, second.after) == ("second", "metrics", ("first",))
    assert (second.ask, second.undo) == ("metrics.track_tenant.v1", "metrics.untrack_tenant.v1")
    assert (second.timeout, second.attempts, second.backoff) == (7, 2, 0.5)


def test_an_ask_is_built_of_the_request_and_of_earlier_answers_and_its_undo_of_the_tenant_alone() -> None:
    definition = define(step("track", ask=_track, undo=metrics.UntrackTenant))
    context = Context(UUID(int=1), "t1", request={}, results={"register": {"quotas": {"seats": 3}}})

    ask = definition.message("track", "metrics.track_tenant.v1", context)
    undo = definition.message("track", "metrics.untrack_tenant.v1", Context(UUID(int=1), "t1", request={}, results={}))

    assert ask == metrics.TrackTenant(tenant_id="t1", quotas={"seats": 3})
    assert undo == metrics.UntrackTenant(tenant_id="t1")


def test_an_undo_names_what_it_undoes() -> None:
    assert step("a", ask=_activate, undo=billing.VoidAccount).does is billing.OpenAccount


# Time


def test_a_step_that_waits_asks_nobody() -> None:
    (planned,) = define(pause("rest")).plan_for({"days": 3})

    assert (planned.service, planned.ask, planned.undo) == ("onboarding", None, None)
    assert (planned.timeout, planned.attempts, planned.pivot) == (3.0, 1, False)


def test_each_request_waits_as_long_as_it_says() -> None:
    definition = define(activate("a"), pause("b", "a"), activate("c", "b"))

    plans = [definition.plan_for({"days": days}) for days in (2, 0, 2)]

    assert [[each.timeout for each in plan] for plan in plans] == [[30.0, days, 30.0] for days in (2.0, 0.0, 2.0)]


def test_a_workflow_may_take_its_time_and_all_that_it_waits() -> None:
    definition = define(activate("a"), pause("b", "a"), pause("c", "b"), deadline=60)

    assert definition.seconds_for({"days": 5}) == 70
    assert define(activate("a")).seconds_for({}) == define(activate("a")).deadline


# Steps that depend on the request


def test_what_a_request_does_not_want_is_left_out_and_what_came_after_it_comes_after_what_was_before() -> None:
    definition = define(activate("a"), wanted("b", "a"), wanted("c", "b"), activate("d", "b", "c"), wanted("e"))

    assert order_of(definition.plan_for({"b": 1, "c": 1, "e": 1})) == order_of(definition.plan)
    assert order_of(definition.plan_for({"c": 1})) == {"a": (), "c": ("a",), "d": ("a", "c")}
    assert order_of(definition.plan_for({"b": 1})) == {"a": (), "b": ("a",), "d": ("b",)}
    assert order_of(definition.plan_for({})) == {"a": (), "d": ("a",)}


def test_what_comes_after_a_step_that_is_left_out_at_the_start_begins_at_once() -> None:
    assert order_of(define(wanted("a"), activate("b", "a")).plan_for({})) == {"b": ()}


def test_a_definition_that_asks_nothing_of_the_request_has_one_plan() -> None:
    definition = define(activate("a"), removal("b", "a"), rest("c", "b"))

    assert definition.plan_for({"days": 1}) is definition.plan


# The pivot


def test_the_pivot_and_what_comes_after_it_have_no_undo() -> None:
    definition = define(activate("a"), removal("b", "a"), rest("c", "b"))

    before, at, past = definition.plan

    assert [each.pivot for each in definition.plan] == [False, True, False]
    assert (at.ask, at.undo, at.service) == ("provisioning.remove_environment.v1", None, "provisioning")
    assert (past.ask, past.undo, past.timeout, past.attempts) == (at.ask, None, before.timeout, before.attempts)


def test_the_ask_of_a_step_that_cannot_be_taken_back_is_built_like_any_other() -> None:
    definition = define(removal("a"))

    ask = definition.message("a", "provisioning.remove_environment.v1", Context(UUID(int=1), "t1", {}, {}))

    assert ask == provisioning.RemoveEnvironment(tenant_id="t1")


# What a builder looks at


def test_a_builder_sees_the_products_that_were_ordered_and_none_where_none_were() -> None:
    ordered = Context(UUID(int=1), "t1", {"products": [{"name": "notes", "version": "2.0"}]}, {})

    assert ordered.products() == (tenant.ProductVersion(name="notes", version="2.0"),)
    assert Context(UUID(int=1), "t1", {}, {}).products() == ()
