from datetime import timedelta
from ipaddress import ip_network

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError

from services.identity.providers.cognito.terms import CognitoTerms, UserPool
from services.identity.settings import IdentitySettings

COGNITO = {
    "TENURE_IDENTITY_COGNITO_REGION": "eu-west-1",
    "TENURE_IDENTITY_COGNITO_POOL_ID": "eu-west-1_AbCdEf",
    "TENURE_IDENTITY_COGNITO_CLIENT_ID": "1234abcd",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_IDENTITY_DATABASE_URL", "postgresql://identity@127.0.0.1/identity")
    monkeypatch.setenv("TENURE_AMQP_URL", "amqp://127.0.0.1/")
    monkeypatch.setenv("TENURE_ADMIN_KEY", "key")
    monkeypatch.setenv("TENURE_IDENTITY_ENCRYPTION_KEYS", Fernet.generate_key().decode())
    monkeypatch.delenv("TENURE_IDENTITY_INVITATION_DAYS", raising=False)


def test_an_invitation_is_good_for_a_week_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert IdentitySettings().invitation_lifetime == timedelta(days=7)

    monkeypatch.setenv("TENURE_IDENTITY_INVITATION_DAYS", "2")
    assert IdentitySettings().invitation_lifetime == timedelta(days=2)


@pytest.mark.parametrize("days", ["0", "366", "a week"])
def test_an_unreasonable_lifetime_is_refused(monkeypatch: pytest.MonkeyPatch, days: str) -> None:
    monkeypatch.setenv("TENURE_IDENTITY_INVITATION_DAYS", days)

    with pytest.raises(ValidationError, match="invitation_days"):
        IdentitySettings()


def test_mails_are_shown_in_the_log_unless_there_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert IdentitySettings().mail_terms.server_url is None

    monkeypatch.setenv("TENURE_SMTP_URL", "smtp://user:secret@mail.example.org")
    monkeypatch.setenv("TENURE_MAIL_FROM", "Tenure <no-reply@example.org>")
    settings = IdentitySettings()
    assert settings.mail_terms.sender == "Tenure <no-reply@example.org>"
    assert "secret" not in repr(settings)


def test_keys_are_encrypted_with_the_first_secret_and_decrypted_with_any(monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    monkeypatch.setenv("TENURE_IDENTITY_ENCRYPTION_KEYS", f"{newer},{older}")

    vault = IdentitySettings().vault

    assert vault.decrypt(Fernet(older).encrypt(b"kept")) == b"kept"
    assert Fernet(newer).decrypt(vault.encrypt(b"new")) == b"new"


def test_the_origin_is_a_url_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_ISSUER", "https://tenure.example.org/")

    with pytest.raises(ValidationError, match="TENURE_ISSUER"):
        IdentitySettings()


def test_people_are_in_our_own_database_unless_told_otherwise() -> None:
    settings = IdentitySettings()

    assert settings.provider == "built-in"
    assert settings.cognito_terms is None
    assert settings.networks_of_providers == ()


def test_cognito_may_be_used_with_a_shared_pool_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_IDENTITY_COGNITO_REGION", "eu-west-1")
    assert IdentitySettings().cognito_terms == CognitoTerms("eu-west-1")

    set_all(monkeypatch, **COGNITO, TENURE_IDENTITY_PROVIDER="cognito")
    assert IdentitySettings().provider == "cognito"
    assert IdentitySettings().cognito_terms == CognitoTerms("eu-west-1", UserPool("eu-west-1_AbCdEf", "1234abcd"))


def test_cognito_may_be_somewhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        TENURE_IDENTITY_COGNITO_REGION="eu-west-1",
        TENURE_IDENTITY_COGNITO_ENDPOINT_URL="http://127.0.0.1:5000",
        TENURE_IDENTITY_COGNITO_KEYS_URL="http://127.0.0.1:5000/{pool_id}/keys",
    )

    assert IdentitySettings().cognito_terms == CognitoTerms(
        "eu-west-1", endpoint_url="http://127.0.0.1:5000", keys_url="http://127.0.0.1:5000/{pool_id}/keys"
    )


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"TENURE_IDENTITY_PROVIDER": "cognito"}, "TENURE_IDENTITY_COGNITO_REGION"),
        ({"TENURE_IDENTITY_PROVIDER": "cognito"}, "TENURE_IDENTITY_COGNITO_POOL_ID"),
        ({"TENURE_IDENTITY_PROVIDER": "auth0"}, "provider"),
        (
            {"TENURE_IDENTITY_PROVIDER": "cognito", "TENURE_IDENTITY_COGNITO_REGION": "eu-west-1"},
            "TENURE_IDENTITY_COGNITO_POOL_ID",
        ),
        ({**COGNITO, "TENURE_IDENTITY_COGNITO_REGION": None}, "POOL_ID needs TENURE_IDENTITY_COGNITO_REGION"),
        ({**COGNITO, "TENURE_IDENTITY_COGNITO_REGION": "eu-west-2"}, "TENURE_IDENTITY_COGNITO_POOL_ID is of a pool in"),
        ({**COGNITO, "TENURE_IDENTITY_COGNITO_CLIENT_ID": None}, "TENURE_IDENTITY_COGNITO_CLIENT_ID, or neither"),
        ({**COGNITO, "TENURE_IDENTITY_COGNITO_POOL_ID": None}, "TENURE_IDENTITY_COGNITO_CLIENT_ID, or neither"),
        (
            {"TENURE_IDENTITY_COGNITO_ENDPOINT_URL": "http://127.0.0.1"},
            "TENURE_IDENTITY_COGNITO_ENDPOINT_URL needs TENURE_IDENTITY_COGNITO_REGION",
        ),
        ({**COGNITO, "TENURE_IDENTITY_COGNITO_KEYS_URL": "http://127.0.0.1/keys"}, "COGNITO_KEYS_URL must contain"),
        ({**COGNITO, "TENURE_IDENTITY_COGNITO_ENDPOINT_URL": "127.0.0.1"}, "cognito_endpoint_url"),
        ({"TENURE_IDENTITY_COGNITO_REGION": "Ireland"}, "cognito_region"),
    ],
)
def test_what_does_not_fit_together_about_cognito_is_refused(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str | None], named: str
) -> None:
    set_all(monkeypatch, **told)

    with pytest.raises(ValidationError, match=named):
        IdentitySettings()


def test_providers_may_be_in_networks_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_IDENTITY_PROVIDER_NETWORKS", "10.0.0.0/8, fd00::/8,")

    assert IdentitySettings().networks_of_providers == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize("networks", ["10.0.0.1/8", "everywhere", "10.0.0.0/8;127.0.0.0/8"])
def test_what_is_no_network_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, networks: str) -> None:
    monkeypatch.setenv("TENURE_IDENTITY_PROVIDER_NETWORKS", networks)

    with pytest.raises(ValidationError, match="TENURE_IDENTITY_PROVIDER_NETWORKS must be networks like"):
        IdentitySettings()


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str | None) -> None:
    for name, value in variables.items():
        if value is not None:
            monkeypatch.setenv(name, value)
