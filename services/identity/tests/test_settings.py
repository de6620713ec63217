from datetime import timedelta

import pytest
from pydantic import ValidationError

from services.identity.settings import IdentitySettings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_IDENTITY_DATABASE_URL", "postgresql://identity@127.0.0.1/identity")
    monkeypatch.setenv("TENURE_AMQP_URL", "amqp://127.0.0.1/")
    monkeypatch.setenv("TENURE_ADMIN_KEY", "key")
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
