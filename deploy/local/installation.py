"""The installation of this machine: what `make up` runs, and what it tells about it."""

import json
import os
import secrets
import shlex
import time
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.text import Text

from deploy.local.console import console, say_part
from deploy.local.foreground import Interrupts, own_folder, run
from deploy.local.ports import PortTakenError, is_free, require_free
from deploy.local.running import System, running_system
from deploy.local.secrets import ADMIN_KEY_FILE, keep_admin_key
from deploy.operator import LOGINS_FILE, WATCHER_VARIABLE, data_folder
from shared.messaging.topology import STATUS_EXCHANGE

DEFAULT_PORT = 8080
"""The origin's, where ``TENURE_PORT`` names no other."""

_HIGHEST_PORT = 65_535
_EXAMPLE = {"adminEmails": ["me@cafe.example"]}


def run_installation(*, processes: bool) -> int:
    """Run the system in the foreground until a signal, and return the exit code.

    Args:
        processes: whether each service is a process of its own.
    """
    out = console()

    async def work(interrupts: Interrupts) -> int:
        started = time.monotonic()
        folder = data_folder()
        with own_folder(folder, f"Stop that one, or run a second beside it: {_beside(folder)}"):
            port = _free_port_wanted()
            out.print("Starting Tenure. RabbitMQ takes a few seconds to boot.")
            async with running_system(
                folder, port=port, processes=processes, say=lambda line: say_part(out, line)
            ) as system:
                interrupts.started()
                _announce(out, system, folder, time.monotonic() - started)
                await interrupts.stopping.wait()
                out.print("\nStopping ...")
        out.print("Stopped. Everything is kept for the next start.")
        return 0

    return run(work, out, interrupted=0)


def wanted_port() -> int:
    """Return the port of the origin: ``TENURE_PORT``, else the default.

    Raises:
        PortTakenError: it is no port number.
    """
    text = os.environ.get("TENURE_PORT") or str(DEFAULT_PORT)
    if text.isascii() and text.isdigit() and 0 < int(text[:9]) <= _HIGHEST_PORT:
        return int(text)
    raise PortTakenError(f"TENURE_PORT is {text!r}, which is no port; use a number from 1 to {_HIGHEST_PORT}.")


def _free_port_wanted() -> int:
    port = wanted_port()
    try:
        require_free(port, "TENURE_PORT")
    except PortTakenError as error:
        raise PortTakenError(f"{error} make up") from None
    return port


def _beside(folder: Path) -> str:
    port = next(port for port in range(wanted_port() + 1, _HIGHEST_PORT) if is_free(port))
    return f"TENURE_DATA_DIR={shlex.quote(f'{folder}-2')} TENURE_PORT={port} make up"


def _announce(out: Console, system: System, folder: Path, seconds: float) -> None:
    key = system.stack.admin_key
    given = "TENURE_ADMIN_KEY" in os.environ
    new = None if given else keep_admin_key(folder, key)
    kept = (folder / ADMIN_KEY_FILE).resolve()
    out.print(Text.assemble("\nTenure is up at ", (system.url, "bold green"), f" after {seconds:.1f} s.\n"))
    _tell(out, "API", f"{system.url}/docs")
    if new:
        _tell(out, "Admin key", key)
        _tell(out, "", f"(shown this once, kept in {kept})")
    else:
        _tell(out, "Admin key", "the one in TENURE_ADMIN_KEY" if given else f"in {kept}")
    place = urlsplit(system.stack.watcher_url).netloc.rpartition("@")[2]
    _tell(out, "Events", f"exchange {STATUS_EXCHANGE} at amqp://{place}/")
    _tell(out, "", f"(login: {WATCHER_VARIABLE} in {folder / LOGINS_FILE})")
    out.print("\nOnboard a tenant:\n")
    out.print(onboarding_command(system.url, None if given else kept))
    out.print("\nCtrl-C stops it.")


def onboarding_command(url: str, key_file: Path | None) -> str:
    """Return a shell command that onboards a tenant as it stands, under a name that is hardly taken.

    Args:
        key_file: holds the administrator's key; the environment does where None.
    """
    key = f"$(cat {shlex.quote(str(key_file))})" if key_file else "$TENURE_ADMIN_KEY"
    name = f"Café Zürich {secrets.randbelow(9000) + 1000}"
    body = json.dumps({"customerName": name, **_EXAMPLE}, ensure_ascii=False)
    return (
        f"  curl -sS {url}/v1/onboardings \\\n"
        f'    -H "Authorization: Bearer {key}" \\\n'
        f"    -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(body)}"
    )


def _tell(out: Console, name: str, what: str) -> None:
    out.print(Text.assemble(("  " + name.ljust(11), "bold"), what))
