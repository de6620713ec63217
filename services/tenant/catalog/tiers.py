"""How tiers are created, changed, retired and reinstated."""

from collections.abc import Mapping
from typing import Any

import asyncpg
from pydantic.alias_generators import to_camel

from services.tenant.catalog.editing import Edit, conflict, different
from services.tenant.queries import catalog as queries
from shared.audit import changed
from shared.http import Problem, require_match

_TOLD = (
    "rank", "plan", "quotas", "isolation", "connections", "requests_per_second", "requests_per_day", "driver",
    "region", "parameters", "is_default",
)  # fmt: skip


async def create(edit: Edit, details: Mapping[str, Any]) -> tuple[asyncpg.Record, bool]:
    """Add a tier, and return it and whether it is new: asking again for the very same changes nothing.

    Args:
        details: all of it, by the names of the columns.

    Raises:
        Problem: 409, another tier has the name or the rank.
    """
    name = details["name"]
    found = await queries.tier(edit.connection, name)
    if found is not None and (different(found, details) or found["retired_at"] is not None):
        raise conflict("tier_exists", f"There is a tier {name} already, and it is another one.", "/name")
    if found is not None:
        return found, False
    await _check_rank(edit, details)
    if details["is_default"]:
        await _take_default(edit)
    row = await queries.add_tier(edit.connection, details, now=edit.now)
    _, after = changed({}, _told(row))
    edit.decided("tier.created", _subject(name), after=after)
    return row, True


async def change(edit: Edit, name: str, details: Mapping[str, Any], *, if_match: str | None) -> asyncpg.Record:
    """Change what a tier is from now on, to those who are put on it from now on.

    Args:
        details: what is to be different, by the names of the columns.

    Raises:
        Problem: 404, 409, 412 or 428.
    """
    found = await _found(edit, name)
    require_match(if_match, found["edition"])
    if found["retired_at"] is not None:
        raise conflict("tier_retired", f"Tier {name} is retired. Reinstate it before you change it.")
    wanted = different(found, details)
    if not wanted:
        return found
    await _check_rank(edit, wanted)
    if wanted.get("is_default") is False:
        raise conflict("default_tier", "One tier has to be the default: make another one the default.", "/isDefault")
    if "is_default" in wanted:
        await _take_default(edit)
    row = await queries.change_tier(edit.connection, name, wanted)
    before, after = changed(_told(found), _told(row))
    edit.decided("tier.changed", _subject(name), before=before, after=after)
    return row


async def retire(edit: Edit, name: str) -> asyncpg.Record:
    """Let a tier not be taken any more; who has it keeps it.

    Raises:
        Problem: 404; or 409, it is the default.
    """
    found = await _found(edit, name)
    if found["retired_at"] is not None:
        return found
    if found["is_default"]:
        detail = f"Tier {name} is the default. Make another one the default before you retire it."
        raise conflict("default_tier", detail)
    row = await queries.retire_tier(edit.connection, name, at=edit.now)
    edit.decided("tier.retired", _subject(name), after={"retiredAt": row["retired_at"]})
    return row


async def reinstate(edit: Edit, name: str) -> asyncpg.Record:
    """Let a tier be taken again.

    Raises:
        Problem: 404.
    """
    found = await _found(edit, name)
    if found["retired_at"] is None:
        return found
    edit.decided("tier.reinstated", _subject(name), before={"retiredAt": found["retired_at"]})
    return await queries.retire_tier(edit.connection, name, at=None)


def unknown_tier(name: str) -> Problem:
    """Return the problem that there is no such tier."""
    return Problem(404, code="unknown_tier", detail=f"There is no tier {name}.")


async def _found(edit: Edit, name: str) -> asyncpg.Record:
    found = await queries.tier(edit.connection, name)
    if found is None:
        raise unknown_tier(name)
    return found


async def _check_rank(edit: Edit, wanted: Mapping[str, Any]) -> None:
    if "rank" in wanted and (other := await queries.tier_ranked(edit.connection, wanted["rank"])):
        raise conflict("rank_taken", f"Tier {other} has rank {wanted['rank']} already.", "/rank")


async def _take_default(edit: Edit) -> None:
    if former := await queries.take_default(edit.connection):
        edit.decided("tier.changed", _subject(former), before={"isDefault": True}, after={"isDefault": False})


def _subject(name: str) -> str:
    return f"tier:{name}"


def _told(row: asyncpg.Record) -> dict[str, Any]:
    return {to_camel(name): row[name] for name in _TOLD}
