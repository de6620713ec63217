"""`python -m deploy.supply.digests`: pin every image that is not ours to what its tag means today.

It writes ``deploy/images.lock``, an environment file for Compose: `docker compose --env-file deploy/images.lock build`
builds and runs exactly those images, whatever their tags come to mean.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from deploy.supply.locked import ROOT

SOURCES = (ROOT / "docker-compose.yml", ROOT / "deploy" / "Dockerfile")
"""What names images: as ``${POSTGRES_IMAGE:-postgres:17}`` or as ``ARG PYTHON_IMAGE=python:3.13-slim``."""

LOCK = ROOT / "deploy" / "images.lock"

_NAMED = re.compile(r"\$\{(\w+_IMAGE):-([^}]+)\}|^ARG (\w+_IMAGE)=(\S+)", re.MULTILINE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEADER = "# Written by `python -m deploy.supply.digests`: what each tag meant then.\n"
_SECONDS = 120.0


class UnpinnedError(Exception):
    """An image cannot be pinned; the message says which, and why."""


def main(arguments: Sequence[str]) -> int:
    """Write the lock of images and return the exit code.

    Args:
        arguments: of the command line, without the program's name.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.supply.digests", description=__doc__)
    parser.add_argument("--output", type=Path, default=LOCK, help="the file that is written")
    path: Path = parser.parse_args(arguments).output
    try:
        lines = [f"{name}={pinned(image)}\n" for name, image in named(SOURCES).items()]
    except UnpinnedError as error:
        print(error, file=sys.stderr)
        return 1
    path.write_text(_HEADER + "".join(lines), encoding="ascii")
    print(f"Wrote {path}: {len(lines)} images.")
    return 0


def named(sources: Iterable[Path]) -> Mapping[str, str]:
    """Return the variable of each image that files name, and the image that it stands for by default.

    Raises:
        UnpinnedError: two places mean different images by one variable.
    """
    found: dict[str, str] = {}
    for name, image in _names(sources):
        if found.setdefault(name, image) != image:
            raise UnpinnedError(f"{name} is {found[name]} in one place and {image} in another.")
    return dict(sorted(found.items()))


def _names(sources: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for source in sources:
        for match in _NAMED.finditer(source.read_text(encoding="utf-8")):
            yield match[1] or match[3], match[2] or match[4]


def pinned(image: str) -> str:
    """Return an image's name with its digest: what the registry says, else what the engine has pulled.

    Raises:
        UnpinnedError: neither knows one, as of an image that was built here.
    """
    if "@" in image:
        return image
    digest = _asked("buildx", "imagetools", "inspect", "--format", "{{json .Manifest.Digest}}", image)
    digest = digest or _asked("image", "inspect", "--format", "{{json .RepoDigests}}", image)
    if not digest:
        raise UnpinnedError(f"{image} has no digest: no registry answers, and the engine has not pulled it from one.")
    return f"{image}@{digest}"


def _asked(*arguments: str) -> str | None:
    """Return the digest in Docker's answer, if there is one."""
    try:
        outcome = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if outcome.returncode != 0:
        return None
    found = _DIGEST.search(json.dumps(outcome.stdout))
    return found[0] if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
