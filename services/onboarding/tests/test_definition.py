import pytest

from services.onboarding.definition import Context, DefinedStep, Definition, DefinitionError, step
from shared.contracts import billing, metrics, tenant
from shared.contracts.base import Message


def _track(context: Context) -> Message:
    return metrics.TrackTenant(tenant_id=context.tenant_id, quotas=context.result("register")["quotas"])


def _activate(context: Context) -> Message:
    return tenant.ActivateTenant(tenant_id=context.tenant_id)


def activate(name: str, *after: str) -> DefinedStep:
    return step(name, ask=_activate, undo=tenant.DeactivateTenant, after=after)


def define(*steps: DefinedStep) -> Definition:
    return Definition(kind="onboard", version=1, steps=steps)


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([activate("a"), activate("a")], "onboard: a step's name is used twice"),
        ([activate("a", "b", "c"), activate("c")], "onboard: a comes after b, which is no step"),
        ([activate("a", "a")], "onboard: the steps wait for each other: a, a"),
        ([activate("a", "b"), activate("b", "a")], "onboard: the steps wait for each other: "),
        ([activate("a"), activate("b", "a", "d"), activate("c", "b"), activate("d", "c")], "wait for each other: "),
    ],
)
def test_a_definition_that_could_never_end_is_refused(steps: list[DefinedStep], complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        define(*steps)


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
    context = Context("t1", request={}, results={"register": {"quotas": {"seats": 3}}})

    ask = definition.message("track", "metrics.track_tenant.v1", context)
    undo = definition.message("track", "metrics.untrack_tenant.v1", Context("t1", request={}, results={}))

    assert ask == metrics.TrackTenant(tenant_id="t1", quotas={"seats": 3})
    assert undo == metrics.UntrackTenant(tenant_id="t1")


def test_an_undo_names_what_it_undoes() -> None:
    assert step("a", ask=_activate, undo=billing.VoidAccount).does is billing.OpenAccount
