"""How products and their versions are published, changed, retired and reinstated."""

from collections.abc import Mapping
from typing import Any

import asyncpg

from services.tenant.catalog.editing import Edit, conflict, different
from services.tenant.queries import catalog as queries
from shared.audit import changed
from shared.http import Problem, require_match
from shared.postgres import Connection

_TOLD = ("description", "plan", "isolation", "driver", "region", "parameters")


async def create(edit: Edit, details: Mapping[str, Any]) -> tuple[asyncpg.Record, bool]:
    """Add a product, without versions, and return it and whether it is new: asking again changes nothing.

    Args:
        details: all of it, by the names of the columns.

    Raises:
        Problem: 409, there is another one of that name.
    """
    name = details["name"]
    found = await queries.product(edit.connection, name)
    if found is not None and (different(found, details) or found["retired_at"] is not None):
        raise conflict("product_exists", f"There is a product {name} already, and it is another one.", "/name")
    if found is not None:
        return found, False
    await queries.add_product(edit.connection, details, now=edit.now)
    row = await known(edit.connection, name)
    _, after = changed({}, _told(row))
    edit.decided("product.created", _subject(name), after=after)
    return row, True


async def change(edit: Edit, name: str, details: Mapping[str, Any], *, if_match: str | None) -> asyncpg.Record:
    """Change what a product is from now on, to those who take it from now on.

    Args:
        details: what is to be different, by the names of the columns.

    Raises:
        Problem: 404, 409, 412 or 428.
    """
    found = await known(edit.connection, name)
    require_match(if_match, found["edition"])
    _check_not_retired(found)
    wanted = different(found, details)
    if not wanted:
        return found
    await queries.change_product(edit.connection, name, wanted)
    row = await known(edit.connection, name)
    before, after = changed(_told(found), _told(row))
    edit.decided("product.changed", _subject(name), before=before, after=after)
    return row


async def retire(edit: Edit, name: str) -> asyncpg.Record:
    """Let no version of a product be taken any more; who has one keeps it.

    Raises:
        Problem: 404.
    """
    found = await known(edit.connection, name)
    if found["retired_at"] is not None:
        return found
    await queries.retire_product(edit.connection, name, at=edit.now)
    edit.decided("product.retired", _subject(name), after={"retiredAt": edit.now})
    return await known(edit.connection, name)


async def reinstate(edit: Edit, name: str) -> asyncpg.Record:
    """Let those versions of a product be taken again that are not retired themselves.

    Raises:
        Problem: 404.
    """
    found = await known(edit.connection, name)
    if found["retired_at"] is None:
        return found
    await queries.retire_product(edit.connection, name, at=None)
    edit.decided("product.reinstated", _subject(name), before={"retiredAt": found["retired_at"]})
    return await known(edit.connection, name)


async def publish(edit: Edit, name: str, version: str) -> tuple[asyncpg.Record, bool]:
    """Add a version of a product, and return it and whether it is new: asking again changes nothing.

    Raises:
        Problem: 404; or 409, the product or the version is retired.
    """
    _check_not_retired(await known(edit.connection, name))
    found = await queries.product_version(edit.connection, name, version)
    if found is None:
        edit.decided("product.version_published", _subject(name), after={"version": version})
        return await queries.add_version(edit.connection, name, version, now=edit.now), True
    if found["retired_at"] is not None:
        detail = f"Version {version} of {name} was published before, and is retired. Reinstate it."
        raise conflict("version_retired", detail, "/version")
    return found, False


async def retire_version(edit: Edit, name: str, version: str) -> asyncpg.Record:
    """Let a version of a product not be taken any more; who has it keeps it.

    Raises:
        Problem: 404.
    """
    found = await _known_version(edit, name, version)
    if found["retired_at"] is not None:
        return found
    after = {"version": version, "retiredAt": edit.now}
    edit.decided("product.version_retired", _subject(name), before={"version": version}, after=after)
    return await queries.retire_version(edit.connection, name, version, at=edit.now)


async def reinstate_version(edit: Edit, name: str, version: str) -> asyncpg.Record:
    """Let a version of a product be taken again.

    Raises:
        Problem: 404.
    """
    found = await _known_version(edit, name, version)
    if found["retired_at"] is None:
        return found
    before = {"version": version, "retiredAt": found["retired_at"]}
    edit.decided("product.version_reinstated", _subject(name), before=before, after={"version": version})
    return await queries.retire_version(edit.connection, name, version, at=None)


async def known(connection: Connection, name: str) -> asyncpg.Record:
    """Find a product.

    Raises:
        Problem: 404, there is none of that name.
    """
    row = await queries.product(connection, name)
    if row is None:
        raise Problem(404, code="unknown_product", detail=f"There is no product {name}.")
    return row


async def _known_version(edit: Edit, name: str, version: str) -> asyncpg.Record:
    await known(edit.connection, name)
    row = await queries.product_version(edit.connection, name, version)
    if row is None:
        raise Problem(404, code="unknown_version", detail=f"There is no version {version} of {name}.")
    return row


def _check_not_retired(product: asyncpg.Record) -> None:
    if product["retired_at"] is not None:
        name = product["name"]
        raise conflict("product_retired", f"Product {name} is retired. Reinstate it before you change it.")


def _subject(name: str) -> str:
    return f"product:{name}"


def _told(row: asyncpg.Record) -> dict[str, Any]:
    return {name: row[name] for name in _TOLD}
