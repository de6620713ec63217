import pytest
from pydantic import ValidationError

from services.tenant.settings import TenantSettings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_TENANT_DATABASE_URL", "postgresql://tenant@127.0.0.1/tenant")
    monkeypatch.setenv("TENURE_AMQP_URL", "amqp://127.0.0.1/")
    monkeypatch.setenv("TENURE_ADMIN_KEY", "key")
    monkeypatch.delenv("TENURE_POOL_GATEWAY_URL", raising=False)


def test_pooled_tenants_answer_at_the_one_origin_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TenantSettings().gateway_url == "http://127.0.0.1:8080"

    monkeypatch.setenv("TENURE_POOL_GATEWAY_URL", "https://app.example.com/")
    assert TenantSettings().gateway_url == "https://app.example.com"


@pytest.mark.parametrize("url", ["app.example.com", "ftp://app.example.com", ""])
def test_an_address_that_no_browser_opens_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TENURE_POOL_GATEWAY_URL", url)

    with pytest.raises(ValidationError, match="POOL_GATEWAY_URL"):
        TenantSettings()
