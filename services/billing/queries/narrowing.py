"""How a list is narrowed."""


def narrowed(condition: str, tenant_id: str | None) -> tuple[str, list[str]]:
    """Return a condition with its value where there is one: a plan that also fits none would not use the index."""
    return ("true", []) if tenant_id is None else (condition, [tenant_id])
