"""Under which licence each package is had, and which licences are refused at run time."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata
from types import MappingProxyType

from license_expression import AND, OR, ExpressionError, LicenseExpression, get_spdx_licensing

REFUSED = ("GPL-", "AGPL-", "SSPL-", "BUSL-", "CC-BY-NC-", "Elastic-", "LicenseRef-Proprietary")
"""How the SPDX ids begin that no image may hold: they bind what is run with them, or forbid a use."""

LESSER: Mapping[str, str] = MappingProxyType(
    {
        "python-bidi": "a wheel of its own that whoever runs Tenure may replace; used as it is by billing's documents",
    }
)
"""Every package under a lesser GPL that is accepted, and why it may be used so."""

_LESSER = "LGPL-"

_READ: Mapping[str, str] = MappingProxyType(
    {
        "iso4217": "LicenseRef-Public-Domain",
        "python-bidi": "LGPL-3.0-or-later",  # its COPYING.LESSER
        "python-dateutil": "Apache-2.0 OR BSD-3-Clause",  # its LICENSE: all of it BSD, what is newer Apache as well
        "reportlab": "BSD-3-Clause",  # its license.txt
        "uvloop": "MIT OR Apache-2.0",  # it brings both texts
    }
)
"""What stands in the licence files of packages whose metadata say less."""

_OTHER_NAMES = MappingProxyType(
    {
        "3-Clause BSD License": "BSD-3-Clause",
        "Apache License 2.0": "Apache-2.0",
        "MIT License": "MIT",
        "License :: OSI Approved :: MIT License": "MIT",
        "License :: OSI Approved :: Apache Software License": "Apache-2.0",
        "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    }
)
_SPDX = get_spdx_licensing()


class UnknownLicenceError(Exception):
    """A package's metadata do not say its licence; the message says what to do."""


def licence_of(package: str) -> str:
    """Return the SPDX expression of an installed package's licence.

    Raises:
        UnknownLicenceError: its metadata do not tell, or it is not installed.
    """
    if package in _READ:
        return _READ[package]
    try:
        told = metadata(package)
    except PackageNotFoundError:
        raise UnknownLicenceError(
            f"{package} is locked and not installed: remove .venv/.installed and run make"
        ) from None
    for field in ("License-Expression", "License", "Classifier"):
        for said in told.get_all(field) or ():
            expression = str(_OTHER_NAMES.get(said, said))
            if _is_spdx(expression):
                return expression
    raise UnknownLicenceError(f"Read the licence of {package} and name it in {__name__}: its metadata do not say it.")


def refused(expression: str) -> bool:
    """Tell whether there is no way to have something without a licence that is refused."""
    return not _without(_parsed(expression), REFUSED)


def lesser(expression: str) -> bool:
    """Tell whether something can be had, and in no way without a lesser GPL."""
    return not refused(expression) and not _without(_parsed(expression), (*REFUSED, _LESSER))


def _without(expression: LicenseExpression, beginnings: tuple[str, ...]) -> bool:
    if isinstance(expression, OR):
        return any(_without(each, beginnings) for each in expression.args)
    if isinstance(expression, AND):
        return all(_without(each, beginnings) for each in expression.args)
    return not str(expression).startswith(beginnings)


def _is_spdx(expression: str) -> bool:
    try:
        return not _SPDX.unknown_license_symbols(expression)
    except ExpressionError:
        return False


def _parsed(expression: str) -> LicenseExpression:
    return _SPDX.parse(expression)
