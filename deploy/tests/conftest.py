import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from deploy.local.accounts import Account, reachable

ROOT = Path(__file__).resolve().parents[2]

Runner = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own are not when we are root."""
    path = Path(tempfile.mkdtemp(prefix="tenure-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def other_process() -> Runner:
    """Run a program of ours in another process, if asked to as the user ``nobody``."""

    @contextmanager
    def start(program: str, *arguments: str, account: Account | None = None) -> Iterator["subprocess.Popen[str]"]:
        process = subprocess.Popen(
            [_interpreter(account), "-c", program, *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(_import_path()), "HOME": "/nonexistent"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=account.user if account else None,
            group=account.group if account else None,
            extra_groups=[] if account else None,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    return start


def _import_path() -> list[str]:
    return [str(ROOT), *(path for path in sys.path if "-packages" in path)]


def _interpreter(account: Account | None) -> str:
    """Return a Python of our version that an account can run; ours may be below root's home."""
    name = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        if account is None or (Path(candidate).exists() and reachable(Path(candidate), account)):
            return candidate
    pytest.skip(f"no {name} on this machine that {account} can run")
