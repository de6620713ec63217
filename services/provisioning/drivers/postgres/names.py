"""What roles, schemas and databases of tenants are called."""

import hashlib
from dataclasses import dataclass

_BYTES = 63
"""The longest name that Postgres keeps."""

_DIGEST = 32
_LONGEST_PREFIX = _BYTES - len("_bridge_") - _DIGEST
_SHORTENED_BY = 8


@dataclass(frozen=True)
class Names:
    """The names that belong to one application database; all servers and databases may be shared with others.

    A tenant's id may hold any characters, and a name is public to every login of the server. So names are made from a
    digest of the id: no id leads to another one's name, and none can be read from it. A database that is renamed keeps
    its pool, but loses sight of its bridges and silos.

    Attributes:
        database: the name of the application database.
    """

    database: str

    @property
    def prefix(self) -> str:
        """How each of the names begins."""
        name = self.database.encode()
        if len(name) <= _LONGEST_PREFIX:
            return self.database
        kept = name[: _LONGEST_PREFIX - _SHORTENED_BY - 1].decode(errors="ignore")
        return f"{kept}_{_digest(self.database)[:_SHORTENED_BY]}"

    @property
    def template(self) -> str:
        """How the names of templates begin; one that is being made is called just this."""
        return f"{self.prefix}_template"

    def bridge(self, tenant_id: str) -> str:
        """Return the schema of a tenant's bridge, and the role of its logins."""
        return f"{self.prefix}_bridge_{_digest(tenant_id)}"

    def silo(self, tenant_id: str) -> str:
        """Return the database of a tenant's silo, and the role of its logins."""
        return f"{self.prefix}_silo_{_digest(tenant_id)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
