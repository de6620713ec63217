import os
import socket
from pathlib import Path

import pytest

from deploy.local.ports import PortTakenError, describe_port_owner, free_port, is_free, require_free
from deploy.local.processes import name_of


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert is_free(port)
    socket.create_server(("127.0.0.1", port)).close()


def test_a_free_port_is_never_one_of_an_outgoing_connection() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < first_outgoing for _ in range(50))


def test_a_taken_port_is_described_by_who_holds_it() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port = listener.getsockname()[1]
        assert describe_port_owner(port) == f"process {os.getpid()} ({name_of(os.getpid())})"


def test_a_chosen_port_that_is_taken_is_refused_with_what_to_type() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTakenError) as refusal:
            require_free(port, "TENURE_PORT")
    begin, _, suggestion = str(refusal.value).rpartition("=")
    assert (
        begin
        == f"Port {port} is in use by process {os.getpid()} ({name_of(os.getpid())}). Choose another with TENURE_PORT"
    )
    assert int(suggestion) != port
    assert is_free(int(suggestion))


def test_a_chosen_port_that_is_free_is_accepted() -> None:
    require_free(free_port(), "TENURE_PORT")
