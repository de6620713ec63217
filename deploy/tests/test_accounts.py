import os
from pathlib import Path

import pytest

from deploy.local import accounts
from deploy.local.accounts import Account, reachable, reachable_copy, reachable_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs programs as somebody else")

STRANGER = Account(name="stranger", user=54321, group=54321)


@pytest.fixture
def closed(folder: Path) -> Path:
    """A folder like root's home, which nobody else may enter."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    return home


@pytest.fixture(autouse=True)
def shared_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(accounts, "_SHARED_FOLDER", folder / "shared")
    return folder / "shared"


def test_a_folder_that_can_be_reached_is_used(folder: Path) -> None:
    assert reachable_folder(folder / "data", STRANGER) == folder / "data"


def test_a_folder_below_a_closed_one_is_replaced_always_by_the_same(closed: Path, shared_folder: Path) -> None:
    instead = reachable_folder(closed / "data", STRANGER)
    assert instead.parent == shared_folder
    assert reachable_folder(closed / "data", STRANGER) == instead
    assert reachable_folder(closed / "other", STRANGER) != instead
    assert closed.stat().st_mode & 0o777 == 0o700


def test_programs_below_a_closed_folder_are_copied_once(closed: Path) -> None:
    program = closed / "packages" / "programs" / "run"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    copy = reachable_copy(closed / "packages", ["programs"], STRANGER, version="1")
    assert reachable(copy / "programs" / "run", STRANGER)
    assert (copy / "programs" / "run").stat().st_mode & 0o777 == 0o755
    program.unlink()
    assert reachable_copy(closed / "packages", ["programs"], STRANGER, version="1") == copy


def test_programs_that_can_be_reached_are_not_copied(folder: Path) -> None:
    (folder / "programs").mkdir()
    assert reachable_copy(folder, ["programs"], STRANGER, version="1") == folder
