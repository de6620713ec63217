"""Who may use which route, taken from the rules that the routes declare."""

from collections.abc import Iterator
from typing import NamedTuple

from fastapi.routing import iter_route_contexts

from docs.generators.markdown import GENERATED, table
from docs.generators.openapi import application
from shared.access import Role
from shared.contracts import SERVICES
from shared.http.api import rule_of
from shared.http.authorization import Rule

_COLUMNS = (Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN, Role.TENANT_USER)
_INTRODUCTION = """# Who may do what

Every route declares one rule; a route without one keeps its service from starting. The rule names roles. The rest is
the same everywhere:

- `SystemAdmin` and `CustomerSupport` run the installation. Support by itself sees what is in its column. To do more it
  begins a support session in one tenant, with a reason and an end (`POST /v1/support-sessions`), and is that tenant's
  administrator until then.
- `TenantAdmin` and `TenantUser` are roles in one tenant, the one that the token or key is for. Whatever belongs to
  another tenant is answered exactly like what does not exist: 404, or an empty list.
- A `TenantUser` sees and changes nothing but itself.
- A token or key whose scopes do not cover what the route does is refused with 403: `read` or `write`, or one of a
  resource alone, such as `usage:write`. The resource is what stands after `/v1/`.

How somebody gets a token or a key is told in [sign-in.md](sign-in.md).
"""


class _Row(NamedTuple):
    path: str
    methods: str
    roles: frozenset[Role] | None


def permissions_page() -> str:
    """Return the page with a table of routes and roles for each service."""
    sections = [_section(service) for service in SERVICES]
    return "\n".join([GENERATED, _INTRODUCTION, *sections])


def _section(service: str) -> str:
    header = ["", *_COLUMNS]
    return f"## {service}\n\n" + table(header, [_cells(row) for row in sorted(_rows(service))])


def _rows(service: str) -> Iterator[_Row]:
    for context in iter_route_contexts(application(service).routes):
        if context.path_format is None or not getattr(context, "include_in_schema", True):
            continue
        rule = rule_of(context)
        roles = rule.roles if isinstance(rule, Rule) else None
        yield _Row(str(context.path_format), ", ".join(sorted(context.methods or ())), roles)


def _cells(row: _Row) -> list[str]:
    name = f"`{row.methods} {row.path}`"
    if row.roles is None:
        return [name, *(["everybody"] * len(_COLUMNS))]
    return [name, *("yes" if role in row.roles else "" for role in _COLUMNS)]
