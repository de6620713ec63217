"""The HTTP kit of all services: errors, guards, identity, paging and the application that puts them together."""

from shared.http.api import Checks, create_api
from shared.http.authorization import Asker, everybody, is_still_known, permit
from shared.http.idempotency import IdempotencyKey, fingerprint, idempotency_key
from shared.http.merging import merge_openapi
from shared.http.models import RequestBody, Resource
from shared.http.openapi import PROBLEM_CONTENT, problems
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
    "PROBLEM_CONTENT",
    "Asker",
    "Checks",
    "Cursor",
    "FieldError",
    "HttpServer",
    "IdempotencyKey",
    "IfMatch",
    "Limit",
    "Page",
    "Problem",
    "ProblemDocument",
    "RequestBody",
    "Resource",
    "create_api",
    "decode_cursor",
    "encode_cursor",
    "etag",
    "everybody",
    "fingerprint",
    "idempotency_key",
    "if_match",
    "is_still_known",
    "merge_openapi",
    "one_origin",
    "overloaded",
    "page",
    "permit",
    "problems",
    "require_match",
]
