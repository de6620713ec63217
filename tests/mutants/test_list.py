"""The defects can be planted; whether they are caught is what `make mutants` tells."""

import ast

import pytest

from tests.mutants.__main__ import ROOT
from tests.mutants.defect import Defect
from tests.mutants.list import DEFECTS

ENOUGH = 25


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_changes_one_place_of_code_that_still_runs(defect: Defect) -> None:
    planted = defect.planted_in(ROOT)

    assert planted != (ROOT / defect.file).read_text(encoding="utf-8")
    if defect.file.endswith(".py"):
        ast.parse(planted)
    assert all((ROOT / tests).exists() for tests in defect.caught_by)


def test_there_are_enough_of_them_and_each_is_another() -> None:
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= ENOUGH
