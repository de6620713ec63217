"""What a principal says about what it may see."""

import pytest

from shared.access import ADMINISTRATOR, EVERYTHING, Principal, Role
from shared.access.principal import NO_TENANT
from shared.contracts.base import INSTALLATION


@pytest.mark.parametrize("role", [Role.TENANT_ADMIN, Role.TENANT_USER])
def test_a_member_without_a_tenant_is_nobody(role: Role) -> None:
    """It would see all tenants."""
    with pytest.raises(ValueError, match="belongs to a tenant"):
        Principal(id="ada", role=role)


def test_a_system_administrator_is_bound_to_no_tenant() -> None:
    with pytest.raises(ValueError, match="belongs to no tenant"):
        Principal(id="root", role=Role.SYSTEM_ADMIN, tenant_id="t1")


@pytest.mark.parametrize("role", [Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN, Role.TENANT_USER])
@pytest.mark.parametrize("tenant_id", [INSTALLATION, NO_TENANT])
def test_what_stands_for_no_tenant_is_nobodys(role: Role, tenant_id: str) -> None:
    """Its rows are the operators' own."""
    with pytest.raises(ValueError, match="stands for no tenant"):
        Principal(id="ada", role=role, tenant_id=tenant_id)


@pytest.mark.parametrize(
    ("role", "tenant_id", "acts_as"),
    [
        (Role.SYSTEM_ADMIN, None, Role.SYSTEM_ADMIN),
        (Role.CUSTOMER_SUPPORT, None, Role.CUSTOMER_SUPPORT),
        (Role.CUSTOMER_SUPPORT, "t1", Role.TENANT_ADMIN),
        (Role.TENANT_ADMIN, "t1", Role.TENANT_ADMIN),
        (Role.TENANT_USER, "t1", Role.TENANT_USER),
    ],
)
def test_only_support_in_a_tenant_acts_as_somebody_else(role: Role, tenant_id: str | None, acts_as: Role) -> None:
    assert Principal(id="ada", role=role, tenant_id=tenant_id).acts_as is acts_as


@pytest.mark.parametrize("role", [Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN, Role.TENANT_USER])
def test_who_is_bound_to_a_tenant_reaches_that_one_alone(role: Role) -> None:
    principal = Principal(id="ada", role=role, tenant_id="t1")

    for other in ("t2", "t", "t11", "T1", " t1", NO_TENANT, INSTALLATION):
        assert not principal.reaches(other)
        assert principal.narrowed(other) == NO_TENANT
    assert principal.reaches("t1")
    assert principal.narrowed("t1") == "t1"
    assert principal.narrowed(None) == "t1"


@pytest.mark.parametrize("role", [Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT])
def test_operators_reach_every_tenant(role: Role) -> None:
    principal = Principal(id="bob", role=role)

    assert principal.reaches("t1")
    assert (principal.narrowed("t1"), principal.narrowed(None)) == ("t1", None)


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        (EVERYTHING, {("read", "usage"), ("write", "usage"), ("read", "invoices"), ("write", "invoices")}),
        ({"read"}, {("read", "usage"), ("read", "invoices")}),
        ({"usage:write"}, {("write", "usage")}),
        ({"usage:write", "read"}, {("write", "usage"), ("read", "usage"), ("read", "invoices")}),
        ({"usage"}, set()),
        ({"usage:"}, set()),
        ({""}, set()),
        (set(), set()),
    ],
)
def test_scopes_grant_what_they_name(scopes: set[str], granted: set[tuple[str, str]]) -> None:
    principal = Principal(id="ada", role=Role.TENANT_ADMIN, tenant_id="t1", scopes=frozenset(scopes))

    everything = {(action, resource) for action in ("read", "write") for resource in ("usage", "invoices")}
    assert {each for each in everything if principal.is_granted(*each)} == granted


def test_the_holder_of_the_installations_key_may_do_everything() -> None:
    assert (ADMINISTRATOR.acts_as, ADMINISTRATOR.tenant_id) == (Role.SYSTEM_ADMIN, None)
    assert ADMINISTRATOR.id == "system-administrator"
    assert ADMINISTRATOR.is_granted("write", "anything")
