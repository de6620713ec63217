import pytest
from pydantic import ValidationError

from services.provisioning.settings import ProvisioningSettings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_PROVISIONING_DATABASE_URL", "postgresql://provisioning@127.0.0.1/provisioning")
    monkeypatch.setenv("TENURE_APPLICATION_DATABASE_URL", "postgresql://owner:secret@127.0.0.1/application")
    monkeypatch.setenv("TENURE_AMQP_URL", "amqp://127.0.0.1/")
    monkeypatch.setenv("TENURE_ADMIN_KEY", "key")
    monkeypatch.delenv("TENURE_REGIONS", raising=False)


def test_the_first_region_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ProvisioningSettings().regions == ("local", "eu-central", "us-east")

    monkeypatch.setenv("TENURE_REGIONS", "moon, mars")
    assert ProvisioningSettings().regions == ("moon", "mars")


@pytest.mark.parametrize("regions", ["", "moon,", "The Moon"])
def test_a_region_that_nobody_could_name_is_refused(monkeypatch: pytest.MonkeyPatch, regions: str) -> None:
    monkeypatch.setenv("TENURE_REGIONS", regions)

    with pytest.raises(ValidationError, match="TENURE_REGIONS"):
        ProvisioningSettings()


def test_an_export_lasts_thirty_days_unless_something_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ProvisioningSettings().export_lifetime_days == 30

    monkeypatch.setenv("TENURE_PROVISIONING_EXPORT_LIFETIME_DAYS", "7")
    assert ProvisioningSettings().export_lifetime_days == 7

    monkeypatch.setenv("TENURE_PROVISIONING_EXPORT_LIFETIME_DAYS", "0")
    with pytest.raises(ValidationError, match="export_lifetime_days"):
        ProvisioningSettings()


def test_without_an_application_database_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENURE_APPLICATION_DATABASE_URL")

    with pytest.raises(ValidationError, match="TENURE_APPLICATION_DATABASE_URL"):
        ProvisioningSettings()


def test_the_owners_password_is_not_shown() -> None:
    assert "secret" not in repr(ProvisioningSettings())
