from datetime import timedelta

import pytest
from pydantic import ValidationError

from services.provisioning.drivers.aws import PoolTerms
from services.provisioning.mail import Limits
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
    assert ":secret@" not in repr(ProvisioningSettings())


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_without_any_word_of_them_there_are_no_other_drivers_and_no_other_migrations() -> None:
    settings = ProvisioningSettings()

    assert (settings.script, settings.webhook_url, settings.application_migrations) == (None, None, ())


def test_lists_are_split_and_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_PROVISIONING_SCRIPT_PASS", "CLOUD_TOKEN, TF_VAR_size")
    monkeypatch.setenv("TENURE_APPLICATION_MIGRATIONS", "/srv/app/migrations:/srv/more/migrations")
    settings = ProvisioningSettings()
    assert settings.script_pass == ("CLOUD_TOKEN", "TF_VAR_size")
    assert [str(folder) for folder in settings.application_migrations] == [
        "/srv/app/migrations",
        "/srv/more/migrations",
    ]

    monkeypatch.setenv("TENURE_PROVISIONING_SCRIPT_PASS", "")
    assert ProvisioningSettings().script_pass == ()


@pytest.mark.parametrize(
    ("url", "secrets", "complaint"),
    [
        ("https://builder.example.com/tenure", None, "WEBHOOK_SECRETS"),
        ("https://builder.example.com/tenure", "not a key", "key"),
        ("http://builder.example.com/tenure", SECRET, "http"),
        ("builder", SECRET, "webhook"),
    ],
)
def test_a_webhook_that_could_not_be_used_is_refused_at_the_start_and_no_secret_is_shown(
    monkeypatch: pytest.MonkeyPatch, url: str, secrets: str | None, complaint: str
) -> None:
    monkeypatch.setenv("TENURE_PROVISIONING_WEBHOOK_URL", url)
    if secrets is not None:
        monkeypatch.setenv("TENURE_PROVISIONING_WEBHOOK_SECRETS", secrets)

    with pytest.raises(ValidationError, match=f"(?i){complaint}") as refused:
        ProvisioningSettings()
    assert SECRET not in str(refused.value)


def test_a_webhook_off_this_machine_may_be_plain_where_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_PROVISIONING_WEBHOOK_URL", "http://builder.example.com/tenure")
    monkeypatch.setenv("TENURE_PROVISIONING_WEBHOOK_SECRETS", SECRET)
    monkeypatch.setenv("TENURE_PROVISIONING_WEBHOOK_PLAIN", "true")

    assert ProvisioningSettings().webhook_plain


POOL = {
    "AWS_REGION": "eu-central-1",
    "AWS_POOL_TABLE": "tenants",
    "AWS_POOL_BUCKET": "tenants",
    "AWS_POOL_ROLE_ARN": "arn:aws:iam::123456789012:role/tenant",
}
SILO = {
    "AWS_REGION": "eu-central-1",
    "AWS_MANAGEMENT_ROLE_ARN": "arn:aws:iam::123456789012:role/tenure",
    "AWS_MAIL_PREFIX": "aws",
    "AWS_MAIL_DOMAIN": "example.com",
    "AWS_ORGANIZATIONAL_UNIT_ID": "ou-abcd-12345678",
    "AWS_TOPIC_ARN": "arn:aws:sns:eu-central-1:123456789012:mail",
}


def told(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> ProvisioningSettings:
    for name, value in settings.items():
        monkeypatch.setenv(f"TENURE_PROVISIONING_{name}", value)
    return ProvisioningSettings()


def test_without_a_region_there_is_nothing_at_amazon() -> None:
    assert ProvisioningSettings().aws_terms() is None


def test_a_pool_at_amazon_needs_no_silos_and_silos_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        terms = told(patch, POOL).aws_terms()
        assert terms is not None
        assert (terms.region, terms.silo) == ("eu-central-1", None)
        assert terms.pool == PoolTerms(table="tenants", bucket="tenants", role_arn=POOL["AWS_POOL_ROLE_ARN"])
    terms = told(monkeypatch, SILO).aws_terms()
    assert terms is not None
    assert terms.pool is None
    assert terms.silo is not None
    assert (terms.silo.mail_prefix, terms.silo.network) == ("aws", "10.0.0.0/16")


@pytest.mark.parametrize("settings", [POOL, SILO], ids=["pool", "silo"])
def test_what_is_missing_at_amazon_is_named(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name in settings:
        with monkeypatch.context() as patch, pytest.raises(ValidationError, match=f"TENURE_PROVISIONING_{name}"):
            told(patch, {other: value for other, value in settings.items() if other != name})
    with pytest.raises(ValidationError, match="TENURE_PROVISIONING_AWS_REGION"):
        told(monkeypatch, {"AWS_REGION": "eu-central-1"})


QUEUE = {"AWS_MAIL_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/mail"}


def test_what_may_come_of_mails_lies_between_where_amazon_looks_and_where_it_acts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ProvisioningSettings().aws_mail_queue_url is None
    limits = told(monkeypatch, SILO | QUEUE).mail_limits()
    assert (limits.hours, limits.least_sends) == (24, 500)
    assert 5 < limits.bounces < 10
    assert 0.1 < limits.complaints < 0.5

    others = {"MAIL_HOURS": "12", "MAIL_BOUNCE_LIMIT": "2.5", "MAIL_COMPLAINT_LIMIT": "0.1", "MAIL_LEAST_SENDS": "50"}
    settings = told(monkeypatch, {f"AWS_{name}": value for name, value in others.items()})
    expected = Limits(window=timedelta(hours=12), bounces=2.5, complaints=0.1, least_sends=50)
    assert settings.mail_limits() == expected


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (POOL | QUEUE, "AWS_TOPIC_ARN"),
        (SILO | {"AWS_MAIL_QUEUE_URL": "mail"}, "aws_mail_queue_url"),
        (SILO | QUEUE | {"AWS_MAIL_HOURS": "0"}, "aws_mail_hours"),
        (SILO | QUEUE | {"AWS_MAIL_BOUNCE_LIMIT": "0"}, "aws_mail_bounce_limit"),
        (SILO | QUEUE | {"AWS_MAIL_COMPLAINT_LIMIT": "101"}, "aws_mail_complaint_limit"),
    ],
)
def test_a_queue_that_nothing_could_be_made_of_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        told(monkeypatch, settings)
