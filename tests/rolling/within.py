"""What a release says and does itself: run by path, with that release's code and no other on the search path.

python -P within.py stack FOLDER        its servers with its schemas and topology, until standard input ends
python -P within.py migrate SERVICE     its migrations, on the database whose URL is the line on standard input
python -P within.py databases FOLDER    its databases and logins, on the server whose URL is the line on standard input
python -P within.py topology FOLDER     its topology as a definitions file, with the passwords kept in the folder

What comes of it is one line of JSON on standard output, where nothing else goes.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.databases import create_databases
from deploy.local.rabbitmq import BrokerServer
from deploy.local.secrets import load_or_create
from deploy.local.stack import running_stack
from deploy.manifest import manifest
from deploy.topology import DEPLOY, WATCHER, definitions
from shared.logs import configure_logs
from shared.postgres import migrate, service_migrations

_ANSWERS = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # logs, and whatever else is printed on the way


async def stack(folder: str) -> None:
    """Run the servers; each line that is read is one command for ``rabbitmqctl``, as a JSON list."""
    async with running_stack(Path(folder), say=_say, durable=True) as running:
        assert running.broker is not None, "RabbitMQ runs in a container, where it cannot be told anything"
        _tell(
            environment={service: dict(told) for service, told in running.environment.items()},
            databases={name: asdict(urls) for name, urls in running.databases.items()},
            admin_key=running.admin_key,
            watcher_url=running.watcher_url,
            admin_url=running.postgres.admin_url if running.postgres else "",
        )
        while line := await asyncio.to_thread(sys.stdin.readline):
            await _control(running.broker, json.loads(line))


async def _control(broker: BrokerServer, arguments: list[str]) -> None:
    try:
        _tell(said=await broker.control(*arguments))
    except Exception as error:  # noqa: BLE001 - whoever asked decides what it means
        _tell(failed=str(error))


async def migrated(service: str) -> None:
    """Bring a service's database up to date."""
    url = sys.stdin.readline().strip()
    _tell(applied=list(await migrate(url, service_migrations(service))))


async def databases(folder: str) -> None:
    """Bring databases and logins, with what these may do, up to date."""
    urls = await create_databases(sys.stdin.readline().strip(), load_or_create(Path(folder)).databases)
    _tell(databases=len(urls))


async def topology(folder: str) -> None:
    """Say what the broker must hold."""
    secrets = load_or_create(Path(folder))
    passwords = {**secrets.broker, DEPLOY: secrets.broker_deploy, WATCHER: secrets.broker_watcher}
    _tell(definitions=definitions(manifest(), passwords))


def _tell(**told: Any) -> None:
    _ANSWERS.write(json.dumps(told) + "\n")
    _ANSWERS.flush()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    configure_logs(form="console", level="error")
    actions = {"stack": stack, "migrate": migrated, "databases": databases, "topology": topology}
    asyncio.run(actions[sys.argv[1]](sys.argv[2]))
