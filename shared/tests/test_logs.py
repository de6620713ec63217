import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared.logs import configure_logs, redact

SECRET = "correct horse"


@pytest.fixture(autouse=True)
def untouched_logs() -> Iterator[None]:
    """Put back what `configure_logs` changes for the whole process."""
    noisy = [logging.getLogger(name) for name in ("aio_pika", "aiormq", "uvicorn", "asyncio")]
    levels = [logger.level for logger in noisy]
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    for logger, level in zip(noisy, levels, strict=True):
        logger.setLevel(level)


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def fail(error: Exception) -> None:
    raise error


def test_a_line_is_one_json_object_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form="json", level="info", service="billing")

    structlog.get_logger("x").info("account opened\nreally", action="opened", tenant_id="t1")

    [line] = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "account opened\nreally",
        "action": "opened",
        "tenant_id": "t1",
        "service": "billing",
        "level": "info",
    }


def test_what_is_bound_is_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form="json", level="info")

    with structlog.contextvars.bound_contextvars(workflow_id="w1"):
        structlog.get_logger().info("within")
    structlog.get_logger().info("without")

    assert [line.get("workflow_id") for line in lines(capsys)] == ["w1", None]


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form="json", level="warning")

    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")

    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_a_person_gets_readable_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form="console", level="info")

    structlog.get_logger().info("account opened", tenant_id="t1")

    assert "account opened" in capsys.readouterr().err


def test_an_exception_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form="json", level="info")

    try:
        fail(ValueError("broken"))
    except ValueError:
        structlog.get_logger().exception("failed")

    [line] = lines(capsys)
    assert "ValueError: broken" in line["exception"]


def test_what_json_does_not_know_is_told_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form="json", level="info")

    structlog.get_logger().info("odd", value={1: complex(1, 2)})

    assert lines(capsys)[0]["value"] == {"1": "(1+2j)"}


def test_the_client_libraries_are_quiet() -> None:
    configure_logs(form="json", level="debug")

    for name in ("aio_pika", "aiormq", "uvicorn", "asyncio"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "db_password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "apikey",
        "admin_key",
        "Authorization",
        "Cookie",
    ],
)
def test_a_key_that_sounds_like_a_secret_hides_its_value(key: str) -> None:
    hidden = redact(None, "info", {key: SECRET, "outer": {"inner": [{key: [SECRET]}]}})

    assert SECRET not in str(hidden)
    assert hidden[key] == "[redacted]"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("amqp://billing:s3cret@broker:5672/", "amqp://billing:[redacted]@broker:5672/"),
        (
            "at postgresql://u:p%40w@db/x and amqp://v:w@b/",
            "at postgresql://u:[redacted]@db/x and amqp://v:[redacted]@b/",
        ),
        ("Bearer abc.def-ghi", "Bearer [redacted]"),
        ("key tenure_admin_AbC-12_x, then", "key tenure_admin_[redacted], then"),
        ("http://127.0.0.1:8080/v1/tenants", "http://127.0.0.1:8080/v1/tenants"),
        ("ada@example.com", "ada@example.com"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_a_value_that_looks_like_a_secret_is_hidden_and_the_rest_is_kept(value: str, shown: str) -> None:
    assert redact(None, "info", {"event": value, "more": [value, {"deep": (value,)}]}) == {
        "event": shown,
        "more": [shown, {"deep": [shown]}],
    }


def test_an_exceptions_text_is_searched_for_secrets_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form="json", level="info")

    try:
        fail(ConnectionError("cannot reach amqp://billing:s3cret@broker/"))
    except ConnectionError:
        structlog.get_logger().exception("away")

    [line] = lines(capsys)
    assert "amqp://billing:[redacted]@broker/" in line["exception"]


def test_numbers_and_nothing_pass_unchanged() -> None:
    line = {"count": 3, "ratio": 0.5, "nothing": None, "flag": True}

    assert redact(None, "info", dict(line)) == line
