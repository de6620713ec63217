from pathlib import Path

import pytest

from deploy.databases import APPLICATION
from deploy.local.secrets import keep_admin_key, load_or_create
from shared.contracts import SERVICES


@pytest.fixture(autouse=True)
def no_key_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENURE_ADMIN_KEY", raising=False)


def test_secrets_are_made_once_and_found_again(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "data") == load_or_create(tmp_path / "data")


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    first, second = load_or_create(tmp_path / "a"), load_or_create(tmp_path / "b")
    assert first.admin_key != second.admin_key
    assert first.databases["billing"].app != second.databases["billing"].app


def test_every_login_has_its_own_password(tmp_path: Path) -> None:
    secrets = load_or_create(tmp_path)
    databases = [password for pair in secrets.databases.values() for password in (pair.owner, pair.app)]
    everything = [*databases, *secrets.broker.values(), secrets.broker_deploy, secrets.admin_key]
    assert set(secrets.databases) == {*SERVICES, APPLICATION}
    assert set(secrets.broker) == set(SERVICES)
    assert len(set(everything)) == len(everything)
    assert min(map(len, everything)) >= 43  # 32 random bytes
    assert secrets.admin_key.startswith("tenure_admin_")


def test_nobody_else_can_read_the_file_or_list_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    load_or_create(folder)
    assert (folder / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o066 == 0
    assert [path.name for path in folder.iterdir()] == ["secrets.json"]


def test_secrets_are_not_shown_when_printed(tmp_path: Path) -> None:
    secrets = load_or_create(tmp_path)
    assert secrets.admin_key not in repr(secrets)
    assert secrets.broker["billing"] not in str(secrets)


def test_a_key_from_the_environment_wins_and_is_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = load_or_create(tmp_path)
    monkeypatch.setenv("TENURE_ADMIN_KEY", "given")
    assert load_or_create(tmp_path).admin_key == "given"
    assert "given" not in (tmp_path / "secrets.json").read_text()
    monkeypatch.delenv("TENURE_ADMIN_KEY")
    assert load_or_create(tmp_path) == kept


def test_the_key_is_shown_once_and_again_only_when_it_has_changed(tmp_path: Path) -> None:
    kept = keep_admin_key(tmp_path, "first")
    assert kept is not None
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("first", 0o600)
    assert keep_admin_key(tmp_path, "first") is None
    assert keep_admin_key(tmp_path, "second") == kept
    assert kept.read_text() == "second"
