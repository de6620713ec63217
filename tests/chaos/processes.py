"""The six services as processes of their own, each told only what it may know, to be ended in every way there is."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx2

from deploy.local.ports import free_port
from deploy.local.processes import last_lines
from shared.testing import eventually

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0

_KEPT = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT")


class ServiceProcess:
    """One service as a process; its port stays the same over restarts.

    Args:
        environment: all it is told; of our own environment it gets nothing but the search path and the language.
        folder: where its log goes.

    Attributes:
        root: the folder with the code that it runs when it is started next.
    """

    def __init__(self, service: str, environment: Mapping[str, str], folder: Path) -> None:
        self.service = service
        self.root = ROOT
        self.port = free_port()
        self.log = folder / f"{service}.log"
        self._told = {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            **environment,
            f"TENURE_{service.upper()}_PORT": str(self.port),
            "TENURE_LOG_LEVEL": "info",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What the process ended with, negative for a signal; None while it runs."""
        return self._process.poll() if self._process is not None else 0

    def environment(self) -> Mapping[str, str]:
        """Return what the running process was told, as the kernel knows it."""
        told = (Path("/proc") / str(self.pid) / "environ").read_text(encoding="utf-8")
        return dict(line.split("=", 1) for line in told.split("\0") if line)

    def start(self, *, fail: str = "") -> None:
        """Start it, without waiting; ``fail`` arms failpoints in it."""
        assert self.exit_code is not None, f"{self.service} runs already"
        armed = {"TENURE_FAIL": fail} if fail else {}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"services.{self.service}"],
                cwd=self.root,
                env={**self._told, **armed},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def freeze(self) -> None:
        """Stop it where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it with SIGKILL, frozen or not; nothing happens when it has ended already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self, *, within: float) -> int:
        """Wait until it has ended, at most ``within`` seconds, and return its exit code."""
        await eventually(
            lambda: self.exit_code is not None,
            within=within,
            describe=lambda: f"{self.service} (process {self.pid}) has not ended. Its last words:\n{self.last_words()}",
        )
        assert self.exit_code is not None
        return self.exit_code

    async def ready(self, client: httpx2.AsyncClient) -> None:
        """Wait until it says that it can do its work."""
        await eventually(
            lambda: self._answers_ready(client),
            within=START_SECONDS,
            describe=lambda: f"{self.service} is not ready (exit code {self.exit_code}):\n{self.last_words()}",
        )

    def last_words(self) -> str:
        """Return the end of its log."""
        return last_lines(self.log, 8)

    async def _answers_ready(self, client: httpx2.AsyncClient) -> bool:
        try:
            response = await client.get(f"{self.url}/readyz")
        except httpx2.TransportError:
            await asyncio.sleep(0.1)
            return False
        return response.status_code == httpx2.codes.OK
