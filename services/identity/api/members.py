"""HTTP of memberships: what a user is in a tenant, changed and ended by the tenant's administrators and operators."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from services.identity.api.users import User, identity
from services.identity.memberships import Memberships, unknown_member
from services.identity.queries import people
from shared.access import Role
from shared.http import Asker, RequestBody, permit, problems
from shared.postgres import Pool
from shared.text import Identifier

_ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)
_CONNECTION_SECONDS = 5.0

Place = Annotated[Identifier, Path(description="A tenant; `_` for operators, who belong to the installation.")]


class MembershipOrder(RequestBody):
    """What a member is to be."""

    role: Role = Field(description="`TenantAdmin` or `TenantUser`; for operators `SystemAdmin` or `CustomerSupport`.")


def routes(pool: Pool, memberships: Memberships) -> APIRouter:
    """Return the routes of memberships."""
    router = APIRouter(tags=["users"], dependencies=[_ADMINISTRATORS], responses=problems(409))

    @router.put("/v1/users/{user_id}/memberships/{tenant_id}")
    async def change_membership(user_id: Identifier, tenant_id: Place, body: MembershipOrder, asker: Asker) -> User:
        """Give a member another role. One with fewer rights ends its sessions there."""
        member_id = identity(user_id)
        await memberships.set_role(asker, tenant_id, member_id, body.role)
        async with pool.acquire(timeout=_CONNECTION_SECONDS) as connection:
            row = await (
                people.user(connection, member_id)
                if asker.tenant_id is None
                else people.member(connection, asker.tenant_id, member_id)
            )
        if row is None:  # removed since
            raise unknown_member(tenant_id, member_id)
        return User.of(row)

    @router.delete("/v1/users/{user_id}/memberships/{tenant_id}", status_code=204)
    async def end_membership(user_id: Identifier, tenant_id: Place, asker: Asker) -> Response:
        """Let a user be no member any more, and end its sessions there; who then belongs nowhere is forgotten."""
        await memberships.remove(asker, tenant_id, identity(user_id))
        return Response(status_code=204)

    return router
