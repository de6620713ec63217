"""`python -m deploy.supply.bills`: a CycloneDX bill of materials of each image's packages, written to ``sbom/``."""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from deploy.supply.licences import licence_of
from deploy.supply.locked import LOCKS, ROOT, Locked, locked

_FORMAT = SchemaVersion.V1_6
_OURS = "tenure-"
_LICENCE = "Apache-2.0"


def main(arguments: Sequence[str]) -> int:
    """Write the bill of every image and return the exit code.

    Args:
        arguments: of the command line, without the program's name.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.supply.bills", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "sbom", help="where they are written")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for image in LOCKS:
        path = folder / f"{image}.cdx.json"
        path.write_text(bill(image), encoding="utf-8")
        print(f"Wrote {path}.")
    return 0


def bill(image: str) -> str:
    """Return the bill of an image's packages, as CycloneDX has it in JSON.

    Who needs whom is taken from the lock. Two bills of one lock differ in nothing but their time.
    """
    lock = LOCKS[image]
    packages = locked(lock)
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"tenure:{image}:{lock.read_text(encoding='utf-8')}"))
    bom.metadata.component = root = _ours(f"{_OURS}{image}", ComponentType.APPLICATION)
    ours = [_ours(name, ComponentType.LIBRARY) for name in _workspace(packages) if name != root.name]
    components = {each.name: each for each in [root, *ours, *map(_component, packages)]}
    for name, component in components.items():
        if component is not root:
            bom.components.add(component)
        needed = [components[each.name] for each in packages if name in _askers(each, image)]
        bom.register_dependency(component, [*needed, *(ours if component is root else ())])
    return make_outputter(bom, OutputFormat.JSON, _FORMAT).output_as_string(indent=2) + "\n"


def _workspace(packages: Iterable[Locked]) -> list[str]:
    """Return which parts of this repository asked for something."""
    return sorted({name for each in packages for name in each.needed_by if name.startswith(_OURS)})


def _askers(package: Locked, image: str) -> set[str]:
    """Return who needs a package; the operator's part of the repository has the folder's name."""
    return {f"{_OURS}{image}" if name == f"{_OURS}deploy" else name for name in package.needed_by}


def _ours(name: str, kind: ComponentType) -> Component:
    return Component(name=name, version=_version(), type=kind, bom_ref=name, licenses=[LicenseExpression(_LICENCE)])


def _component(package: Locked) -> Component:
    purl = PackageURL("pypi", name=package.name, version=package.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        comment="any of these files",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in package.hashes],
    )
    return Component(
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=str(purl),
        licenses=[LicenseExpression(licence_of(package.name))],
        external_references=[files],
    )


def _version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
