"""The jobs of the Compose stack hand each container its own secrets, once and for good."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.compose import key, secrets
from deploy.compose.volumes import DEFINITIONS, OPERATOR, POSTGRES, POSTGRES_PASSWORD, RABBITMQ, put
from deploy.topology import DEPLOY
from services.billing.settings import BillingSettings
from shared.contracts import SERVICES


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty volumes, as the engine makes them."""
    monkeypatch.delenv("TENURE_ADMIN_KEY", raising=False)
    for name in (OPERATOR, POSTGRES, RABBITMQ):
        (tmp_path / name).mkdir()
    return tmp_path


def contents(root: Path) -> Mapping[str, str]:
    """Return what each file holds that says nothing else each time it is written."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != DEFINITIONS)
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}


def test_secrets_are_made_once(root: Path) -> None:
    assert secrets.main(root) == 0
    made = contents(root)

    assert secrets.main(root) == 0

    assert contents(root) == made
    assert made.keys() == {"operator/secrets.json", "operator/admin-key", "postgres/password"}
    assert len(set(made.values())) == len(made)


def test_the_key_is_shown_to_whoever_asks_and_to_nobody_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secrets.main(root)
    said = capsys.readouterr().out

    key.main(root)

    shown = capsys.readouterr().out.strip()
    assert shown == (root / OPERATOR / "admin-key").read_text(encoding="ascii")
    assert shown not in said


def test_a_given_key_takes_the_place_of_the_made_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENURE_ADMIN_KEY", "given")

    secrets.main(root)

    assert (root / OPERATOR / "admin-key").read_text(encoding="ascii") == "given"


def test_the_broker_is_told_of_every_login_and_one_of_them_may_tell_it_more(root: Path) -> None:
    secrets.main(root)

    users = json.loads((root / RABBITMQ / DEFINITIONS).read_text(encoding="utf-8"))["users"]

    assert {user["name"]: user["tags"] for user in users} == {
        **dict.fromkeys([*SERVICES, "watcher"], ""),
        DEPLOY: "administrator",
    }


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    put(tmp_path, POSTGRES_PASSWORD, "first")
    with (tmp_path / POSTGRES_PASSWORD).open(encoding="utf-8") as open_before:
        put(tmp_path, POSTGRES_PASSWORD, "second")
        assert open_before.read() == "first"

    assert (tmp_path / POSTGRES_PASSWORD).read_text(encoding="utf-8") == "second"
    assert [path.name for path in tmp_path.iterdir()] == [POSTGRES_PASSWORD]


def test_a_service_reads_its_secrets_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TENURE_"):
            monkeypatch.delenv(name)
    given = {"DATABASE_URL": "postgresql://billing@db/billing", "AMQP_URL": "amqp://billing@broker/"}
    for name, value in given.items():
        put(tmp_path, f"TENURE_BILLING_{name}", value)
    put(tmp_path, "TENURE_ADMIN_KEY", "a-key")

    settings = BillingSettings(_secrets_dir=tmp_path)

    assert settings.database_url.get_secret_value() == given["DATABASE_URL"]
    assert settings.broker_url == given["AMQP_URL"]
    assert settings.admin_key.get_secret_value() == "a-key"
