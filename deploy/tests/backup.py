"""Where the programs of servers run that belong to a data folder: here, told where the servers are."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.backup.places import Places, Words
from deploy.local import postgres as local_postgres
from deploy.local.accounts import reachable_folder, unprivileged_account
from deploy.local.postgres import ADMINISTRATOR, PostgresServer
from deploy.local.rabbitmq import BrokerServer


def told(environment: Mapping[str, str]) -> Words:
    """Return what runs a program in an environment of its own."""
    return ("env", *(f"{name}={value}" for name, value in environment.items()))


def places(data: Path, postgres: PostgresServer, broker: BrokerServer) -> Places:
    """Return the places of a running installation."""
    server = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": ADMINISTRATOR}
    return Places(
        postgres=told(server | {"PGPASSWORD": postgres._password(), "PATH": _programs()}),
        rabbitmq=controlled(broker),
        operator=(*told({"TENURE_DATA_DIR": str(data)}), sys.executable, "-m"),
        vacant=(),
    )


def controlled(broker: BrokerServer) -> Words:
    """Return what runs ``rabbitmqctl`` for a node."""
    return told(broker._environment() | {"PATH": f"{broker._program.parent}:{os.environ['PATH']}"})


def vacant(data: Path) -> Places:
    """Return the places of an installation that is yet to be made: nothing but where its databases will be."""
    account = unprivileged_account()
    cluster = reachable_folder(data / "postgres", account) / "data"
    cluster.mkdir(parents=True)
    own: Words = ()
    if account is not None:
        os.chown(cluster, account.user, account.group)
        own = ("setpriv", f"--reuid={account.user}", f"--regid={account.group}", "--clear-groups")
    return Places((), (), (), vacant=(*own, *told({"PGDATA": str(cluster), "PATH": _programs()})))


def _programs() -> str:
    return f"{local_postgres._programs(unprivileged_account())}:{os.environ['PATH']}"
