"""All tests in two processes: none is left out, and one that fails is told."""

import tomllib
from pathlib import Path

import pytest

from tests.everything.__main__ import HALVES, passed

ROOT = Path(__file__).resolve().parents[2]


def test_every_folder_with_tests_is_in_one_half() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert sorted(folder for half in HALVES for folder in half) == sorted(
        settings["tool"]["pytest"]["ini_options"]["testpaths"]
    )


@pytest.mark.parametrize(("second", "all_pass"), [("True", True), ("False", False)])
async def test_all_pass_or_it_says_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: str, *, all_pass: bool
) -> None:
    for number, outcome in enumerate(("True", second)):
        (tmp_path / f"part{number}").mkdir()
        (tmp_path / f"part{number}" / f"test_{number}.py").write_text(f"def test_it():\n    assert {outcome}\n")

    assert await passed([[str(tmp_path / "part0")], [str(tmp_path / "part1")]]) is all_pass

    said = capsys.readouterr().out
    assert said.count("1 passed") == (2 if all_pass else 1)
    assert ("1 failed" in said) is not all_pass
    assert f"{tmp_path / 'part0'} done" in said
