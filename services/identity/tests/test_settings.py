from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError

from services.identity.settings import IdentitySettings


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
