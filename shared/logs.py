"""Structured logs: one line per fact, with the ids that were bound for the message or request at hand."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import orjson
import structlog
from opentelemetry.trace import get_current_span

from shared.tracing import spans

_SECRET_KEY = re.compile(
    r"(password|passwd|secret|token|api_?key|admin_key|authorization|cookie|credential)", re.IGNORECASE
)
_SECRET_VALUE = re.compile(r"(://[^/\s:@]*:)[^@\s]+(@)|(tenure_admin_)[A-Za-z0-9_-]+|(Bearer\s+)\S+")
_HIDDEN = "[redacted]"

NOISY = ("aio_pika", "aiormq", "asyncpg", "uvicorn", "asyncio", "opentelemetry")
"""Libraries that describe every failed attempt at length; their supervisors say it in one line."""


def configure_logs(*, form: Literal["json", "console"], level: str, service: str | None = None) -> None:
    """Send every log line of this process to standard error, structured and without secrets.

    Args:
        form: ``json`` for machines, ``console`` for a person at a terminal.
        level: the least severe level that is written.
        service: bound to every line, where the process is one service.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = structlog.dev.ConsoleRenderer() if form == "console" else structlog.processors.JSONRenderer(_dumps)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            add_trace,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if service is not None:
        structlog.contextvars.bind_contextvars(service=service)


def add_trace(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the trace and the span that a line belongs to, where there is one."""
    if spans.is_on() and (context := get_current_span().get_span_context()).is_valid:
        line["trace_id"] = f"{context.trace_id:032x}"
        line["span_id"] = f"{context.span_id:016x}"
    return line


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide secrets by the names of their keys and by the look of their values, at any depth."""
    return {key: _hidden(key, value) for key, value in line.items()}


def _hidden(key: str, value: Any) -> Any:
    if _SECRET_KEY.search(key):
        return _HIDDEN
    if isinstance(value, str):
        return _SECRET_VALUE.sub(_keep_edges, value)
    if isinstance(value, Mapping):
        return {str(inner): _hidden(str(inner), each) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(key, each) for each in value]
    return value


def _keep_edges(match: re.Match[str]) -> str:
    if match[1]:
        return f"{match[1]}{_HIDDEN}{match[2]}"
    return f"{match[3] or match[4]}{_HIDDEN}"


def _dumps(line: Any, **_: Any) -> str:
    return orjson.dumps(line, default=str).decode()
