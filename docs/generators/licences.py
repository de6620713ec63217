"""The licence of everything that an image holds beside its base."""

from collections.abc import Iterator

from deploy.supply.licences import LESSER, licence_of
from deploy.supply.locked import LOCKS, Locked, locked
from docs.generators.markdown import GENERATED, table

_INTRODUCTION = """# Licences

What is installed in each image beside its base, as its lock names it, and the licence that it is had under, as an SPDX
expression. Nothing under a GPL, an AGPL or a licence that forbids a use is among them: a test refuses it. How all this
is locked, and what else is made of it, is told in [supply-chain.md](supply-chain.md).
"""


def licences_page() -> str:
    """Return the page with every package, its licence and the images that hold it."""
    return "\n".join(
        [
            GENERATED,
            _INTRODUCTION,
            table(["Package", "Version", "Licence", "In the images of"], _rows()),
            "## Under a lesser GPL\n",
            table(["Package", "Why it may be used so"], sorted(LESSER.items())),
        ]
    )


def _rows() -> Iterator[tuple[str, str, str, str]]:
    of_image = {image: {each.name: each for each in locked(lock)} for image, lock in LOCKS.items()}
    packages: dict[str, Locked] = {name: each for held in of_image.values() for name, each in held.items()}
    for name, package in sorted(packages.items()):
        images = [image for image, held in of_image.items() if name in held]
        everywhere = len(images) == len(of_image)
        yield f"`{name}`", package.version, licence_of(name), "all" if everywhere else ", ".join(images)
