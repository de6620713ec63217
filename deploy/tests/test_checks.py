"""What other people's tools are asked, and what becomes of their answers."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.checks import check, vulnerabilities
from deploy.checks.__main__ import CHECKS, main
from deploy.checks.check import ROOT, Check, FoundError, MissingToolError, UnreachedError, Verdict, outcome_of, program
from deploy.checks.compose import check_compose
from deploy.checks.dockerfile import check_dockerfile
from deploy.checks.gateway import check_gateway
from deploy.checks.prometheus import check_prometheus
from deploy.checks.vulnerabilities import check_vulnerabilities
from deploy.local.ports import free_port

WEAKNESS = {
    "id": "GHSA-0000",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "summary": "A weakness",
    "details": "A weakness",
    "affected": [
        {
            "package": {"name": "six", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}],
            "versions": ["1.17.0"],
        }
    ],
}


def raising(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "on_a_laptop", "in_ci"),
    [
        (lambda: None, Verdict.PASSED, Verdict.PASSED),
        (raising(FoundError("why")), Verdict.FAILED, Verdict.FAILED),
        (raising(MissingToolError("why")), Verdict.SKIPPED, Verdict.FAILED),
        (raising(UnreachedError("why")), Verdict.SKIPPED, Verdict.SKIPPED),
    ],
    ids=["passed", "found", "missing", "unreached"],
)
def test_what_cannot_be_asked_is_skipped_but_a_missing_tool_in_ci(
    run: Callable[[], None], on_a_laptop: Verdict, in_ci: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert outcome_of(Check("it", run)).verdict is on_a_laptop
    monkeypatch.setenv("CI", "true")
    assert outcome_of(Check("it", run)).verdict is in_ci


def test_each_check_is_told_and_one_that_fails_fails_all(capsys: pytest.CaptureFixture[str]) -> None:
    well = Check("well", lambda: None)

    assert main([well]) == 0
    assert main([well, Check("ill", raising(FoundError("line 3")))]) == 1
    said = capsys.readouterr().out
    assert "passed    0.0 s  well\n" in said
    assert "failed    0.0 s  ill: line 3\n" in said


def test_a_tool_that_is_nowhere_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "can_install", lambda: False)

    with pytest.raises(MissingToolError, match="apt-get install --no-install-recommends some-package"):
        program("no-such-tool", package="some-package")
    with pytest.raises(MissingToolError, match=r"\.venv"):
        program("no-such-tool")


def test_compose_names_what_it_does_not_understand(tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text("services:\n  a:\n    image: a:1\n    restarts: always\n")

    with pytest.raises(FoundError, match="restarts"):
        check_compose(file)


def test_hadolint_names_what_is_unwise(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian:latest\n")

    with pytest.raises(FoundError, match="DL3007"):
        check_dockerfile(file)


def debians(name: str, package: str) -> None:
    """Skip a test on a laptop that lacks a program and may not install it; fail where ``CI`` is set."""
    try:
        program(name, package=package)
    except MissingToolError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def test_nginx_names_what_it_does_not_understand(tmp_path: Path) -> None:
    debians("nginx", "nginx-light")
    copy = tmp_path / "gateway"
    shutil.copytree(ROOT / "deploy" / "compose" / "gateway", copy)
    check_gateway(copy)
    with (copy / "routes.conf").open("a", encoding="utf-8") as routes:
        routes.write("proxy_passs;\n")

    with pytest.raises(FoundError, match="proxy_passs"):
        check_gateway(copy)


@pytest.mark.parametrize("name", ["prometheus.yml", "rules.yml", "rules.test.yml"])
def test_promtool_names_what_it_does_not_understand(tmp_path: Path, name: str) -> None:
    debians("promtool", "prometheus")
    copy = tmp_path / "prometheus"
    shutil.copytree(ROOT / "deploy" / "observability" / "prometheus", copy)
    with (copy / name).open("a", encoding="utf-8") as file:
        file.write("\nunheard_of: 1\n")

    with pytest.raises(FoundError, match="unheard_of"):
        check_prometheus(copy)


def test_every_file_that_deploys_is_judged() -> None:
    assert [each.run for each in CHECKS] == [
        check_compose,
        check_dockerfile,
        check_gateway,
        check_prometheus,
        check_vulnerabilities,
    ]


class Database:
    """OSV's query interface, with one weakness if told so."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {}
        database = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps(database.answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/query"


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    thread = threading.Thread(target=database.server.serve_forever)
    thread.start()
    yield database
    database.server.shutdown()
    thread.join()
    database.server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text(f"six==1.17.0 \\\n    --hash=sha256:{'0' * 64}\n")
    return path


def test_a_lock_without_known_weaknesses_passes(database: Database, lock: Path) -> None:
    check_vulnerabilities(lock, database=database.url)


def test_a_known_weakness_is_named_with_what_mends_it(
    database: Database, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.answer = {"vulns": [WEAKNESS]}

    with pytest.raises(FoundError, match=r"six 1\.17\.0: GHSA-0000, mended in 9\.9"):
        check_vulnerabilities(lock, database=database.url)

    monkeypatch.setattr(vulnerabilities, "ACCEPTED", {"GHSA-0000": "does not reach us"})
    check_vulnerabilities(lock, database=database.url)


def test_a_database_that_cannot_be_reached_is_told_and_nothing_else(lock: Path) -> None:
    with pytest.raises(UnreachedError, match="not reached"):
        check_vulnerabilities(lock, database=f"http://127.0.0.1:{free_port()}/v1/query")


def test_a_lock_that_cannot_be_read_is_no_success(database: Database, lock: Path) -> None:
    lock.write_text("six>=1\n")

    with pytest.raises(FoundError):
        check_vulnerabilities(lock, database=database.url)
