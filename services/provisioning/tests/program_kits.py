"""The sample of ``examples/provisioning`` as a driver: run as a script, and asked over HTTP."""

import asyncio
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from examples.provisioning.webhook_receiver import Server
from services.provisioning.drivers import Driver, Environment
from services.provisioning.drivers.script import ScriptDriver, ScriptTerms
from services.provisioning.drivers.webhook import Keys, PostgresCallbacks, WebhookTerms, callback_routes, open_webhook
from services.provisioning.tests.driver_contract import Fault
from shared.clock import SystemClock
from shared.http import HttpServer, create_api
from shared.ids import TimeOrderedIds
from shared.postgres import Pool
from shared.testing import eventually

SAMPLE = Path(__file__).resolve().parents[3] / "examples" / "provisioning" / "terraform_style.py"
ISOLATIONS = ("pool", "silo")
SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"

_BREAKABLE = """\
#!/bin/sh
[ -e {folder}/next ] && read -r fault < {folder}/next
case "$fault" in
  FAILS) rm {folder}/next; echo "broken on purpose" >&2; exit 1;;
  LOST) rm {folder}/next; {python} -IS {sample} >/dev/null; echo "lost on purpose" >&2; exit 1;;
  HANGS) mv {folder}/next {folder}/hanging; sleep 1000; exit 1;;
esac
exec {python} -IS {sample}
"""


@dataclass
class SampleCloud:
    """The sample's cloud, and the sample itself in a wrapper that can be told to break."""

    folder: Path
    program: Path = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.program = self.folder / "breakable.sh"
        self.program.write_text(_BREAKABLE.format(folder=self.folder, python=sys.executable, sample=SAMPLE))
        self.program.chmod(0o700)

    @property
    def root(self) -> Path:
        return self.folder / "cloud"

    def is_open(self, environment: Environment) -> bool:
        access = self._place(environment) / "access.json"
        return access.exists() and '"open": true' in access.read_text()

    def notes(self, environment: Environment) -> Path:
        return self._place(environment) / "data"

    def _place(self, environment: Environment) -> Path:
        return self.root / environment.isolation / environment.tenant_id.replace(":", "@")


@dataclass
class SampleKit:
    """A driver that lets the sample do the work; see `driver_contract.DriverKit`."""

    driver: Driver
    cloud: SampleCloud
    faults: Collection[Fault] = tuple(Fault)
    deploys: bool = True

    def break_next(self, fault: Fault) -> None:
        (self.cloud.folder / "next").write_text(f"{fault.name}\n")

    def is_hanging(self) -> bool:
        return (self.cloud.folder / "hanging").exists()

    def mend(self) -> bool:
        (self.cloud.folder / "hanging").unlink(missing_ok=True)
        pending = self.cloud.folder / "next"
        had_yet_to_happen = pending.exists()
        pending.unlink(missing_ok=True)
        return had_yet_to_happen

    async def is_usable(self, environment: Environment) -> bool:
        return self.cloud.is_open(environment) and self.cloud.notes(environment).is_dir()

    async def keep(self, environment: Environment, note: str) -> None:
        assert self.cloud.is_open(environment)
        (self.cloud.notes(environment) / note).write_text(note)

    async def kept(self, environment: Environment) -> set[str]:
        return {path.read_text() for path in self.cloud.notes(environment).iterdir()}

    async def remains(self, tenant_id: str) -> set[str]:
        name = tenant_id.replace(":", "@")
        found = [path for path in self.cloud.root.glob(f"*/{name}") if path.parent.name != "state"]
        return {f"{path.parent.name}/{path.name}" for path in found}


def script_kit(folder: Path) -> SampleKit:
    """Return the sample as a script."""
    cloud = SampleCloud(folder)
    terms = ScriptTerms(
        program=cloud.program,
        timeout=timedelta(minutes=1),
        passed=["SAMPLE_CLOUD"],
        folder=folder / "work",
        isolations=ISOLATIONS,
    )
    return SampleKit(ScriptDriver(terms, variables={"PATH": "/usr/bin:/bin", "SAMPLE_CLOUD": str(cloud.root)}), cloud)


@asynccontextmanager
async def webhook_kit(folder: Path, pool: Pool, *, is_later: bool) -> AsyncIterator[SampleKit]:
    """Return the sample behind a server that answers at once, or later with a callback.

    What happens there without any effect is a status of the answer, for `test_webhook_driver`; and a program that hangs
    is the server's own affair: nothing can be cancelled from here.
    """
    cloud, clock, keys = SampleCloud(folder), SystemClock(), Keys.of(SECRET)
    callbacks = PostgresCallbacks(pool)
    api = create_api(
        "provisioning", routers=[callback_routes(callbacks, keys, clock=clock)], admin_key="key", checks={}, version="1"
    )
    program = [shutil.which("env") or "env", f"SAMPLE_CLOUD={cloud.root}", str(cloud.program)]
    receiver = Server(port=0, secret=SECRET, program=program, is_later=is_later)
    thread = threading.Thread(target=receiver.serve_forever, args=(0.02,))
    thread.start()
    try:
        async with _served(api) as origin:
            url = f"http://127.0.0.1:{receiver.server_address[1]}/"
            terms = WebhookTerms(url=url, keys=keys, origin=origin, isolations=ISOLATIONS)
            async with open_webhook(terms, callbacks=callbacks, clock=clock, ids=TimeOrderedIds()) as driver:
                yield SampleKit(driver, cloud, faults=(Fault.LOST,))
    finally:
        await asyncio.to_thread(receiver.shutdown)
        thread.join(5)
        receiver.server_close()


@asynccontextmanager
async def _served(api: FastAPI) -> AsyncIterator[str]:
    http = HttpServer(api, host="127.0.0.1", port=0)
    running = asyncio.create_task(http.serve())
    await eventually(lambda: http.started)
    yield f"http://127.0.0.1:{http.servers[0].sockets[0].getsockname()[1]}"
    http.should_exit = True
    await running
