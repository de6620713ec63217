"""The queue that keeps what the central topic says."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from services.provisioning.drivers.aws import AwsTerms
from services.provisioning.drivers.aws.calls import Caller, Calls

log = structlog.get_logger(__name__)

MOST = 10
"""How many messages Amazon gives away or forgets at a time."""

HIDDEN_SECONDS = 120
"""How long nobody else is given what was received."""


@dataclass(frozen=True, slots=True)
class Received:
    """One message.

    Attributes:
        receipt: what it is deleted by.
        queued_at: when the queue got it.
    """

    receipt: str
    body: str
    queued_at: datetime


@contextmanager
def open_queue(terms: AwsTerms, url: str, *, hidden_seconds: int = HIDDEN_SECONDS) -> Iterator["Queue"]:
    """Return a queue, asked with our own credentials, whose connections are closed at the end."""
    calls = Calls(terms)
    caller = Caller(calls, terms.region)
    try:
        yield Queue(caller, url, hidden_seconds=hidden_seconds)
    finally:
        caller.close()
        calls.close()


class Queue:
    """A queue of Amazon's.

    Args:
        caller: may receive its messages and delete them.
        url: Amazon's name of it.
        hidden_seconds: how long nobody else is given what was received, unless it was deleted by then.
    """

    def __init__(self, caller: Caller, url: str, *, hidden_seconds: int) -> None:
        self._caller = caller
        self._url = url
        self._hidden_seconds = hidden_seconds

    async def receive(self, *, wait_seconds: int) -> list[Received]:
        """Return up to `MOST` messages, waiting for the first one so long.

        Raises:
            RefusedCallError: Amazon gives none.
            NoAnswerError: Amazon does not answer.
        """
        answer = await self._caller.call(
            "sqs",
            "receive_message",
            QueueUrl=self._url,
            MaxNumberOfMessages=MOST,
            WaitTimeSeconds=wait_seconds,
            VisibilityTimeout=self._hidden_seconds,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        return [
            Received(
                each["ReceiptHandle"],
                each["Body"],
                datetime.fromtimestamp(int(each["Attributes"]["SentTimestamp"]) / 1000, UTC),
            )
            for each in answer.get("Messages", [])
        ]

    async def delete(self, received: Sequence[Received]) -> None:
        """Forget messages; one that cannot be forgotten now is received again.

        Raises:
            RefusedCallError: Amazon forgets none.
            NoAnswerError: Amazon does not answer.
        """
        await asyncio.gather(*(self._delete(received[at : at + MOST]) for at in range(0, len(received), MOST)))

    async def _delete(self, received: Sequence[Received]) -> None:
        entries = [{"Id": str(at), "ReceiptHandle": each.receipt} for at, each in enumerate(received)]
        answer = await self._caller.call("sqs", "delete_message_batch", QueueUrl=self._url, Entries=entries)
        if failed := answer.get("Failed"):
            codes = sorted({each["Code"] for each in failed})
            log.warning("mail events come again", action="mail_not_deleted", count=len(failed), codes=codes)
