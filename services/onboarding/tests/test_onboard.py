"""What an onboarding asks of whom, message by message."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest

from services.onboarding.definition import Context
from services.onboarding.onboard import ONBOARD
from services.onboarding.tests.catalogue import FULL, REQUEST, TENANT_ID, answers
from shared.contracts.base import Message
from shared.contracts.billing import OpenAccount
from shared.contracts.identity import CreateAdministrators
from shared.contracts.metrics import TrackTenant
from shared.contracts.provisioning import ProvisionEnvironment
from shared.contracts.tenant import ActivateTenant, ProductVersion, RegisterTenant

NOTES_2 = ProductVersion(name="notes", version="2.0")


def asked(request: Mapping[str, Any]) -> dict[str, Message]:
    """Return what each step asks, with what the tenant service answered."""
    results = {name: fact.model_dump(mode="json") for name, fact in answers().items()}
    context = Context(TENANT_ID, request, results)
    return {step.name: ONBOARD.message(step.name, step.ask, context) for step in ONBOARD.plan}


def test_everything_that_is_ordered_reaches_whom_it_concerns() -> None:
    assert asked(FULL) == {
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
            tenant_id=TENANT_ID, customer_name="Café 東京", emails=("ada@example.com", "bea@example.com")
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
            tenant_id=TENANT_ID, isolation="pool", region="eu-central", products=(NOTES_2,)
        ),
        "activate-tenant": ActivateTenant(tenant_id=TENANT_ID),
    }


def test_what_is_not_ordered_is_left_to_whom_it_concerns() -> None:
    assert asked(REQUEST) == {
        "register-tenant": RegisterTenant(
            tenant_id=TENANT_ID, customer_name="Acme", tier="standard", email="ada@example.com"
        ),
        "create-administrators": CreateAdministrators(
            tenant_id=TENANT_ID, customer_name="Acme", emails=("ada@example.com",)
        ),
        "open-account": OpenAccount(tenant_id=TENANT_ID, customer_name="Acme", plan="standard"),
        "track-tenant": TrackTenant(tenant_id=TENANT_ID, quotas={"seats": 25}),
        "provision-environment": ProvisionEnvironment(tenant_id=TENANT_ID, isolation="pool"),
        "activate-tenant": ActivateTenant(tenant_id=TENANT_ID),
    }


@pytest.mark.parametrize("step", ONBOARD.steps.values(), ids=lambda step: step.name)
def test_every_ask_is_of_the_type_that_its_undo_takes_back(step: Any) -> None:
    assert type(asked(FULL)[step.name]) is step.does
    assert step.undo.owner == step.does.owner


def test_billing_metrics_and_provisioning_are_told_what_the_tier_means_not_its_name() -> None:
    for name in ("open-account", "track-tenant", "provision-environment"):
        assert "tier" not in asked(FULL)[name].model_dump()
