"""A real nginx for tests, with a configuration of the repository."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.checks.check import MissingToolError, program
from shared.testing import eventually

_PACKAGE = "nginx-light"
_START_SECONDS = 10.0
_AROUND = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/sample.conf;
}}
"""


def find_nginx() -> Path:
    """Return nginx, installed where it is missing and we are root.

    Without it the test is skipped on a laptop and fails where ``CI`` is set.
    """
    try:
        return program("nginx", package=_PACKAGE)
    except MissingToolError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@asynccontextmanager
async def running_nginx(folder: Path, sample: Path, *, replaced: Mapping[str, str], port: int) -> AsyncIterator[None]:
    """Run nginx with a configuration in which some texts, each of which must be there, are replaced.

    Args:
        port: where it listens.
    """
    program = await asyncio.to_thread(find_nginx)
    await asyncio.to_thread(_configure, folder, sample, replaced)
    process = await asyncio.create_subprocess_exec(program, "-p", str(folder), "-c", str(folder / "nginx.conf"))
    try:
        await eventually(lambda: _accepts(port), within=_START_SECONDS, describe=lambda: _log(folder))
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def _configure(folder: Path, sample: Path, replaced: Mapping[str, str]) -> None:
    text = sample.read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert old in text, f"{sample.name} has no {old}"
        text = text.replace(old, new)
    (folder / "sample.conf").write_text(text, encoding="utf-8")
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder), encoding="utf-8")


def _log(folder: Path) -> str:
    log = folder / "error.log"
    return log.read_text(encoding="utf-8") if log.exists() else "nginx has no log"


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
