"""Silos whose tenants send mail, and what Amazon tells of that: said by us, as moto says nothing."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from services.provisioning.drivers.aws import AwsDriver
from services.provisioning.mail import Applying, Limits, Queue, Reader, Recorder, Reporter
from services.provisioning.queries import environments
from services.provisioning.tests.cloud import TOPIC, Cloud
from services.provisioning.tests.world import World
from shared.changes import Changes
from shared.clock import ManualClock, SystemClock
from shared.contracts.base import Message
from shared.contracts.provisioning import DecisionRecorded, MailReported, MailSendingPaused, MailSendingResumed
from shared.messaging.event import decode
from shared.postgres import Pool
from shared.testing.decisions import changes_on

HIDDEN_SECONDS = 2
ADDRESS = "somebody@people.example"


@dataclass
class Mail:
    """The service with silos, without a broker; its clock shows the real time until it is moved on.

    Attributes:
        url: of the queue.
    """

    cloud: Cloud
    pool: Pool
    driver: AwsDriver
    queue: Queue
    url: str
    limits: Limits = field(default_factory=Limits)
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime.now(UTC)))

    def __post_init__(self) -> None:
        self.world = World(self.pool, self.driver, clock=self.clock)
        self.sqs = self.cloud.open("sqs")
        self.sns = self.cloud.open("sns")

    def reader(self, **more: Any) -> Reader:
        """Return the reader of another replica."""
        return Reader(self.queue, Recorder(self.pool, clock=self.clock), clock=SystemClock(), idle_seconds=0, **more)

    @property
    def changes(self) -> Changes:
        """What leaves all that is told in the outbox."""
        return changes_on(self.pool, DecisionRecorded, clock=self.clock)

    @property
    def reporter(self) -> Reporter:
        """Who tells."""
        return Reporter(self.changes, self.limits, clock=self.clock)

    def applying(self) -> Applying:
        """Return what switches mail on and off, of another replica."""
        return Applying(self.pool, self.world.drivers, clock=self.clock)

    async def tenant(self, tenant_id: str) -> str:
        """Record an environment as if it were a silo, and return its account, which nobody has made."""
        account_id = f"{int(hashlib.sha256(tenant_id.encode()).hexdigest(), 16) % 10**12:012}"
        await self.pool.execute(
            """
            INSERT INTO environment (environment_id, tenant_id, driver, isolation, region, resources, created_at)
            VALUES ($1, $2, 'aws', 'silo', 'local', $3, $4)
            """,
            uuid4(),
            tenant_id,
            {"accountId": account_id},
            self.clock.now(),
        )
        return account_id

    async def silo(self, tenant_id: str) -> str:
        """Make a silo that sends mail, and return its account."""
        self.cloud.plan.verified.add(f"{tenant_id}.mail.example.com")
        parameters = {"mailDomain": "{tenantId}.mail.example.com"}
        await self.world.provision(tenant_id, isolation="silo", parameters=parameters)
        async with self.pool.acquire() as connection:
            row = await environments.get(connection, tenant_id)
        assert row is not None
        account_id: str = row["resources"]["accountId"]
        return account_id

    def say(self, *documents: Any) -> None:
        """Let the central topic say something."""
        for each in documents:
            self.sns.publish(TopicArn=TOPIC, Message=each if isinstance(each, str) else json.dumps(each))

    def put(self, *bodies: str) -> None:
        """Put something into the queue as it is."""
        for each in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=each)

    async def look(self) -> int:
        """Read what there is."""
        reader, total = self.reader(), 0
        while taken := await reader.look():
            total += taken
        return total

    async def take(self, *documents: Any) -> None:
        """Let the topic say something, read it and tell of it."""
        self.say(*documents)
        await self.look()
        await self.reporter.report_all()

    def left(self) -> int:
        """Return how many messages the queue has, seen by nobody or not forgotten."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    async def counts(self, tenant_id: str) -> dict[str, int]:
        """Return what was counted of a tenant."""
        rows = await self.pool.fetch(
            "SELECT event, sum(count)::bigint AS count FROM mail_count WHERE tenant_id = $1 GROUP BY event", tenant_id
        )
        return {row["event"]: row["count"] for row in rows}

    async def oddities(self) -> dict[str, int]:
        """Return what came in and was nobody's."""
        rows = await self.pool.fetch("SELECT reason, sum(count)::bigint AS count FROM mail_oddity GROUP BY reason")
        return {row["reason"]: row["count"] for row in rows}

    async def told(self) -> list[Message]:
        """Return what of mails is on its way to others."""
        rows = await self.pool.fetch("SELECT event FROM outbox ORDER BY id")
        messages = [decode(json.loads(row["event"])).message for row in rows]
        return [each for each in messages if isinstance(each, MailReported | MailSendingPaused | MailSendingResumed)]

    async def reported(self, tenant_id: str) -> Counter[str]:
        """Return what others were told of a tenant, added up."""
        facts = [each for each in await self.told() if isinstance(each, MailReported) and each.tenant_id == tenant_id]
        return sum((Counter(each.counts) for each in facts), Counter[str]())


def opened(cloud: Cloud, *, is_raw: bool = False) -> str:
    """Make the central topic and its queue as an operator does, and return the queue's URL."""
    sns, sqs = cloud.open("sns"), cloud.open("sqs")
    assert sns.create_topic(Name="mail")["TopicArn"] == TOPIC
    url: str = sqs.create_queue(QueueName="mail")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    attributes = {"RawMessageDelivery": "true"} if is_raw else {}
    sns.subscribe(TopicArn=TOPIC, Protocol="sqs", Endpoint=arn, Attributes=attributes)
    return url


def event(
    account_id: str,
    name: str,
    *,
    at: datetime,
    sent_at: datetime | None = None,
    to: Sequence[str] = (ADDRESS,),
    **more: Any,
) -> dict[str, Any]:
    """Return what Amazon says of a mail, in the form of its documentation; ``more`` is what it says of the event."""
    details = {"timestamp": stamp(at), **more}
    return {
        "eventType": name,
        "mail": {
            "timestamp": stamp(sent_at or at),
            "messageId": str(uuid4()),
            "source": f"Sender <sender@{account_id}.example>",
            "sourceArn": f"arn:aws:ses:eu-central-1:{account_id}:identity/sender",
            "sendingAccountId": account_id,
            "destination": list(to),
            "headersTruncated": False,
            "headers": [{"name": "Subject", "value": "A secret subject"}],
            "commonHeaders": {"to": list(to), "subject": "A secret subject"},
            "tags": {"ses:configuration-set": ["tenure"]},
        },
        {"Rendering Failure": "failure", "DeliveryDelay": "deliveryDelay"}.get(name, name.lower()): details,
    }


def send(account_id: str, *, at: datetime, recipients: int = 1) -> dict[str, Any]:
    """Return that a mail was sent."""
    told = event(account_id, "Send", at=at, to=[f"{number}@people.example" for number in range(recipients)])
    return told | {"send": {}}


def bounce(account_id: str, *, at: datetime, sent_at: datetime | None = None, recipients: int = 1) -> dict[str, Any]:
    """Return that addresses do not exist."""
    bounced = [{"emailAddress": f"{number}@people.example", "status": "5.1.1"} for number in range(recipients)]
    details: dict[str, Any] = {"bounceType": "Permanent", "bounceSubType": "General", "bouncedRecipients": bounced}
    return event(account_id, "Bounce", at=at, sent_at=sent_at, **details)


def complaint(account_id: str, *, at: datetime) -> dict[str, Any]:
    """Return that somebody has complained."""
    return event(account_id, "Complaint", at=at, complainedRecipients=[{"emailAddress": ADDRESS}])


def wrapped(document: Any, *, message_id: str | None = None, at: datetime) -> str:
    """Return what the topic makes of something."""
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": message_id or str(uuid4()),
            "TopicArn": TOPIC,
            "Message": document if isinstance(document, str) else json.dumps(document),
            "Timestamp": stamp(at),
            "SignatureVersion": "1",
            "Signature": "…",
        }
    )


def stamp(moment: datetime) -> str:
    """Write a moment as Amazon does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def hour_of(moment: datetime, *, back: int = 0) -> datetime:
    """Return the beginning of an hour, or of one before."""
    return moment.replace(minute=0, second=0, microsecond=0) - timedelta(hours=back)
