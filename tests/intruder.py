"""Somebody who has a service's broker login and his own AMQP client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from deploy.local.stack import Stack
from shared.messaging.event import BATCH


def broker_login(stack: Stack, service: str) -> str:
    """Return a service's AMQP URL."""
    return stack.environment[service][f"TENURE_{service.upper()}_AMQP_URL"]


@asynccontextmanager
async def channel_of(url: str) -> AsyncIterator[AbstractChannel]:
    """Open a channel of one's own; a refusal closes it."""
    async with await aio_pika.connect(url, timeout=10) as connection:
        yield await connection.channel(on_return_raises=True)


def signed(login: str | None, body: bytes = b"[]", **properties: Any) -> aio_pika.Message:
    """Make a message that says which login it is from; it may lie."""
    return aio_pika.Message(body, content_type=BATCH, user_id=login, **properties)


async def refused_to_publish(url: str, exchange: str, message: aio_pika.Message, routing_key: str = "work") -> None:
    """Expect that the broker refuses to publish there."""
    async with channel_of(url) as channel:
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        with pytest.raises(ChannelAccessRefused):
            await target.publish(message, routing_key, timeout=10)


async def refused_to_read(url: str, queue_name: str) -> None:
    """Expect that the broker refuses to read there."""
    async with channel_of(url) as channel:
        queue = await channel.get_queue(queue_name, ensure=False)
        with pytest.raises(ChannelAccessRefused):
            await queue.get(timeout=10)
