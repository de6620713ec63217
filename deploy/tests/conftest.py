import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from deploy.local import postgres, processes, rabbitmq
from deploy.local.accounts import Account, reachable
from deploy.local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]

OF_THE_OPERATOR = {
    "AWS_PROFILE": "an-operators-own",
    "TENURE_PROVISIONING_SCRIPT_PASS": "TF_PLUGIN_CACHE_DIR, KUBECONFIG",
    "TF_PLUGIN_CACHE_DIR": "/var/cache/an-operators-own",
    "KUBECONFIG": "/etc/an-operators-own",
    "VAULT_TOKEN": "an-operators-secret",
}
"""What an operator has set beside what Tenure asks for; some of it is for drivers."""

Runner = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own are not when we are root."""
    path = Path(tempfile.mkdtemp(prefix="tenure-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class Up:
    """A ``make up`` in a process of its own, as a person would run it."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = environment_of(folder, TENURE_PORT=str(self.port), **environment)
        self._output = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.out")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local.up", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        def is_told() -> bool:
            assert self.process.poll() is None, self.output
            return text in self.output

        assert processes.wait_until(is_told, seconds=seconds), self.output

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Return the exit code; nothing that was started may be left."""
        family = processes.descendants(self.process.pid)
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        assert [processes.name_of(pid) for pid in family if processes.is_alive(pid)] == []
        return code

    def remove(self) -> None:
        if self.process.poll() is None:
            processes.kill(self.process.pid)
            self.process.wait()
        postgres.erase(self.folder / "postgres")
        rabbitmq.erase(self.folder / "rabbitmq")


def environment_of(folder: Path, **environment: str) -> dict[str, str]:
    """Return an environment in which no server is given and nothing is wanted of us but the data folder."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
    return own | {"TENURE_DATA_DIR": str(folder), "PYTHONUNBUFFERED": "1"} | environment


@pytest.fixture(scope="session")
def installation() -> Iterator[Up]:
    """One running installation for all tests of the commands around it, each service a process of its own."""
    parent = Path(tempfile.mkdtemp(prefix="tenure-test-"))
    parent.chmod(0o755)
    up = Up(parent / "data", "--processes", **OF_THE_OPERATOR)
    up.wait_for("Ctrl-C stops it.")
    yield up
    try:
        assert up.stop(signal.SIGTERM) == 0, up.output
    finally:
        up.remove()
        shutil.rmtree(parent)


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
    if account is not None and not reachable(ROOT / "deploy", account):
        pytest.skip(f"{account.name} cannot reach this checkout, which is in a private folder")
    name = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        if account is None or (Path(candidate).exists() and reachable(Path(candidate), account)):
            return candidate
    pytest.skip(f"no {name} on this machine that {account} can run")
