"""What several routes share: who may, and how a list is narrowed."""

from typing import Annotated

from fastapi import Query

from shared.access import Role
from shared.http import permit
from shared.text import Identifier

READERS = permit(Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT, Role.TENANT_ADMIN)
ADMINISTRATORS = permit(Role.SYSTEM_ADMIN, Role.TENANT_ADMIN)

TenantId = Annotated[Identifier | None, Query(alias="tenantId")]
"""The query parameter that narrows a list to one tenant; give it the default None."""
