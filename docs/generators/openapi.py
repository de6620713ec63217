"""The HTTP API of each service as an OpenAPI document, made without a database or a broker."""

import inspect
import json
from importlib import import_module
from typing import Any

from fastapi import FastAPI

from shared.http import create_api
from shared.service import VERSION

_NOTHING: Any = object()
"""What the routes get instead of a pool and the like: until a request comes they only keep it."""


def openapi_document(service: str) -> str:
    """Return the document that the service serves at ``/openapi.json``."""
    return json.dumps(application(service).openapi(), indent=2, ensure_ascii=False) + "\n"


def application(service: str) -> FastAPI:
    """Return the HTTP application of a service, with nothing behind it."""
    routes = import_module(f"services.{service}.api").routes
    router = routes(**dict.fromkeys(inspect.signature(routes).parameters, _NOTHING))
    return create_api(service, routers=[router], admin_key="unused", checks={}, version=VERSION)
