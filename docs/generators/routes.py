"""Which service owns which path, as the gateway of the Compose stack reads it."""

from importlib import import_module

from shared.contracts import SERVICES

_HEAD = """\
# Which service a path belongs to, whole segments of it: written by `make docs` of the services' PATHS.
map $uri $service {
    default origin;
"""


def routes_configuration() -> str:
    """Return the map of nginx; of two prefixes that fit, the longer one comes first."""
    owners = {prefix: service for service in SERVICES for prefix in import_module(f"services.{service}.api").PATHS}
    lines = (
        f'    "~^{prefix.replace(".", "[.]")}(/|$)" {owners[prefix]};\n'
        for prefix in sorted(owners, key=lambda prefix: (-len(prefix), prefix))
    )
    return f"{_HEAD}{''.join(lines)}}}\n"
