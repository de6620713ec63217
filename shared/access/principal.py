"""Somebody whose identity is proven, and what that says about what it may see."""

from dataclasses import dataclass
from enum import StrEnum
from typing import overload

from shared.contracts.base import INSTALLATION

READ = "read"
WRITE = "write"

EVERYTHING = frozenset({READ, WRITE})
"""The scopes of who may use everything that the role allows."""


class Role(StrEnum):
    """What somebody is: the founding documents' names."""

    SYSTEM_ADMIN = "SystemAdmin"
    CUSTOMER_SUPPORT = "CustomerSupport"
    TENANT_ADMIN = "TenantAdmin"
    TENANT_USER = "TenantUser"


OPERATORS = frozenset({Role.SYSTEM_ADMIN, Role.CUSTOMER_SUPPORT})
"""Roles of those who run the installation."""

MEMBERS = frozenset({Role.TENANT_ADMIN, Role.TENANT_USER})
"""Roles that somebody has in one tenant."""


NO_TENANT = ""
"""What is no tenant's identity, and never can be: a list of its rows is empty."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        id: opaque and stable; what idempotency keys and the audit trail are scoped to.
        role: what it is.
        tenant_id: the one tenant that it acts in; None for operators, who see all, except while they give support.
        scopes: ``read`` and ``write``, each alone or of one resource, as in ``usage:write``.
        user_id: the person, if it is one.
        session_id: the sign-in that it came by, if there was one.
        reason: why an operator acts in a tenant.

    Raises:
        ValueError: a member without a tenant, a system administrator bound to one, or anybody in what is no tenant.
    """

    id: str
    role: Role
    tenant_id: str | None = None
    scopes: frozenset[str] = EVERYTHING
    user_id: str | None = None
    session_id: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        """Refuse what nobody can be: a doubt about the tenant must not end as access to all."""
        if self.role in MEMBERS and self.tenant_id is None:
            raise ValueError(f"a {self.role} belongs to a tenant")
        if self.tenant_id in {INSTALLATION, NO_TENANT}:
            raise ValueError("what stands for no tenant is none")
        if self.role is Role.SYSTEM_ADMIN and self.tenant_id is not None:
            raise ValueError(f"a {self.role} belongs to no tenant")

    @property
    def acts_as(self) -> Role:
        """The role whose rights it has: support that acts in a tenant does so as that tenant's administrator."""
        if self.role is Role.CUSTOMER_SUPPORT and self.tenant_id is not None:
            return Role.TENANT_ADMIN
        return self.role

    def reaches(self, tenant_id: str) -> bool:
        """Return whether the tenant is there as far as this principal can tell."""
        return self.tenant_id is None or self.tenant_id == tenant_id

    @overload
    def narrowed(self, tenant_id: str) -> str: ...

    @overload
    def narrowed(self, tenant_id: str | None) -> str | None: ...

    def narrowed(self, tenant_id: str | None) -> str | None:
        """Return whose rows a list shows that is asked for those of one tenant, or with None for all there are.

        Of a tenant out of reach it shows what it shows of one that is not there: the rows of `NO_TENANT`.
        """
        if tenant_id is None:
            return self.tenant_id
        return tenant_id if self.reaches(tenant_id) else NO_TENANT

    def is_granted(self, action: str, resource: str) -> bool:
        """Return whether the scopes cover an action (``read`` or ``write``) on a resource, such as ``invoices``."""
        return action in self.scopes or f"{resource}:{action}" in self.scopes


ADMINISTRATOR = Principal(id="system-administrator", role=Role.SYSTEM_ADMIN)
"""Whoever holds the key that the installation was started with."""
