"""Every page that the code writes, so that none of them can say what the code does not do."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from deploy.manifest import manifest
from docs.generators.asyncapi import asyncapi_document
from docs.generators.licences import licences_page
from docs.generators.lifecycles import lifecycles_page
from docs.generators.messages import messages_page
from docs.generators.openapi import openapi_document
from docs.generators.permissions import permissions_page
from docs.generators.routes import routes_configuration
from shared.contracts import SERVICES


def _manifest() -> str:
    return manifest().dump()


PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "shared/messaging/manifest.json": _manifest,
        "deploy/compose/gateway/routes.conf": routes_configuration,
        "docs/messages.md": messages_page,
        "docs/lifecycles.md": lifecycles_page,
        "docs/permissions.md": permissions_page,
        "docs/licences.md": licences_page,
        "docs/asyncapi.yaml": asyncapi_document,
        **{f"docs/openapi/{service}.json": partial(openapi_document, service) for service in SERVICES},
    }
)
"""Path from the root of the repository to what writes the text of that page."""
