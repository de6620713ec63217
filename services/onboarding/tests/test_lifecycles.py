"""What every lifecycle asks of whom, message by message."""

from collections.abc import Mapping
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from services.onboarding.definition import Context, DefinedStep, Definition
from services.onboarding.lifecycles import CURRENT, DEFINITIONS
from services.onboarding.lifecycles.change_products import CHANGE_PRODUCTS, CHANGE_PRODUCTS_1
from services.onboarding.lifecycles.change_tier import CHANGE_TIER
from services.onboarding.lifecycles.join import JOIN
from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.lifecycles.reactivate import REACTIVATE
from services.onboarding.lifecycles.suspend import SUSPEND
from services.onboarding.lifecycles.update_account import UPDATE_ACCOUNT, UPDATE_ACCOUNT_1
from services.onboarding.tests.catalogue import FULL, REQUEST, TENANT_ID, answers
from shared.contracts.base import Message
from shared.contracts.billing import (
    ChangeLicences,
    ChangePlan,
    CloseAccount,
    Licence,
    OpenAccount,
    PauseBilling,
    PurgeAccount,
    ResumeBilling,
    UpdateAccount,
)
from shared.contracts.identity import (
    AddAdministrators,
    AllowSignIn,
    BlockSignIn,
    CreateAdministrators,
    PurgeUsers,
    SetAdministrators,
)
from shared.contracts.metrics import ChangeQuotas, PurgeMetrics, TrackTenant
from shared.contracts.provisioning import (
    DeployProducts,
    ExportData,
    MoveEnvironment,
    ProvisionEnvironment,
    ReleaseEnvironment,
    RemoveEnvironment,
    RemoveProducts,
    ThrottleEnvironment,
)
from shared.contracts.tenant import (
    ActivateTenant,
    ArchiveTenant,
    BeginOffboarding,
    ChangeProducts,
    ChangeTier,
    Deletion,
    LicensedProduct,
    PlacedProduct,
    ProductVersion,
    ReactivateTenant,
    RegisterTenant,
    SuspendTenant,
    UpdateTenant,
    UsagePlan,
)

WORKFLOW_ID = UUID(int=1)
NOTES_2 = ProductVersion(name="notes", version="2.0")
BESIDE_OTHERS = PlacedProduct(name="notes", version="2.0")
OWN_BRIDGE: Mapping[str, Any] = {"name": "chess", "version": "1.0", "isolation": "bridge"}
OWN_SILO: Mapping[str, Any] = {
    "name": "forum",
    "version": "3.1",
    "isolation": "silo",
    "driver": "script",
    "region": "eu-west-1",
    "parameters": {"size": "large"},
}
TOLD = (
    LicensedProduct(name="notes", version="2.0"),
    LicensedProduct(name="wiki", version="1.0", plan="wiki-monthly"),
    LicensedProduct(**OWN_BRIDGE),
    LicensedProduct(**OWN_SILO, plan="premium"),
)
"""What the tenant service tells of four products: the second has a licence, the third an environment, the last both."""

EXISTING: Mapping[str, Any] = {"tenantId": TENANT_ID, "customerName": "Acme"}
"""What every request for a tenant that is there already has."""

ACCOUNT: Mapping[str, Any] = {
    **EXISTING,
    "expiration": "2027-01-31",
    "products": FULL["products"],
    "adminEmails": FULL["adminEmails"],
}
OFFBOARDING: Mapping[str, Any] = {**EXISTING, "graceDays": 30, "export": True, "reason": "They moved on."}
GONE = "The tenant is being off-boarded."

REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "onboard": FULL,
    "join": {"customerName": "Acme", "adminEmails": ["cleo@example.com"]},
    "change-tier": {**EXISTING, "tier": "premium"},
    "change-products": {**EXISTING, "products": FULL["products"]},
    "update-account": ACCOUNT,
    "suspend": {**EXISTING, "suspendedFor": "operator", "reason": "They do not pay."},
    "reactivate": {**EXISTING, "reason": "They have paid."},
    "offboard": OFFBOARDING,
}
"""A request for each lifecycle."""


def asked(definition: Definition, request: Mapping[str, Any], *, unanswered: str = "") -> dict[str, Message]:
    """Return what each step asks, with what was answered before; one step may have been gone on without."""
    plan = [each for each in definition.plan_for(request) if each.ask is not None]
    told = {name: fact.model_dump(mode="json") for name, fact in answers().items()}
    results = {each.name: told[each.name] for each in plan if each.name != unanswered}
    context = Context(WORKFLOW_ID, TENANT_ID, request, results)
    return {each.name: definition.message(each.name, str(each.ask), context) for each in plan}


def order_of(definition: Definition, request: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return what each step of the workflow for a request comes after."""
    return {each.name: each.after for each in definition.plan_for(request)}


# All of them


def test_what_new_workflows_run_is_there_once_by_name_and_version() -> None:
    assert set(REQUESTS) == {definition.name for definition in CURRENT}
    assert len({definition.name for definition in CURRENT}) == len(CURRENT)
    for definition in CURRENT:
        assert DEFINITIONS[definition.name, definition.version] is definition


ASKING = [(each, step) for each in DEFINITIONS.values() for step in each.steps.values() if step.does is not None]


@pytest.mark.parametrize(("definition", "step"), ASKING, ids=lambda each: each.name)
def test_every_ask_is_of_the_type_that_its_undo_takes_back(definition: Definition, step: DefinedStep) -> None:
    messages = asked(definition, REQUESTS[definition.name])

    assert type(messages[step.name]) is step.does
    assert messages[step.name].tenant_id == TENANT_ID
    if step.undo is not None:
        assert step.undo.undoes is step.does
        assert step.undo.owner == messages[step.name].owner


@pytest.mark.parametrize("definition", CURRENT, ids=lambda each: each.name)
def test_only_what_deletes_something_cannot_be_taken_back(definition: Definition) -> None:
    final = [step.name for step in definition.steps.values() if step.does is not None and step.undo is None]

    deleting = {
        "offboard": ["remove-environment", "purge-users", "purge-account", "purge-metrics", "archive-tenant"],
        "change-products": ["remove-products"],
        "update-account": ["remove-products"],
    }
    assert final == deleting.get(definition.name, [])


@pytest.mark.parametrize("definition", [ONBOARD, JOIN, CHANGE_TIER], ids=lambda each: each.name)
def test_billing_metrics_and_provisioning_are_told_what_the_tier_means_not_its_name(definition: Definition) -> None:
    for message in asked(definition, REQUESTS[definition.name]).values():
        assert message.owner == "tenant" or "tier" not in message.model_dump()


# onboard


def test_everything_that_is_ordered_reaches_whom_it_concerns() -> None:
    assert asked(ONBOARD, FULL) == {
        "register-tenant": RegisterTenant(
            tenant_id=TENANT_ID,
            customer_name="Café 東京",
            tier="premium",
            products=(NOTES_2,),
            email="ada@example.com",
            phone="+49 30 1234",
            address="Ring 1\nBerlin",
            region="eu-central",
            expiration=date(2027, 1, 31),
            tags={"segment": "smb"},
            attributes={"crm": "42"},
        ),
        "create-administrators": CreateAdministrators(
            tenant_id=TENANT_ID,
            customer_name="Café 東京",
            emails=("ada@example.com", "bea@example.com"),
            isolation="pool",
        ),
        "open-account": OpenAccount(
            tenant_id=TENANT_ID,
            customer_name="Café 東京",
            plan="standard",
            currency="EUR",
            billing_address="Postfach 7\nBerlin",
        ),
        "track-tenant": TrackTenant(tenant_id=TENANT_ID, quotas={"seats": 25}),
        "provision-environment": ProvisionEnvironment(
            tenant_id=TENANT_ID, isolation="pool", region="eu-central", products=(BESIDE_OTHERS,)
        ),
        "activate-tenant": ActivateTenant(tenant_id=TENANT_ID),
    }


def test_what_is_not_ordered_is_left_to_whom_it_concerns() -> None:
    assert asked(ONBOARD, REQUEST) == {
        "register-tenant": RegisterTenant(
            tenant_id=TENANT_ID, customer_name="Acme", tier="standard", email="ada@example.com"
        ),
        "create-administrators": CreateAdministrators(
            tenant_id=TENANT_ID, customer_name="Acme", emails=("ada@example.com",), isolation="pool"
        ),
        "open-account": OpenAccount(tenant_id=TENANT_ID, customer_name="Acme", plan="standard"),
        "track-tenant": TrackTenant(tenant_id=TENANT_ID, quotas={"seats": 25}),
        "provision-environment": ProvisionEnvironment(tenant_id=TENANT_ID, isolation="pool"),
        "activate-tenant": ActivateTenant(tenant_id=TENANT_ID),
    }


def test_what_the_tier_means_for_people_reaches_identity_with_the_administrators() -> None:
    plan = UsagePlan(tier="standard", version=1, requests_per_second=50)
    registered = answers()["register-tenant"].model_copy(update={"usage_plan": plan}).model_dump(mode="json")
    context = Context(WORKFLOW_ID, TENANT_ID, REQUEST, {"register-tenant": registered})

    assert ONBOARD.message(
        "create-administrators", CreateAdministrators.routing_key(), context
    ) == CreateAdministrators(
        tenant_id=TENANT_ID,
        customer_name="Acme",
        emails=("ada@example.com",),
        usage_plan=plan,
        isolation="pool",
    )


@pytest.mark.parametrize(("ordered", "region"), [({}, "eu-west-1"), ({"region": "local"}, "local")])
def test_provisioning_is_told_what_the_tier_says_and_a_region_that_is_ordered_comes_first(
    ordered: Mapping[str, str], region: str
) -> None:
    said = {"driver": "script", "region": "eu-west-1", "parameters": {"size": "large"}}
    registered = answers()["register-tenant"].model_copy(update=said).model_dump(mode="json")
    context = Context(WORKFLOW_ID, TENANT_ID, {**REQUEST, **ordered}, {"register-tenant": registered})

    assert ONBOARD.message(
        "provision-environment", ProvisionEnvironment.routing_key(), context
    ) == ProvisionEnvironment(
        tenant_id=TENANT_ID, isolation="pool", region=region, driver="script", parameters={"size": "large"}
    )


@pytest.mark.parametrize(("ordered", "zone"), [({}, "UTC"), ({"timeZone": "Asia/Kolkata"}, "Asia/Kolkata")])
def test_usage_is_read_and_charged_in_the_time_zone_that_is_ordered(ordered: Mapping[str, str], zone: str) -> None:
    registered = answers()["register-tenant"].model_dump(mode="json")
    context = Context(WORKFLOW_ID, TENANT_ID, {**REQUEST, **ordered}, {"register-tenant": registered})

    assert ONBOARD.message("open-account", OpenAccount.routing_key(), context) == OpenAccount(
        tenant_id=TENANT_ID, customer_name="Acme", plan="standard", time_zone=zone
    )

    assert ONBOARD.message("track-tenant", TrackTenant.routing_key(), context) == TrackTenant(
        tenant_id=TENANT_ID, quotas={"seats": 25}, time_zone=zone
    )


def test_a_tier_of_which_older_code_has_told_is_made_by_the_driver_of_that_time() -> None:
    answered = answers()
    older = {
        name: answered[name].model_dump(mode="json", exclude={"driver", "region", "parameters"})
        for name in ("register-tenant", "change-tier")
    }
    context = Context(WORKFLOW_ID, TENANT_ID, REQUEST, older)

    made = ONBOARD.message("provision-environment", ProvisionEnvironment.routing_key(), context)
    moved = CHANGE_TIER.message("move-environment", MoveEnvironment.routing_key(), context)

    assert made == ProvisionEnvironment(tenant_id=TENANT_ID, isolation="pool", driver="postgres")
    assert moved == MoveEnvironment(tenant_id=TENANT_ID, isolation="silo", connections=20, driver="postgres")


# join


def test_those_who_join_are_added_and_nothing_else_is_asked() -> None:
    assert asked(JOIN, REQUESTS["join"]) == {
        "add-administrators": AddAdministrators(
            tenant_id=TENANT_ID, customer_name="Acme", emails=("cleo@example.com",)
        ),
    }
    assert JOIN.kind == "onboard"


# change-tier


def test_another_tier_is_another_plan_other_quotas_and_another_environment() -> None:
    assert asked(CHANGE_TIER, REQUESTS["change-tier"]) == {
        "change-tier": ChangeTier(tenant_id=TENANT_ID, tier="premium"),
        "change-plan": ChangePlan(tenant_id=TENANT_ID, plan="gold"),
        "change-quotas": ChangeQuotas(tenant_id=TENANT_ID, quotas={"seats": 99}),
        "move-environment": MoveEnvironment(tenant_id=TENANT_ID, isolation="silo", connections=20),
    }


def test_provisioning_is_told_what_another_tier_says() -> None:
    said = {"driver": "script", "parameters": {"size": "large"}}
    changed = answers()["change-tier"].model_copy(update=said).model_dump(mode="json")
    context = Context(WORKFLOW_ID, TENANT_ID, REQUESTS["change-tier"], {"change-tier": changed})

    assert CHANGE_TIER.message("move-environment", MoveEnvironment.routing_key(), context) == MoveEnvironment(
        tenant_id=TENANT_ID, isolation="silo", connections=20, driver="script", parameters={"size": "large"}
    )


def test_the_tier_is_changed_first() -> None:
    after = order_of(CHANGE_TIER, REQUESTS["change-tier"])

    assert after.pop("change-tier") == ()
    assert set(after.values()) == {("change-tier",)}


# change-products


def test_other_products_are_recorded_then_licensed_and_deployed_and_those_that_are_left_removed() -> None:
    assert asked(CHANGE_PRODUCTS, REQUESTS["change-products"]) == {
        "change-products": ChangeProducts(tenant_id=TENANT_ID, products=(NOTES_2,)),
        "change-licences": ChangeLicences(tenant_id=TENANT_ID, licences=()),
        "deploy-products": DeployProducts(tenant_id=TENANT_ID, products=(BESIDE_OTHERS,)),
        "remove-products": RemoveProducts(tenant_id=TENANT_ID, products=("notes",)),
    }


def test_a_tenant_may_have_no_products_at_all() -> None:
    assert asked(CHANGE_PRODUCTS, {**EXISTING, "products": []}) == {
        "change-products": ChangeProducts(tenant_id=TENANT_ID, products=()),
        "change-licences": ChangeLicences(tenant_id=TENANT_ID, licences=()),
        "deploy-products": DeployProducts(tenant_id=TENANT_ID, products=()),
        "remove-products": RemoveProducts(tenant_id=TENANT_ID, products=()),
    }


@pytest.mark.parametrize("definition", [CHANGE_PRODUCTS, UPDATE_ACCOUNT], ids=lambda each: each.name)
def test_nothing_of_a_product_is_removed_before_all_the_rest_of_a_change_has_succeeded(definition: Definition) -> None:
    after = order_of(definition, {})

    first, last = next(iter(after)), "remove-products"
    assert set(after[last]) == after.keys() - {first, last}
    assert {name: steps for name, steps in after.items() if name != last} == {
        name: () if name == first else (first,) for name in after if name != last
    }
    assert [step.name for step in definition.plan if step.pivot] == [last]


# What products mean


def meant(definition: Definition, *, step: str, told: tuple[LicensedProduct, ...] | None) -> dict[str, Message]:
    """Return what the steps after one ask for, where the tenant service has told this of the products that it has."""
    request = {**REQUESTS[definition.name], "products": FULL["products"]}
    answer = answers()[step].model_copy(update={"products": told}).model_dump(mode="json")
    context = Context(WORKFLOW_ID, TENANT_ID, request, {step: answer})
    steps = ("open-account", "provision-environment", "change-licences", "deploy-products")
    return {
        each.name: definition.message(each.name, str(each.ask), context)
        for each in definition.plan
        if each.name in steps
    }


LICENCES = (Licence(product="wiki", plan="wiki-monthly"), Licence(product="forum", plan="premium"))
PLACED = (
    BESIDE_OTHERS,
    PlacedProduct(name="wiki", version="1.0"),
    PlacedProduct(**OWN_BRIDGE),
    PlacedProduct(**OWN_SILO),
)


def test_a_new_tenant_gets_the_licences_and_the_environments_that_its_products_mean() -> None:
    asks = meant(ONBOARD, step="register-tenant", told=TOLD)

    assert asks == {
        "open-account": OpenAccount(
            tenant_id=TENANT_ID,
            customer_name="Café 東京",
            plan="standard",
            currency="EUR",
            billing_address="Postfach 7\nBerlin",
            licences=LICENCES,
        ),
        "provision-environment": ProvisionEnvironment(
            tenant_id=TENANT_ID, isolation="pool", region="eu-central", products=PLACED
        ),
    }


@pytest.mark.parametrize(
    ("definition", "step"),
    [(CHANGE_PRODUCTS, "change-products"), (UPDATE_ACCOUNT, "update-tenant")],
    ids=lambda each: getattr(each, "name", each),
)
def test_a_tenant_with_other_products_has_their_licences_and_environments(definition: Definition, step: str) -> None:
    assert meant(definition, step=step, told=TOLD) == {
        "change-licences": ChangeLicences(tenant_id=TENANT_ID, licences=LICENCES),
        "deploy-products": DeployProducts(tenant_id=TENANT_ID, products=PLACED),
    }


@pytest.mark.parametrize("told", [TOLD, None])
@pytest.mark.parametrize(
    ("definition", "step"),
    [(CHANGE_PRODUCTS_1, "change-products"), (UPDATE_ACCOUNT_1, "update-tenant")],
    ids=lambda each: getattr(each, "name", each),
)
def test_a_change_of_the_release_before_deploys_what_the_tenant_service_tells(
    definition: Definition, step: str, told: tuple[LicensedProduct, ...] | None
) -> None:
    products = PLACED if told else (BESIDE_OTHERS,)

    assert meant(definition, step=step, told=told) == {
        "deploy-products": DeployProducts(tenant_id=TENANT_ID, products=products)
    }
    assert definition.version == 1
    assert "remove-products" not in definition.steps


@pytest.mark.parametrize(
    ("definition", "step"),
    [(ONBOARD, "register-tenant"), (CHANGE_PRODUCTS, "change-products"), (UPDATE_ACCOUNT, "update-tenant")],
    ids=lambda each: getattr(each, "name", each),
)
def test_products_of_which_older_code_has_told_nothing_run_beside_others_and_cost_nothing(
    definition: Definition, step: str
) -> None:
    asks = meant(definition, step=step, told=None)

    assert [getattr(each, "licences", ()) for each in asks.values()] == [()] * 2
    assert [each.products for each in asks.values() if hasattr(each, "products")] == [(BESIDE_OTHERS,)]


@pytest.mark.parametrize("definition", [CHANGE_PRODUCTS, UPDATE_ACCOUNT], ids=lambda each: each.name)
def test_where_the_tenant_has_no_products_by_now_none_of_those_that_were_ordered_runs(definition: Definition) -> None:
    asks = meant(definition, step=definition.plan[0].name, told=())

    assert asks["deploy-products"] == DeployProducts(tenant_id=TENANT_ID, products=())


# update-account


def test_everything_of_an_account_reaches_whom_it_concerns() -> None:
    assert asked(UPDATE_ACCOUNT, ACCOUNT) == {
        "update-tenant": UpdateTenant(
            tenant_id=TENANT_ID, customer_name="Acme", expiration=date(2027, 1, 31), products=(NOTES_2,)
        ),
        "set-administrators": SetAdministrators(
            tenant_id=TENANT_ID, customer_name="Acme", emails=("ada@example.com", "bea@example.com")
        ),
        "update-account": UpdateAccount(tenant_id=TENANT_ID, customer_name="Acme"),
        "change-licences": ChangeLicences(tenant_id=TENANT_ID, licences=()),
        "deploy-products": DeployProducts(tenant_id=TENANT_ID, products=(BESIDE_OTHERS,)),
        "remove-products": RemoveProducts(tenant_id=TENANT_ID, products=("notes",)),
    }


# suspend and reactivate


@pytest.mark.parametrize("reason", ["They do not pay.", None])
def test_a_suspension_closes_every_door_and_says_why(reason: str | None) -> None:
    request = {**EXISTING, "suspendedFor": "operator"} | ({"reason": reason} if reason else {})

    assert asked(SUSPEND, request) == {
        "suspend-tenant": SuspendTenant(tenant_id=TENANT_ID, reason=reason),
        "block-sign-in": BlockSignIn(tenant_id=TENANT_ID, reason=reason),
        "throttle-environment": ThrottleEnvironment(tenant_id=TENANT_ID, reason=reason),
        "pause-billing": PauseBilling(tenant_id=TENANT_ID, reason=reason),
    }


def test_a_reactivation_opens_every_door() -> None:
    assert asked(REACTIVATE, EXISTING) == {
        "reactivate-tenant": ReactivateTenant(tenant_id=TENANT_ID),
        "allow-sign-in": AllowSignIn(tenant_id=TENANT_ID),
        "release-environment": ReleaseEnvironment(tenant_id=TENANT_ID),
        "resume-billing": ResumeBilling(tenant_id=TENANT_ID),
    }


def test_a_tenant_pays_again_only_when_everything_is_open() -> None:
    after = order_of(REACTIVATE, EXISTING)

    assert after["resume-billing"] == ("allow-sign-in", "release-environment")


# offboard


def test_a_tenant_goes_step_by_step_with_its_data_and_a_certificate() -> None:
    assert asked(OFFBOARD, OFFBOARDING) == {
        "begin-offboarding": BeginOffboarding(tenant_id=TENANT_ID, reason="They moved on."),
        "block-sign-in": BlockSignIn(tenant_id=TENANT_ID, reason=GONE),
        "throttle-environment": ThrottleEnvironment(tenant_id=TENANT_ID, reason=GONE),
        "export-data": ExportData(tenant_id=TENANT_ID),
        "close-account": CloseAccount(tenant_id=TENANT_ID),
        "remove-environment": RemoveEnvironment(tenant_id=TENANT_ID),
        "purge-users": PurgeUsers(tenant_id=TENANT_ID),
        "purge-account": PurgeAccount(tenant_id=TENANT_ID),
        "purge-metrics": PurgeMetrics(tenant_id=TENANT_ID),
        "archive-tenant": ArchiveTenant(
            tenant_id=TENANT_ID,
            workflow_id=str(WORKFLOW_ID),
            reason="They moved on.",
            deletions=(
                Deletion(service="provisioning", deleted={"environments": 1, "notes": 3}),
                Deletion(service="identity", deleted={"memberships": 2, "users": 1}),
                Deletion(service="billing", deleted={"accounts": 1}),
                Deletion(service="metrics", deleted={"quotas": 1}),
            ),
            export_id="x1",
            export_sha256="ab" * 32,
            invoice_id="i1",
        ),
    }


def test_without_an_export_the_account_is_closed_as_soon_as_everybody_is_locked_out() -> None:
    request = {**EXISTING, "graceDays": 0, "export": False}

    messages = asked(OFFBOARD, request)

    assert "export-data" not in messages
    assert order_of(OFFBOARD, request)["close-account"] == ("block-sign-in", "throttle-environment")
    certificate = messages["archive-tenant"]
    assert isinstance(certificate, ArchiveTenant)
    assert (certificate.export_id, certificate.export_sha256, certificate.reason) == (None, None, None)
    assert certificate.invoice_id == "i1"


def test_nothing_is_deleted_before_everything_that_can_be_taken_back_is_done() -> None:
    after = order_of(OFFBOARD, OFFBOARDING)

    assert after["grace-period"] == ("begin-offboarding",)
    assert (after["block-sign-in"], after["throttle-environment"]) == (("grace-period",), ("grace-period",))
    assert after["export-data"] == ("block-sign-in", "throttle-environment")
    assert (after["close-account"], after["remove-environment"]) == (("export-data",), ("close-account",))
    assert [step.name for step in OFFBOARD.plan if step.pivot] == ["remove-environment"]
    for purge in ("purge-users", "purge-account", "purge-metrics"):
        assert after[purge] == ("remove-environment",)
    assert after["archive-tenant"] == ("purge-users", "purge-account", "purge-metrics")


@pytest.mark.parametrize(
    ("skipped", "service"),
    [
        ("remove-environment", "provisioning"),
        ("purge-users", "identity"),
        ("purge-account", "billing"),
        ("purge-metrics", "metrics"),
    ],
)
def test_the_certificate_vouches_for_no_deletion_that_an_operator_skipped(skipped: str, service: str) -> None:
    certificate = asked(OFFBOARD, OFFBOARDING, unanswered=skipped)["archive-tenant"]

    assert isinstance(certificate, ArchiveTenant)
    assert [each.service for each in certificate.deletions if not each.is_confirmed] == [service]
    assert {each.service: each.deleted for each in certificate.deletions}[service] == {}
    assert len(certificate.deletions) == 4


@pytest.mark.parametrize("days", [0, 1, 30])
def test_the_grace_period_lasts_as_long_as_was_ordered(days: int) -> None:
    plan = {each.name: each for each in OFFBOARD.plan_for({**OFFBOARDING, "graceDays": days})}

    assert (plan["grace-period"].ask, plan["grace-period"].timeout) == (None, days * 86_400)
    assert OFFBOARD.seconds_for({**OFFBOARDING, "graceDays": days}) == OFFBOARD.deadline + days * 86_400
