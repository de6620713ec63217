"""The HTTP kit of all services: errors, guards, identity, paging and the application that puts them together."""

from shared.http.api import Checks, create_api
from shared.http.authentication import Administrator, Principal, administrator, anybody
from shared.http.idempotency import IdempotencyKey, fingerprint, idempotency_key
from shared.http.merging import merge_openapi
from shared.http.models import RequestBody, Resource
from shared.http.origin import one_origin
from shared.http.paging import (
    DEFAULT_LIMIT,
    MAXIMUM_LIMIT,
    Cursor,
    Limit,
    Page,
    decode_cursor,
    encode_cursor,
    page,
)
from shared.http.preconditions import IfMatch, etag, if_match, require_match
from shared.http.problems import FieldError, Problem, ProblemDocument
from shared.http.refusal import overloaded
from shared.http.server import HttpServer

__all__ = [
    "DEFAULT_LIMIT",
    "MAXIMUM_LIMIT",
    "Administrator",
    "Checks",
    "Cursor",
    "FieldError",
    "HttpServer",
    "IdempotencyKey",
    "IfMatch",
    "Limit",
    "Page",
    "Principal",
    "Problem",
    "ProblemDocument",
    "RequestBody",
    "Resource",
    "administrator",
    "anybody",
    "create_api",
    "decode_cursor",
    "encode_cursor",
    "etag",
    "fingerprint",
    "idempotency_key",
    "if_match",
    "merge_openapi",
    "one_origin",
    "overloaded",
    "page",
    "require_match",
]
