"""RabbitMQ in a container; where there is no Docker engine with the image, there is nothing to see."""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
import pytest_asyncio

from deploy.local import container
from deploy.local.container import IMAGE, ContainerBroker, engine_answers, erase
from deploy.local.rabbitmq import MissingBrokerError
from deploy.manifest import manifest
from deploy.topology import DEPLOY, WATCHER, definitions
from shared.contracts import SERVICES
from shared.messaging.bus import Outcome, Parcel
from shared.messaging.rabbitmq import RabbitBus


def has_image() -> bool:
    return engine_answers() and subprocess.run(["docker", "image", "inspect", IMAGE], check=False).returncode == 0


needs_engine = pytest.mark.skipif(not has_image(), reason=f"no Docker engine that has {IMAGE}")


@pytest.fixture
def definitions_file(tmp_path: Path) -> Path:
    path = tmp_path / "definitions.json"
    passwords = dict.fromkeys((*SERVICES, DEPLOY, WATCHER), "pw")
    path.write_text(json.dumps(definitions(manifest(), passwords)), encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest_asyncio.fixture
async def broker(tmp_path: Path, definitions_file: Path) -> AsyncIterator[ContainerBroker]:
    if not engine_answers():
        pytest.skip("no Docker engine")
    broker = ContainerBroker(tmp_path / "rabbitmq", definitions=definitions_file)
    yield broker
    broker.kill()
    erase(broker.folder)


@needs_engine
async def test_it_has_the_topology_and_keeps_messages_over_stop_and_kill(broker: ContainerBroker) -> None:
    await broker.start()
    bus = RabbitBus(broker.url("onboarding", "pw"), name="test")
    parcel = Parcel("tenure.onboarding", "tenant.register_tenant.v1", b"{}", "application/json", "1")
    assert await bus.publish([parcel]) == [Outcome.CONFIRMED]
    await bus.close()

    await broker.stop()
    await broker.start()
    broker.kill()
    await broker.start()

    async with await aio_pika.connect(broker.url("tenant", "pw")) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("tenant.work", ensure=False)
        message = await queue.get(timeout=10)
    assert message is not None
    assert message.body == b"{}"


async def test_an_image_that_cannot_be_had_is_named(broker: ContainerBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "IMAGE", "tenure.invalid/rabbitmq:none")

    with pytest.raises(MissingBrokerError, match=r"tenure\.invalid/rabbitmq:none"):
        await broker.start()


def test_a_machine_without_docker_has_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert not engine_answers()
