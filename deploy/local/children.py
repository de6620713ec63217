"""The six services as six processes, each told its own logins and nothing else, and started again when it ends."""

import asyncio
import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local import processes
from deploy.local.ports import free_port
from deploy.local.stack import Say

_ROOT = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_HEALTHY_SECONDS = 30.0
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ"),
    *("TENURE_LOG_FORMAT", "TENURE_LOG_LEVEL", "TENURE_REGIONS", "TENURE_POOL_GATEWAY_URL"),
    *("TENURE_ISSUER", "TENURE_MAIL_FROM", "TENURE_APPLICATION_MIGRATIONS"),
    *("TENURE_TRACES_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    *("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SDK_DISABLED"),
)
_ASKING_AMAZON = {"identity", "metrics", "provisioning"}  # boto3 looks for credentials among what begins with `AWS_`
_PASSED_TO_SCRIPTS = "TENURE_PROVISIONING_SCRIPT_PASS"
_SERVERS = ("_DATABASE_URL", "_AMQP_URL")  # which of them a service uses is told it by the stack


class Child:
    """One service as a process.

    Args:
        name: the service's name.
        told: its own logins.
        folder: an empty folder of its own, by which a later run finds what a killed one left behind.
        say: told when the process ended by itself.
    """

    def __init__(self, name: str, told: Mapping[str, str], folder: Path, say: Say) -> None:
        self.name = name
        self.port = int(os.environ.get(f"TENURE_{name.upper()}_PORT") or free_port())
        self.ends = 0
        self._folder = folder
        self._say = say
        self._told = told
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the service listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id; None between two processes."""
        return self._process.pid if self._process is not None else None

    async def keep_running(self) -> None:
        """Run the service, again whenever it ends, until this is cancelled; then end it in order."""
        wait = _FIRST_WAIT
        self._remove_leftovers()
        try:
            while True:
                started = time.monotonic()
                self._start()
                code = await self._ended()
                self.ends += 1
                wait = _FIRST_WAIT if time.monotonic() - started > _HEALTHY_SECONDS else min(_LONGEST_WAIT, wait * 2)
                self._say(f"{self.name:<12}  {_how(code)}; it is started again in {wait:g} s")
                await asyncio.sleep(wait)
        finally:
            await self._end()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            processes.kill(self._process.pid)
            self._process.wait()
            self._process = None
        atexit.unregister(self.kill)

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"services.{self.name}"],
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's Ctrl-C is for the runner, which ends its children in order
        )
        atexit.register(self.kill)

    def _environment(self) -> dict[str, str]:
        """Return all that the process may know: what every program needs, its own settings, its own logins."""
        settings = {name: value for name, value in os.environ.items() if self._is_told(name)}
        if self.ends == 0 and "TENURE_FAIL" in os.environ:
            settings["TENURE_FAIL"] = os.environ["TENURE_FAIL"]  # one failure is asked for, not one after each start
        return {
            "TENURE_LOG_FORMAT": "console",
            "TENURE_LOG_LEVEL": "warning",
            "PYTHONPATH": str(_ROOT),
            **settings,
            **self._told,
            f"TENURE_{self.name.upper()}_PORT": str(self.port),
        }

    def _is_told(self, variable: str) -> bool:
        """Tell whether the process may know a variable of ours: what all do, its own, and what its own ones name."""
        if variable.startswith("AWS_"):
            return self.name in _ASKING_AMAZON
        is_its_own = variable.startswith(f"TENURE_{self.name.upper()}_") and not variable.endswith(_SERVERS)
        for_scripts = os.environ.get(_PASSED_TO_SCRIPTS, "") if self.name == "provisioning" else ""
        return is_its_own or variable in {*_PASSED_ON, *map(str.strip, for_scripts.split(","))}

    async def _ended(self) -> int:
        assert self._process is not None
        while True:
            code = self._process.poll()
            if code is not None:
                self._process = None
                return code
            await asyncio.sleep(_POLL_SECONDS)

    async def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(processes.wait_until, self._is_over, seconds=_STOP_SECONDS)
        self.kill()

    def _is_over(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _remove_leftovers(self) -> None:
        for pid in processes.working_in(self._folder, {Path(sys.executable).name}):
            processes.kill(pid)


@asynccontextmanager
async def running_children(
    environment: Mapping[str, Mapping[str, str]], folder: Path, say: Say
) -> AsyncIterator[Sequence[Child]]:
    """Keep all services running as processes; end them in order at the end.

    Args:
        environment: the logins of each, by service.
        folder: where each finds an empty working directory.
        say: told when one ended by itself.
    """
    children = [Child(name, told, folder / name, say) for name, told in environment.items()]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(child.keep_running(), name=f"child {child.name}") for child in children]
        try:
            yield children
        finally:
            for task in running:
                task.cancel()


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended by itself with exit code {code}"
