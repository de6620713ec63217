"""The volumes by which a container gets its secrets: mounted by the jobs, and by the one container it is for."""

from pathlib import Path

ROOT = Path("/secrets")
"""Where the jobs find the volumes, each in a folder named after the container that it is for."""

OPERATOR = "operator"
POSTGRES = "postgres"
RABBITMQ = "rabbitmq"
WATCHER = "watcher"

POSTGRES_PASSWORD = "password"  # noqa: S105 - the name of a file
DEFINITIONS = "definitions.json"

_ALL_IN_THIS_CONTAINER = 0o444
_UNFINISHED = ".new"


def put(folder: Path, name: str, content: str) -> None:
    """Write a file of a volume, all of it or nothing.

    Whoever is in the container may read it: the volume is the wall, and what runs as another user must read it too.
    """
    unfinished = folder / f"{name}{_UNFINISHED}"
    unfinished.unlink(missing_ok=True)
    unfinished.write_text(content, encoding="utf-8")
    unfinished.chmod(_ALL_IN_THIS_CONTAINER)
    unfinished.replace(folder / name)
