"""TCP ports of this machine: free ones, and who holds a taken one."""

import secrets
import socket
from pathlib import Path

from deploy.local.processes import name_of

_LOWEST = 15_000
_ATTEMPTS = 200
_LISTENING = "0A"  # TCP_LISTEN in the kernel's include/net/tcp_states.h
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class PortTakenError(Exception):
    """Somebody else listens on a port that we were told to use."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1, outside the range that outgoing connections are given.

    A server that is killed and started again must find its port free. In the outgoing range a client that keeps
    trying to reconnect can be given the server's port as its own, connect to itself, and hold it.

    Raises:
        PortTakenError: none was found.
    """
    first_outgoing = _first_outgoing_port()
    if first_outgoing <= _LOWEST:
        return _any_free_port()
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(first_outgoing - _LOWEST)
        if is_free(port):
            return port
    raise PortTakenError(f"no free port between {_LOWEST} and {first_outgoing}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on a port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what servers set: TIME_WAIT does not count
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(port: int, variable: str | None = None, host: str = "127.0.0.1") -> None:
    """Check that a server will get its port, before it is started.

    Args:
        port: the wanted port.
        variable: the environment variable that chooses another, if a person can choose.
        host: the address to listen on.

    Raises:
        PortTakenError: with a message that says who holds it and what to type.
    """
    if is_free(port, host):
        return
    message = f"Port {port} is in use by {describe_port_owner(port)}."
    if variable is not None:
        message += f" Choose another with {variable}={_next_free(port, host)}"
    raise PortTakenError(message)


def describe_port_owner(port: int) -> str:
    """Return who listens on a port as ``process 4123 (node)``.

    Another user's process cannot be seen without root; then the answer is ``another process``.
    """
    inodes = _listening_inodes(port)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and inodes & _socket_inodes(folder / "fd"):
            return f"process {folder.name} ({name_of(int(folder.name))})"
    return "another process"


def _next_free(port: int, host: str) -> int:
    following = range(port + 1, min(port + 100, 65_536))
    return next((candidate for candidate in following if is_free(candidate, host)), 0) or free_port()


def _first_outgoing_port() -> int:
    try:
        return int(_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except OSError:
        return 0


def _any_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listening_inodes(port: int) -> set[str]:
    """Return the socket inodes that listen on a port, from the kernel's tables (proc(5), /proc/net/tcp)."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def _socket_inodes(descriptors: Path) -> set[str]:
    inodes = set()
    try:
        for descriptor in descriptors.iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    except OSError:
        return inodes
    return inodes
