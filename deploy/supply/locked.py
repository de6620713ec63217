"""What each image is made of, read from the lock that it is built from."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from packaging.requirements import Requirement

from shared.contracts import SERVICES

ROOT = Path(__file__).resolve().parents[2]

LOCKS: Mapping[str, Path] = MappingProxyType(
    {service: ROOT / "services" / service / "requirements.lock" for service in SERVICES}
    | {"operator": ROOT / "deploy" / "requirements.lock"}
)
"""Image to the lock of what is installed in it."""

_IMAGE = {
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.13.0",
    "python_version": "3.13",
    "sys_platform": "linux",
}
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NEEDED_BY = re.compile(r"#\s+(?:via )?([a-z0-9][a-z0-9._-]*)$")


@dataclass(frozen=True)
class Locked:
    """A package that is installed in an image.

    Attributes:
        name: normalized as PEP 503 has it.
        version: the only one that is accepted.
        hashes: SHA-256 of each file that is accepted, hexadecimal.
        needed_by: the packages that asked for it.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = field(repr=False)
    needed_by: tuple[str, ...]


def locked(lock: Path) -> list[Locked]:
    """Return what a lock installs on Linux by the image's Python, in its order."""
    return list(_packages(lock.read_text(encoding="utf-8")))


def _packages(text: str) -> Iterator[Locked]:
    for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE):
        head, _, rest = block.partition("\n")
        if not head or head.startswith("#"):
            continue
        requirement = Requirement(head.removesuffix("\\").strip())
        if requirement.marker and not requirement.marker.evaluate(_IMAGE):
            continue
        lines = [line.strip() for line in rest.splitlines()]
        needed_by = tuple(found[1] for line in lines if line != "# via" and (found := _NEEDED_BY.match(line)))
        version = str(requirement.specifier).removeprefix("==")
        yield Locked(requirement.name, version, tuple(_HASH.findall(rest)), needed_by)
