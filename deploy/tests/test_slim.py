"""What is taken out of an image is never asked for."""

import re
from pathlib import Path

import botocore

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"account", "billing", "connect", "events", "invoicing", "support"}
"""Names of Amazon's services that stand for something else here."""


def test_every_amazon_service_that_is_named_in_the_code_is_kept() -> None:
    script = (ROOT / "deploy" / "compose" / "slim.sh").read_text(encoding="utf-8")
    found = re.search(r"asked=' (.*) '", script)
    assert found is not None
    kept = set(found[1].split())
    there = {path.name for path in (Path(botocore.__file__).parent / "data").iterdir() if path.is_dir()}
    named = {
        literal
        for path in (ROOT / "services").rglob("*.py")
        if "tests" not in path.parts
        for literal in re.findall(r'"([a-z0-9-]+)"', path.read_text(encoding="utf-8"))
    }

    assert (named & there) - WORDS <= kept
    assert kept <= there
