"""Write every generated page, or with ``--check`` only tell which of them the code has left behind."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from docs.generators import PAGES

_ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str], *, root: Path = _ROOT, pages: Mapping[str, Callable[[], str]] = PAGES) -> int:
    """Write or check the pages and return the exit code.

    Args:
        arguments: of the command line, without the program's name.
        root: the folder that the paths of the pages begin at.
        pages: path to what writes the page's text.
    """
    parser = argparse.ArgumentParser(prog="python -m docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is stale")
    checking = parser.parse_args(arguments).check
    stale = _stale(root, pages)
    for path, text in stale.items():
        if checking:
            print(f"{path} is not what the code says: run `make docs` and commit it.")
        else:
            _write(root / path, text)
            print(f"Wrote {path}.")
    if not stale:
        print("Every generated page is what the code says.")
    return 1 if checking and stale else 0


def _stale(root: Path, pages: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """Return the pages that are missing or different, and what they should be."""
    wanted = {path: write() for path, write in pages.items()}
    return {path: text for path, text in wanted.items() if _read(root / path) != text}


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
