import asyncio
import gzip
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import orjson
import pytest

from deploy.backup import cluster, compose, parked, programs, quiet, steps
from deploy.backup.compose import NotNowError
from deploy.backup.places import Words
from deploy.backup.programs import ProgramFailedError, said
from deploy.backup.quiet import NeverQuietError, at_quiet_moment
from deploy.backup.record import FILE, Record, UnusableBackupError, checked
from deploy.local.rabbitmq import BrokerServer
from deploy.local.secrets import load_or_create
from deploy.manifest import manifest
from deploy.parking import FORGED, Parking
from deploy.tests.backup import controlled, told
from deploy.tests.test_parking import delivered_too_often
from deploy.topology import DEPLOY, WATCHER, definitions
from shared.messaging.bus import Outcome, Parcel
from shared.messaging.ladder import REASON
from shared.messaging.rabbitmq import RabbitBus
from shared.messaging.topology import exchange_of, retry_exchange_of
from shared.testing import eventually

MOMENT = datetime(2026, 11, 22, 12, tzinfo=UTC)
HERE: Words = ()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


class TestRecord:
    @pytest.fixture
    def backup(self, tmp_path: Path) -> Path:
        (tmp_path / "base.tar.gz").write_bytes(b"all there is")
        Record("tenure-1", MOMENT, 2.04).write(tmp_path)
        return tmp_path

    def test_it_is_what_was_written(self, backup: Path) -> None:
        assert checked(backup) == Record("tenure-1", MOMENT, 2.0)

    def test_a_byte_that_has_changed_is_noticed(self, backup: Path) -> None:
        (backup / "base.tar.gz").write_bytes(b"all there iz")
        with pytest.raises(UnusableBackupError, match=r"base.tar.gz is not what it was"):
            checked(backup)

    def test_a_file_that_is_gone_is_noticed(self, backup: Path) -> None:
        (backup / "base.tar.gz").unlink()
        with pytest.raises(UnusableBackupError, match=r"base.tar.gz is missing"):
            checked(backup)

    def test_one_that_was_not_completed_is_none(self, backup: Path) -> None:
        (backup / FILE).unlink()
        with pytest.raises(UnusableBackupError, match=r"was never completed"):
            checked(backup)

    def test_one_of_a_later_format_is_not_guessed_at(self, backup: Path) -> None:
        (backup / FILE).write_text(json.dumps({"format": 2}))
        with pytest.raises(UnusableBackupError, match=r"is of format 2; this code reads 1"):
            checked(backup)


class TestPrograms:
    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        kept, copy = tmp_path / "kept.gz", tmp_path / "copy"
        programs.written(kept, ("seq", "1000000"), say)
        programs.read(kept, ("sh", "-c", f"cat > {copy}"), say)

        assert copy.read_text().splitlines() == [str(number) for number in range(1, 1_000_001)]
        assert kept.stat().st_size < copy.stat().st_size

    def test_one_that_fails_has_its_last_words_told_and_nothing_of_what_it_was_told(self, tmp_path: Path) -> None:
        failing = ("env", "PGPASSWORD=secret", "sh", "-c", "echo why >&2; exit 3")
        for run in (
            lambda: programs.said(*failing),
            lambda: programs.written(tmp_path / "kept", failing, say),
            lambda: programs.read(filled(tmp_path / "large.gz"), failing, say),
        ):
            with pytest.raises(ProgramFailedError, match=r"(?s)env sh -c .*ended with 3:\nwhy") as caught:
                run()
            assert "secret" not in str(caught.value)

    def test_one_of_which_nothing_comes_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(programs, "_STALLED_SECONDS", 0.3)
        began = time.monotonic()
        with pytest.raises(ProgramFailedError, match="has written nothing"):
            programs.written(tmp_path / "kept", ("sleep", "20"), say)
        with pytest.raises(ProgramFailedError, match="has read nothing"):
            programs.read(filled(tmp_path / "large.gz"), ("sleep", "20"), say)
        with pytest.raises(ProgramFailedError, match="took more than"):
            programs.said("sleep", "20", seconds=0.3)
        assert time.monotonic() - began < 10


def filled(path: Path) -> Path:
    path.write_bytes(gzip.compress(bytes(10_000_000), 1))
    return path


def test_databases_are_not_unpacked_over_others(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("18")
    filled(tmp_path / cluster.BASE)
    with pytest.raises(ProgramFailedError, match=r"There are data in .* already"):
        cluster.recover(tmp_path, "tenure-1", told({"PGDATA": str(tmp_path)}), say)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(NotNowError, match="is not empty"):
        compose._make(tmp_path)
    compose._make(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_what_could_not_be_completed_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, *_: object) -> Record:
        assert (folder / compose.SECRETS).exists()
        raise NeverQuietError("billing.work 1")

    monkeypatch.setattr(compose, "said", lambda *_: "it runs")
    monkeypatch.setattr(compose, "instead_of", lambda _: ("echo",))
    monkeypatch.setattr(steps, "save", fail)
    with pytest.raises(NeverQuietError):
        compose.save(tmp_path / "backup", say)
    assert not (tmp_path / "backup").exists()


def test_secrets_go_back_into_the_volumes_that_they_are_from(tmp_path: Path) -> None:
    made, given = ["operator/secrets.json", "postgres/password"], ["identity/TENURE_SMTP_URL"]
    for name in made + given:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    for names, expected in (
        (made, {"secrets": made}),
        (made + given, {"secrets": made, "prepare": given}),
    ):
        path = tmp_path / "secrets.tar.gz"
        programs.written(path, ("tar", "--create", "--directory", str(tmp_path), *names), say)
        assert compose._divided(path) == expected


def test_a_forgery_that_the_broker_parked_stays_one() -> None:
    """What the broker notes of a message is lost when it is published again: it becomes headers as services write."""
    for signer, reason in (("onboarding", "delivery_limit"), ("billing", FORGED)):
        parking: Any = Parking("metrics", "metrics", Mock(), Mock())
        line = orjson.loads(parked._line(parking, delivered_too_often(signer)))
        assert line["headers"][REASON] == reason
        assert line["headers"]["tenure-origin"] == "tenure.onboarding"


@dataclass(frozen=True)
class Node:
    """A broker with the queues of an installation."""

    server: BrokerServer
    passwords: Mapping[str, str]

    def bus(self, service: str = "onboarding") -> RabbitBus:
        return RabbitBus(self.server.url(service, self.passwords[service]), name=service)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("quiet")
    secrets = load_or_create(folder)
    passwords = {**secrets.broker, DEPLOY: secrets.broker_deploy, WATCHER: secrets.broker_watcher}
    path = folder / "definitions.json"
    path.write_text(json.dumps(definitions(manifest(), passwords)))
    server = BrokerServer(folder / "broker", definitions=path)
    asyncio.run(server.start())
    yield Node(server, passwords)
    server.kill()


@pytest.mark.broker
class TestQuiet:
    """On a node with the queues of an installation, and no service at work."""

    async def held(self, node: Node, block: float = 0.0, patience: float = 30.0) -> list[bool]:
        """Hold publishers for a block of seconds; return whether a message was taken within it, and after it."""
        bus, taken = node.bus(), list[bool]()
        place = controlled(node.server)

        def within(_parked: int) -> None:
            taken.append(asyncio.run_coroutine_threadsafe(takes(bus), loop).result(10))
            time.sleep(block)

        loop = asyncio.get_running_loop()
        await takes(bus, "nobody")
        try:
            await asyncio.to_thread(at_quiet_moment, place, within, say, patience=patience)
            taken.append(await is_taken_again(bus))
            return taken
        finally:
            await bus.close()
            await self.empty(node)

    async def empty(self, node: Node) -> None:
        for queue in ("billing.work", "billing.retry.30s"):
            await node.server.control("purge_queue", queue)

    async def limit(self, node: Node) -> str:
        return await node.server.control("eval", "vm_memory_monitor:get_vm_memory_high_watermark().")

    async def test_publishers_are_held_for_the_block_and_no_longer(self, node: Node) -> None:
        before = await self.limit(node)
        assert await self.held(node) == [False, True]
        assert await self.limit(node) == before

    async def test_whoever_takes_too_long_is_told_that_it_was_no_quiet_moment(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The broker lets publishers go by itself, as it does when who held them has died."""
        before = await self.limit(node)
        monkeypatch.setattr(quiet, "HELD_SECONDS", 4.0)
        with pytest.raises(NeverQuietError, match="more was to be done meanwhile"):
            await self.held(node, block=6.0)
        assert await self.limit(node) == before

    async def test_a_queue_of_which_nothing_is_known_is_not_taken_for_empty(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quiet, "_UNDER_WAY", frozenset({"billing.work", "dunning.work"}))
        with pytest.raises(ProgramFailedError, match=r"how many messages are in dunning.work\.$"):
            await asyncio.to_thread(at_quiet_moment, controlled(node.server), lambda _: None, say)

    async def test_only_one_holds_them(self, node: Node) -> None:
        before = await self.limit(node)

        def hold_again(_parked: int) -> None:
            at_quiet_moment(controlled(node.server), lambda _: None, say)

        with pytest.raises(ProgramFailedError, match="is another backup being made"):
            await asyncio.to_thread(at_quiet_moment, controlled(node.server), hold_again, say)
        assert await self.limit(node) == before

    async def test_it_is_sought_again_where_anything_has_happened_to_a_queue_meanwhile(self, node: Node) -> None:
        """Though it is as empty as before: the broker takes one message more of whoever has not published yet."""
        place, calls = controlled(node.server), list[int]()

        def act(parked: int) -> int:
            calls.append(parked)
            if len(calls) == 1:
                said(*place, "rabbitmqctl", "purge_queue", "billing.work")
            return len(calls)

        quiet = await asyncio.to_thread(at_quiet_moment, place, act, say)

        assert quiet.result == 2
        assert calls == [0, 0]

    @pytest.mark.parametrize(
        ("exchange", "key", "queue"),
        [
            (exchange_of("onboarding"), "billing.open_account.v1", "billing.work"),
            (retry_exchange_of("billing"), "retry.30s", "billing.retry.30s"),
        ],
    )
    async def test_what_is_under_way_is_waited_for_and_named(
        self, node: Node, exchange: str, key: str, queue: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quiet, "_EMPTYING_SECONDS", 1.0)
        monkeypatch.setattr(quiet, "_PAUSE_SECONDS", 0.1)
        bus = node.bus("onboarding" if queue == "billing.work" else "billing")
        try:
            assert await bus.publish([parcel(exchange, key)]) == [Outcome.CONFIRMED]
            with pytest.raises(NeverQuietError, match=f"there were messages under way, now: {queue} 1"):
                await self.held(node, patience=0.5)
        finally:
            await bus.close()
            await self.empty(node)


def parcel(exchange: str, key: str) -> Parcel:
    return Parcel(exchange, key, b"[]", "application/json", "1", mandatory=False)


async def takes(bus: RabbitBus, key: str = "nobody") -> bool:
    return list(await bus.publish([parcel(exchange_of("onboarding"), key)])) == [Outcome.CONFIRMED]


async def is_taken_again(bus: RabbitBus) -> bool:
    await eventually(lambda: takes(bus), describe="messages are taken")
    return True
