from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from shared.settings import ServiceSettings, settings_of

OWN = {
    "TENURE_BILLING_DATABASE_URL": "postgresql://billing:pw@db/billing",
    "TENURE_BILLING_AMQP_URL": "amqp://billing:pw@broker/",
    "TENURE_ADMIN_KEY": "key",
}


class BillingSettings(ServiceSettings):
    model_config = settings_of("billing")

    grace_days: int = 7


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OWN, "TENURE_AMQP_URL", "TENURE_LOG_FORMAT", "TENURE_LOG_LEVEL", "TENURE_BILLING_PORT"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_services_variables_begin_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN | {"TENURE_BILLING_PORT": "9000", "TENURE_BILLING_GRACE_DAYS": "3"})

    settings = BillingSettings()

    assert settings.database_url.get_secret_value() == "postgresql://billing:pw@db/billing"
    assert (settings.port, settings.grace_days) == (9000, 3)


def test_another_services_variables_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN | {"TENURE_TENANT_PORT": "9000"})

    assert BillingSettings().port == 8080


def test_some_variables_are_common_to_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN | {"TENURE_LOG_LEVEL": "debug", "TENURE_LOG_FORMAT": "console"})

    settings = BillingSettings()

    assert (settings.log_level, settings.log_format) == ("debug", "console")
    assert settings.admin_key.get_secret_value() == "key"


def test_a_services_own_login_to_the_broker_comes_before_the_common_one(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN | {"TENURE_AMQP_URL": "amqp://all:pw@broker/"})
    assert BillingSettings().broker_url == "amqp://billing:pw@broker/"

    monkeypatch.delenv("TENURE_BILLING_AMQP_URL")
    assert BillingSettings().broker_url == "amqp://all:pw@broker/"


def test_without_any_broker_the_missing_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN)
    monkeypatch.delenv("TENURE_BILLING_AMQP_URL")

    with pytest.raises(ValidationError, match=r"TENURE_BILLING_AMQP_URL .* or TENURE_AMQP_URL"):
        BillingSettings()


@pytest.mark.parametrize("missing", ["TENURE_BILLING_DATABASE_URL", "TENURE_ADMIN_KEY"])
def test_a_setting_that_has_no_default_must_be_given(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    set_all(monkeypatch, OWN)
    monkeypatch.delenv(missing)

    with pytest.raises(ValidationError):
        BillingSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "65536"), ("PORT", "-1"), ("POOL_SIZE", "1"), ("POOL_SIZE", "101"), ("SHUTDOWN_SECONDS", "0")],
)
def test_a_number_out_of_its_bounds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    set_all(monkeypatch, OWN | {f"TENURE_BILLING_{name}": value})

    with pytest.raises(ValidationError, match=name.lower()):
        BillingSettings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN)

    assert "pw" not in repr(BillingSettings())
    assert "'key'" not in repr(BillingSettings())


def test_settings_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN)

    with pytest.raises(ValidationError, match="frozen"):
        BillingSettings().port = 1


def test_settings_come_from_given_variables_before_the_process_own(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN | {"TENURE_BILLING_PORT": "9000"})

    settings = BillingSettings.from_environment(
        {
            "TENURE_BILLING_PORT": "9100",
            "TENURE_ADMIN_KEY": "another",
            "TENURE_LOG_LEVEL": "error",
            "TENURE_BILLING_GRACE_DAYS": "1",
            "TENURE_TENANT_PORT": "1",
        }
    )

    assert (settings.port, settings.grace_days, settings.log_level) == (9100, 1, "error")
    assert settings.admin_key.get_secret_value() == "another"
    assert settings.broker_url == "amqp://billing:pw@broker/"


def test_variables_that_are_not_ours_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OWN | {"LOG_LEVEL": "TRACE", "LOG_FORMAT": "xml", "AMQP_URL": "amqp://x/", "ADMIN_KEY": "x"})

    settings = BillingSettings()

    assert (settings.log_level, settings.log_format) == ("info", "json")
    assert settings.common_amqp_url is None
    assert settings.admin_key.get_secret_value() == "key"
