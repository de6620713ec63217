"""Everybody who may ask something about a tenant, each with a made-up text to send instead of a token."""

from collections.abc import Mapping
from dataclasses import replace

import httpx2
from fastapi import FastAPI

from shared.access import Principal, Role
from shared.access.authenticator import InvalidCredentialError
from shared.access.principal import READ

_NAMES = {
    Role.SYSTEM_ADMIN: "operator",
    Role.CUSTOMER_SUPPORT: "support",
    Role.TENANT_ADMIN: "administrator",
    Role.TENANT_USER: "user",
}


class Cast:
    """The principals of a play about one tenant; it stands where a service keeps what it knows of credentials.

    ``operator`` and ``support`` see all tenants; ``visitor`` is support that acts in the tenant, ``administrator`` and
    ``user`` are its members, ``reader`` is an administrator that may only read, and ``stranger`` is one whose scope is
    of something that no service has.

    Args:
        tenant_id: of the tenant.
    """

    def __init__(self, tenant_id: str) -> None:
        administrator = Principal(id="user:administrator", role=Role.TENANT_ADMIN, tenant_id=tenant_id)
        self.principals: Mapping[str, Principal] = {
            "operator": Principal(id="user:operator", role=Role.SYSTEM_ADMIN),
            "support": Principal(id="user:support", role=Role.CUSTOMER_SUPPORT),
            "visitor": Principal(id="user:support", role=Role.CUSTOMER_SUPPORT, tenant_id=tenant_id, reason="asked to"),
            "administrator": administrator,
            "user": Principal(id="user:user", role=Role.TENANT_USER, tenant_id=tenant_id),
            "reader": replace(administrator, id="key:reader", scopes=frozenset({READ})),
            "stranger": replace(administrator, id="key:stranger", scopes=frozenset({"nothing:read", "nothing:write"})),
        }

    async def of_token(self, text: str) -> Principal:
        """Return whoever sends this; see `shared.access.Credentials`."""
        if text not in self.principals:
            raise InvalidCredentialError("The API key is not known.")
        return self.principals[text]

    of_api_key = of_token


def as_(who: str) -> dict[str, str]:
    """Return the headers with which one of the cast asks."""
    return {"Authorization": f"Bearer {who}"}


async def let_in(client: httpx2.AsyncClient, method: str, path: str) -> set[str]:
    """Return those whose role is enough for a route, whatever else is wrong with the request; one of each role asks."""
    answers = {each: await client.request(method, path, headers=as_(each)) for each in _NAMES.values()}
    return {each for each, answer in answers.items() if not _is_refused(answer)}


def _is_refused(answer: httpx2.Response) -> bool:
    assert answer.status_code not in {401, 500}, answer.text
    return answer.status_code == 403 and answer.json()["code"] == "forbidden"  # noqa: PLR2004 - what is asked about


def declared(api: FastAPI) -> dict[tuple[str, str], set[str]]:
    """Return whom an application's description names for each operation that is not for everybody."""
    return {
        (method.upper(), path): {_NAMES[Role(role)] for role in operation["x-roles"]}
        for path, item in api.openapi()["paths"].items()
        for method, operation in item.items()
        if "x-roles" in operation
    }


def told(answer: httpx2.Response, *ids: str) -> tuple[int, dict[str, str], bytes]:
    """Return all that an answer tells, apart from which of the ids, which are equally long, it was asked about."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    content = answer.content
    for each in ids:
        content = content.replace(each.encode(), b"<id>")
    return answer.status_code, headers, content
