from pathlib import Path

import pytest

from deploy.operator import MissingLoginsError, broker_url, data_folder, database_urls, keep_logins
from shared.contracts import SERVICES

DATABASES = {f"TENURE_{name.upper()}_DATABASE_URL": f"postgresql://{name}" for name in (*SERVICES, "application")}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder, and nothing told by the environment of this machine."""
    for name in (*DATABASES, *(f"TENURE_{service.upper()}_AMQP_URL" for service in SERVICES), "TENURE_AMQP_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TENURE_DATA_DIR", str(tmp_path))
    return tmp_path


def test_the_logins_of_a_running_installation_are_found_in_its_folder(folder: Path) -> None:
    keep_logins(folder, DATABASES | {"TENURE_BILLING_AMQP_URL": "amqp://billing:a=b@host/"})
    assert database_urls() == {name: f"postgresql://{name}" for name in (*SERVICES, "application")}
    assert broker_url("billing") == "amqp://billing:a=b@host/"


def test_the_kept_logins_are_for_their_owner_alone(folder: Path) -> None:
    keep_logins(folder, DATABASES)
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


def test_the_environment_wins_over_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_logins(folder, DATABASES | {"TENURE_BILLING_AMQP_URL": "amqp://kept/"})
    monkeypatch.setenv("TENURE_BILLING_AMQP_URL", "amqp://given/")
    monkeypatch.setenv("TENURE_TENANT_DATABASE_URL", "postgresql://given")
    assert broker_url("billing") == "amqp://given/"
    assert database_urls()["tenant"] == "postgresql://given"


def test_one_broker_login_for_all_serves_whoever_has_none_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_AMQP_URL", "amqp://all/")
    monkeypatch.setenv("TENURE_BILLING_AMQP_URL", "amqp://billing/")
    assert (broker_url("tenant"), broker_url("billing")) == ("amqp://all/", "amqp://billing/")


def test_whoever_told_nothing_is_told_what_to_set() -> None:
    with pytest.raises(MissingLoginsError, match="TENURE_BILLING_AMQP_URL or TENURE_AMQP_URL"):
        broker_url("billing")
    with pytest.raises(MissingLoginsError, match="TENURE_DATA_DIR"):
        database_urls()


def test_the_data_folder_is_here_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENURE_DATA_DIR")
    assert data_folder() == Path(".tenure")
