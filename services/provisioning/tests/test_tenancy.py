"""What sets environments apart, whichever tenants and products there are."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provisioning.drivers import Environment, parts_of, tenancy_of

TENANTS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
PRODUCTS = st.none() | st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


def environment(tenant_id: str, product: str | None) -> Environment:
    return Environment(environment_id=uuid4(), tenant_id=tenant_id, product=product, isolation="pool", region="local")


@given(TENANTS, PRODUCTS)
def test_an_environment_tells_whose_it_is_and_for_which_product(tenant_id: str, product: str | None) -> None:
    tenancy = tenancy_of(tenant_id, product)

    assert parts_of(tenancy) == (tenant_id, product)
    assert environment(tenancy, product).owner == tenant_id


def test_a_tenants_own_environment_goes_by_the_tenants_id() -> None:
    assert tenancy_of("acme", None) == "acme"
    assert tenancy_of("acme", "notes") == "acme:notes"


@pytest.mark.parametrize(("tenant_id", "product"), [("a:b", None), ("a:b", "c"), ("a", "")])
def test_what_could_be_another_ones_is_no_name(tenant_id: str, product: str | None) -> None:
    with pytest.raises(ValueError, match=r"colon|name"):
        tenancy_of(tenant_id, product)


@pytest.mark.parametrize(("tenant_id", "product"), [("a", "b"), ("a:b", None), ("a:b", "c")])
def test_an_environment_is_of_the_product_that_it_is_named_after(tenant_id: str, product: str | None) -> None:
    with pytest.raises(ValueError, match="no environment of product"):
        environment(tenant_id, product)
