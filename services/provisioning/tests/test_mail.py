"""Mail events as they come in: counted once and for whom they concern, told, and acted upon, whatever is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from services.provisioning.drivers import DriverUnavailableError, Environment
from services.provisioning.drivers.aws import open_aws
from services.provisioning.jobs.job import Settings
from services.provisioning.mail import Limits, Recorder, open_queue
from services.provisioning.mail.applying import CLAIM
from services.provisioning.mail.notices import read
from services.provisioning.queries import environments
from services.provisioning.queries import mail as queries
from services.provisioning.tests.aws_kit import lent
from services.provisioning.tests.cloud import Cloud
from services.provisioning.tests.mail_kit import (
    ADDRESS,
    HIDDEN_SECONDS,
    Mail,
    bounce,
    complaint,
    event,
    hour_of,
    opened,
    send,
    wrapped,
)
from services.provisioning.tests.support import residue
from shared.clock import SystemClock
from shared.contracts.provisioning import (
    DeprovisionEnvironment,
    MailReported,
    MailSendingPaused,
    RemoveEnvironment,
)
from shared.postgres import Connection, Pool
from shared.testing import eventually
from shared.testing.decisions import decided
from shared.testing.three_services import asked

FEW = Limits(least_sends=10)


@asynccontextmanager
async def mailing(cloud: Cloud, pool: Pool, **more: Any) -> AsyncIterator[Mail]:
    url = opened(cloud, is_raw=more.pop("is_raw", False))
    async with open_aws(cloud.terms(), clock=SystemClock()) as driver:
        with open_queue(cloud.terms(), url, hidden_seconds=HIDDEN_SECONDS) as queue:
            yield Mail(cloud, pool, driver, queue, url, **more)


@pytest.fixture
async def mail(cloud: Cloud, pool: Pool) -> AsyncIterator[Mail]:
    async with mailing(cloud, pool, limits=FEW) as mail:
        yield mail


async def paused(mail: Mail) -> list[str]:
    rows = await mail.pool.fetch("SELECT tenant_id FROM mail_sending WHERE paused_at IS NOT NULL ORDER BY 1")
    return [row["tenant_id"] for row in rows]


async def environment_of(mail: Mail, tenant_id: str) -> Settings:
    async with mail.pool.acquire() as connection:
        row = await environments.get(connection, tenant_id)
    assert row is not None
    return Settings.of(row)


class TestReading:
    async def test_what_amazon_tells_is_counted_for_whom_it_concerns_and_forgotten_by_the_queue(
        self, mail: Mail
    ) -> None:
        first, second = await mail.silo("a"), await mail.silo("b")
        now = mail.clock.now()

        mail.say(
            send(first, at=now, recipients=3),
            event(first, "Delivery", at=now, recipients=["x@people.example", "y@people.example"]),
            bounce(first, at=now),
            send(second, at=now),
            event(second, "Open", at=now),
        )
        assert await mail.look() == 5

        assert await mail.counts("a") == {"send": 3, "delivery": 2, "permanent_bounce": 1}
        assert await mail.counts("b") == {"send": 1, "open": 1}
        assert (await mail.oddities(), mail.left()) == ({}, 0)

    async def test_what_is_delivered_twice_counts_once(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        body = wrapped(send(account_id, at=now), at=now)

        mail.put(body, body)
        assert await mail.look() == 2
        mail.put(body)
        assert await mail.look() == 1

        assert (await mail.counts("a"), mail.left()) == ({"send": 1}, 0)

    async def test_a_crash_between_the_commit_and_the_queues_forgetting_counts_nothing_twice(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        mail.say(*(send(account_id, at=now) for _ in range(3)))

        with mail.cloud.refusing("DeleteMessageBatch", "InternalError"), pytest.raises(DriverUnavailableError):
            await mail.reader().look()
        assert (await mail.counts("a"), mail.left()) == ({"send": 3}, 3)

        await eventually(lambda: self._comes_again(mail), within=HIDDEN_SECONDS + 10, describe="it comes again")
        assert (await mail.counts("a"), mail.left()) == ({"send": 3}, 0)

    async def _comes_again(self, mail: Mail) -> bool:
        return await mail.look() == 3

    async def test_what_was_received_and_lost_before_the_commit_is_counted_later(
        self, mail: Mail, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        mail.say(send(account_id, at=now))
        struck = asyncio.Event()

        async def die(*_: object, **__: object) -> None:
            struck.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(queries, "count", die)
            dying = asyncio.create_task(mail.reader().look())
            await asyncio.wait_for(struck.wait(), 10)
            dying.cancel()
            await asyncio.wait([dying])
        assert await mail.counts("a") == {}

        await eventually(lambda: self._is_taken(mail), within=HIDDEN_SECONDS + 10, describe="it comes again")
        assert await mail.counts("a") == {"send": 1}

    async def _is_taken(self, mail: Mail) -> bool:
        return await mail.look() == 1

    async def test_what_is_nobodys_is_counted_by_its_reason_and_nothing_of_it_is_shown(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()

        mail.say(
            "Successfully validated SNS topic for Amazon SES event publishing.",
            f"{ADDRESS} is no JSON",
            {"eventType": "Dance", "mail": {"destination": [ADDRESS]}},
            bounce("999988887777", at=now),
            send(account_id, at=now),
        )
        old = mail.clock.now() - timedelta(days=16)
        mail.put(wrapped(send(account_id, at=old), at=old), "{")
        with capture_logs() as logs:
            assert await mail.look() == 7

        assert await mail.oddities() == {
            "greeting": 1, "unreadable": 2, "unknown_event": 1, "stranger": 1, "too_old": 1,
        }  # fmt: skip
        assert (await mail.counts("a"), mail.left()) == ({"send": 1}, 0)
        (logged,) = [each for each in logs if each["action"] == "mail_oddities"]
        assert logged["accounts"] == ["999988887777"]
        assert "people.example" not in str(logs)

    async def test_whose_a_mail_is_the_account_says_and_not_what_the_mail_says_of_tenants(self, mail: Mail) -> None:
        _, second, now = await mail.tenant("a"), await mail.tenant("b"), mail.clock.now()
        forged = send(second, at=now)
        forged["mail"]["tags"] = {"tenure:tenant": ["a"], "tenantId": ["a"]}

        mail.say(forged | {"tenantId": "a"})
        await mail.look()

        assert (await mail.counts("a"), await mail.counts("b")) == ({}, {"send": 1})

    async def test_bare_messages_are_read_as_well_and_each_counts_once(self, cloud: Cloud, pool: Pool) -> None:
        async with mailing(cloud, pool, is_raw=True) as mail:
            account_id, now = await mail.tenant("a"), mail.clock.now()
            document = send(account_id, at=now)

            mail.say(document, document, send(account_id, at=now))
            await mail.look()

            assert (await mail.counts("a"), await mail.oddities()) == ({"send": 2}, {})

    async def test_events_that_come_late_and_in_any_order_are_counted_in_their_own_hours(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        ahead = now + timedelta(hours=3)  # its clock is not ours

        for at in (now, now - timedelta(hours=2), ahead, now - timedelta(days=3), now - timedelta(hours=2)):
            mail.say(send(account_id, at=at))
        await mail.look()

        rows = await mail.pool.fetch("SELECT hour, count FROM mail_count ORDER BY hour")
        expected = [(hour_of(now, back=72), 1), (hour_of(now, back=2), 2), (hour_of(now), 2)]
        assert [tuple(row) for row in rows] == expected

    async def test_a_full_queue_is_read_many_at_a_time(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        mail.say(*(send(account_id, at=now) for _ in range(45)))
        reader = mail.reader()

        assert await reader.look() == 10
        assert await reader.look() >= 35  # one may be given away twice, to two that ask at once

        assert (await mail.counts("a"), mail.left()) == ({"send": 45}, 0)

    async def test_readers_of_two_replicas_that_share_tenants_never_wait_in_a_circle(self, mail: Mail) -> None:
        accounts, now = [await mail.tenant(name) for name in ("a", "b", "c")], mail.clock.now()
        for _ in range(10):
            mail.say(*(send(each, at=now) for each in accounts), *(send(each, at=now) for each in accounts[::-1]))

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(mail.look())

        assert [await mail.counts(name) for name in ("a", "b", "c")] == [{"send": 20}] * 3

    async def test_one_that_cannot_be_recorded_stops_no_other_and_is_left_to_its_queue(
        self, mail: Mail, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good, bad, now = await mail.tenant("a"), await mail.tenant("b"), mail.clock.now()
        count = queries.count

        async def fail(connection: Connection, counted: Any) -> None:
            if any(each.tenant_id == "b" for each in counted):
                raise ValueError(ADDRESS)
            await count(connection, counted)

        monkeypatch.setattr(queries, "count", fail)
        mail.say(send(good, at=now), send(bad, at=now), send(good, at=now))
        with capture_logs() as logs:
            assert await mail.reader().look() == 2

        assert (await mail.counts("a"), mail.left()) == ({"send": 2}, 1)
        assert [each["error"] for each in logs if each["action"] == "mail_not_recorded"] == ["ValueError"]
        assert ADDRESS not in str(logs)


class TestOutages:
    async def test_while_the_database_is_away_nothing_more_is_received_and_nothing_is_lost(
        self, mail: Mail, admin: Connection
    ) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        name = await mail.pool.fetchval("SELECT current_database()")
        # Two sets of messages: the first is received just before it is seen that the database is away.
        mail.say(*(send(account_id, at=now) for _ in range(3)))
        running = None
        try:
            await admin.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            with capture_logs() as logs:
                running = asyncio.create_task(mail.reader().run())
                await eventually(lambda: self._tries(logs) >= 3, describe="it has tried in vain")
            received = mail.cloud.asked.count("ReceiveMessage")
            mail.say(*(send(account_id, at=now) for _ in range(4)))
            await asyncio.sleep(0.5)
            assert mail.cloud.asked.count("ReceiveMessage") == received
        finally:
            await admin.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')

        await eventually(lambda: self._has_counted(mail, 7), describe="all is counted")
        await eventually(lambda: mail.left() == 0, describe="all is forgotten", within=HIDDEN_SECONDS + 10)
        await ended(running)
        assert await mail.counts("a") == {"send": 7}

    def _tries(self, logs: list[Any]) -> int:
        return sum(each["action"] == "mail_unavailable" for each in logs)

    async def _has_counted(self, mail: Mail, many: int) -> bool:
        return await mail.counts("a") == {"send": many}

    async def test_while_amazon_is_away_it_is_waited_for(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        mail.say(send(account_id, at=now))
        with capture_logs() as logs, mail.cloud.away():
            running = asyncio.create_task(mail.reader().run())
            await eventually(
                lambda: sum(each["action"] == "mail_queue_unavailable" for each in logs) >= 2, describe="two failures"
            )
        await eventually(lambda: self._has_counted(mail, 1), describe="it goes on")
        await ended(running)

    async def test_what_is_received_beside_a_failure_is_not_lost_for_a_while(
        self, mail: Mail, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        mail.say(*(send(account_id, at=now) for _ in range(20)))
        reader, receive, asked_for = mail.reader(), mail.queue.receive, 0
        await reader.look()

        async def fail_once(**more: Any) -> Any:
            nonlocal asked_for
            asked_for += 1
            if asked_for == 1:
                raise DriverUnavailableError("struck")
            return await receive(**more)

        monkeypatch.setattr(mail.queue, "receive", fail_once)
        assert await reader.look() == 10
        assert asked_for > 1


class TestTelling:
    async def test_what_is_new_is_told_once_by_the_tenant_and_the_hour(self, mail: Mail) -> None:
        first, second, now = await mail.tenant("a"), await mail.tenant("b"), mail.clock.now()
        before = now - timedelta(hours=2)

        await mail.take(send(first, at=now), send(first, at=now), send(first, at=before), send(second, at=now))
        assert await mail.told() == [
            MailReported(tenant_id="a", hour=hour_of(before), counts={"send": 1}),
            MailReported(tenant_id="a", hour=hour_of(now), counts={"send": 2}),
            MailReported(tenant_id="b", hour=hour_of(now), counts={"send": 1}),
        ]

        await mail.take(event(first, "Open", at=now), send(first, at=now))
        assert (await mail.told())[3:] == [
            MailReported(tenant_id="a", hour=hour_of(now), counts={"open": 1, "send": 1})
        ]
        await mail.reporter.report_all()
        assert len(await mail.told()) == 4

    async def test_what_is_counted_while_others_tell_is_told_once_all_the_same(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        for _ in range(6):
            mail.say(*(send(account_id, at=now) for _ in range(10)))

        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(mail.look()) for _ in range(3)]
            for _ in range(2):
                group.create_task(self._report_while(mail, reading))
        await mail.reporter.report_all()

        assert await mail.reported("a") == {"send": 60}

    async def _report_while(self, mail: Mail, reading: list[asyncio.Task[int]]) -> None:
        while not all(each.done() for each in reading):
            await mail.reporter.report_all()
            await asyncio.sleep(0.01)

    async def test_what_was_told_long_ago_is_forgotten_and_what_was_not_is_kept(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        await mail.take(send(account_id, at=now), "rubbish")
        mail.say(bounce(account_id, at=now))
        await mail.look()
        recorder = Recorder(mail.pool, clock=mail.clock)

        await mail.clock.advance(timedelta(days=34).total_seconds())
        assert await recorder.sweep() == 0
        await mail.clock.advance(timedelta(days=2).total_seconds())
        assert await recorder.sweep() == 1

        assert (await mail.counts("a"), await mail.oddities()) == ({"permanent_bounce": 1}, {})

    async def test_what_was_counted_is_remembered_for_longer_than_a_queue_keeps_it(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        body = wrapped(send(account_id, at=now), at=now)
        mail.put(body)
        await mail.look()

        await mail.clock.advance(timedelta(days=15).total_seconds())
        mail.put(body)
        await mail.look()
        assert (await mail.counts("a"), await mail.oddities()) == ({"send": 1}, {})

        await mail.clock.advance(timedelta(days=1).total_seconds())
        mail.put(body)
        await mail.look()
        assert (await mail.counts("a"), await mail.oddities()) == ({"send": 1}, {"too_old": 1})
        days = "SELECT count(*) FROM pg_partition_tree('mail_seen') WHERE isleaf"
        assert await mail.pool.fetchval(days) == 17

    async def test_who_records_for_days_remembers_each_of_them(self, mail: Mail) -> None:
        account_id, recorder = await mail.tenant("a"), Recorder(mail.pool, clock=mail.clock)
        notices = []
        for _ in range(4):
            now = mail.clock.now()
            notices.append(read(wrapped(send(account_id, at=now), at=now), queued_at=now))
            await recorder.record(notices)
            await mail.clock.advance(timedelta(days=1).total_seconds())

        assert await mail.counts("a") == {"send": 4}


class TestPausing:
    async def test_a_tenant_whose_mails_bounce_is_paused_in_its_account_once_and_everybody_is_told(
        self, mail: Mail
    ) -> None:
        account_id, other = await mail.silo("a"), await mail.silo("b")
        now = mail.clock.now()
        await mail.take(send(account_id, at=now, recipients=20), send(other, at=now, recipients=20))
        assert await paused(mail) == []

        await mail.take(*(bounce(account_id, at=now) for _ in range(2)), bounce(other, at=now))
        await asyncio.gather(*(mail.applying().apply_all() for _ in range(3)))
        await mail.take(*(bounce(account_id, at=now) for _ in range(5)))
        await mail.applying().apply_all()

        assert await paused(mail) == ["a"]
        assert mail.cloud.plan.mute == {account_id}
        assert mail.cloud.asked.count("UpdateAccountSendingEnabled") == 1
        assert mail.cloud.refused == []
        assert [each for each in await mail.told() if not isinstance(each, MailReported)] == [
            MailSendingPaused(
                tenant_id="a", code="bounce_rate", sends=20, bounces=2, complaints=0, limit_percent=8.0, hours=24,
                occurred_at=now,
            )
        ]  # fmt: skip
        (decision,) = await decided(mail.pool)
        assert (decision.actor, decision.action, decision.subject) == ("mail-limits", "mail.paused", "mail:a")
        assert decision.after == {"reason": "bounce_rate", "sends": 20, "bounces": 2, "complaints": 0}

    async def test_whoever_has_the_tenants_rights_can_send_until_then_and_not_afterwards(self, mail: Mail) -> None:
        account_id, now = await mail.silo("a"), mail.clock.now()
        credentials = await mail.driver.issue((await environment_of(mail, "a")).for_driver())
        ses = lent(mail.cloud, credentials, "ses")
        message = {"Data": b"From: a@a.mail.example.com\nTo: b@people.example\n\nHello"}
        ses.send_raw_email(Source="a@a.mail.example.com", Destinations=[ADDRESS], RawMessage=message)

        await mail.take(*(complaint(account_id, at=now) for _ in range(1)))
        assert await paused(mail) == ["a"]
        await mail.applying().apply_all()

        with pytest.raises(ClientError, match="AccountSendingPaused"):
            ses.send_raw_email(Source="a@a.mail.example.com", Destinations=[ADDRESS], RawMessage=message)
        with pytest.raises(ClientError, match="AccessDenied"):
            ses.update_account_sending_enabled(Enabled=True)

    async def test_what_lies_before_the_window_does_not_count(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()

        await mail.take(*(bounce(account_id, at=now - timedelta(hours=26)) for _ in range(5)))

        assert await paused(mail) == []
        assert await mail.counts("a") == {"permanent_bounce": 5}

    async def test_bounces_that_pass_are_no_reason(self, mail: Mail) -> None:
        account_id, now = await mail.tenant("a"), mail.clock.now()
        full: dict[str, Any] = {"bounceType": "Transient", "bounceSubType": "MailboxFull"}

        await mail.take(*(event(account_id, "Bounce", at=now, **full) for _ in range(9)))

        assert await paused(mail) == []

    async def test_an_account_that_cannot_be_paused_now_is_paused_later_and_it_is_said_why(self, mail: Mail) -> None:
        account_id, now = await mail.silo("a"), mail.clock.now()
        await mail.take(*(bounce(account_id, at=now) for _ in range(2)))
        with mail.cloud.refusing("UpdateAccountSendingEnabled", "ServiceUnavailable"):
            await mail.applying().apply_all()
        row = await mail.pool.fetchrow("SELECT * FROM mail_sending")
        assert row is not None
        assert (row["attempts"], row["applied_at"], row["claimed_until"]) == (1, None, None)
        assert row["problem"] == "Amazon refuses ses:update_account_sending_enabled: ServiceUnavailable."

        await mail.applying().apply_all()
        assert mail.cloud.asked.count("UpdateAccountSendingEnabled") == 1  # not before its time
        await mail.clock.advance(5)
        await mail.applying().apply_all()

        assert mail.cloud.plan.mute == {account_id}
        row = await mail.pool.fetchrow("SELECT * FROM mail_sending")
        assert row is not None
        assert (row["problem"], row["due_at"], row["applied_at"]) == (None, None, mail.clock.now())

    async def test_what_is_wrong_with_one_account_holds_up_no_other(
        self, mail: Mail, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accounts, now = [await mail.tenant(name) for name in ("a", "b")], mail.clock.now()
        asked_of = []

        async def switch(environment: Environment, *, is_allowed: bool) -> None:
            if environment.tenant_id == "a":
                raise KeyError("a bug")
            asked_of.append((environment.tenant_id, is_allowed))

        monkeypatch.setattr(mail.driver, "let_send_mail", switch)
        await mail.take(*(bounce(each, at=now, recipients=3) for each in accounts))
        await mail.applying().apply_all()

        assert asked_of == [("b", False)]
        rows = await mail.pool.fetch("SELECT problem, applied_at FROM mail_sending ORDER BY tenant_id")
        assert [tuple(row) for row in rows] == [("It has failed: KeyError.", None), (None, now)]

    async def test_a_wish_whose_holder_has_died_is_fulfilled_by_another(self, mail: Mail) -> None:
        account_id, now = await mail.silo("a"), mail.clock.now()
        await mail.take(*(bounce(account_id, at=now) for _ in range(2)))
        with mail.cloud.hanging():
            dying = asyncio.create_task(mail.applying().apply())
            await eventually(lambda: self._is_claimed(mail), describe="it is claimed")
            dying.cancel()
            await asyncio.wait([dying])
        assert await mail.applying().apply() == 0

        await mail.clock.advance(CLAIM.total_seconds())
        await mail.applying().apply_all()

        assert mail.cloud.plan.mute == {account_id}

    async def _is_claimed(self, mail: Mail) -> bool:
        return bool(await mail.pool.fetchval("SELECT claimed_until IS NOT NULL FROM mail_sending"))


class TestResuming:
    async def test_a_tenant_that_may_send_again_is_judged_by_what_it_sends_from_then_on(self, mail: Mail) -> None:
        account_id, before = await mail.silo("a"), mail.clock.now()
        await mail.take(*(bounce(account_id, at=before) for _ in range(5)))
        await mail.applying().apply_all()
        assert mail.cloud.plan.mute == {account_id}

        await mail.clock.advance(60)
        await self._resume(mail)
        await mail.applying().apply_all()
        assert mail.cloud.plan.mute == set()

        await mail.clock.advance(1)
        now = mail.clock.now()
        await mail.take(*(bounce(account_id, at=now, sent_at=before) for _ in range(5)))
        assert await paused(mail) == []  # these were sent before
        await mail.take(bounce(account_id, at=now))
        assert await paused(mail) == ["a"]
        await mail.applying().apply_all()
        assert mail.cloud.plan.mute == {account_id}

    async def _resume(self, mail: Mail) -> None:
        async with mail.pool.acquire() as connection, connection.transaction():
            assert await queries.resume(connection, "a", now=mail.clock.now()) is not None

    async def test_nothing_that_is_being_counted_when_a_tenant_is_resumed_counts_against_it(
        self, mail: Mail, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account_id, now, count = await mail.tenant("a"), mail.clock.now(), queries.count
        await mail.take(*(bounce(account_id, at=now) for _ in range(5)))
        counting, going_on = asyncio.Event(), asyncio.Event()

        async def linger(connection: Connection, counted: Any) -> None:
            counting.set()
            await going_on.wait()
            await count(connection, counted)

        monkeypatch.setattr(queries, "count", linger)
        mail.say(bounce(account_id, at=now))
        async with asyncio.TaskGroup() as group:
            group.create_task(mail.look())
            await asyncio.wait_for(counting.wait(), 10)
            group.create_task(self._resume(mail))
            await eventually(lambda: self._is_waiting(mail), describe="the resumption waits")
            going_on.set()

        assert await mail.counts("a") == {"permanent_bounce": 6}
        assert await mail.pool.fetchval("SELECT sum(judged) FROM mail_count") == 0

    async def _is_waiting(self, mail: Mail) -> bool:
        waiting = await mail.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(waiting)

    async def test_who_is_resumed_while_it_is_being_paused_can_send_in_the_end(self, mail: Mail) -> None:
        account_id, now = await mail.silo("a"), mail.clock.now()
        await mail.take(*(bounce(account_id, at=now) for _ in range(2)))
        with mail.cloud.hanging():
            pausing = asyncio.create_task(mail.applying().apply())
            await eventually(lambda: self._is_claimed(mail), describe="it is claimed")
            await self._resume(mail)
            assert await mail.applying().apply() == 0  # not beside the other one
        await pausing
        assert mail.cloud.plan.mute == {account_id}

        await mail.applying().apply_all()

        assert mail.cloud.plan.mute == set()

    async def _is_claimed(self, mail: Mail) -> bool:
        return bool(await mail.pool.fetchval("SELECT claimed_until IS NOT NULL FROM mail_sending"))


class TestLeaving:
    @pytest.mark.parametrize("ask", [DeprovisionEnvironment, RemoveEnvironment])
    async def test_of_a_tenant_that_is_gone_nothing_is_left_and_its_mails_are_nobodys(
        self, mail: Mail, ask: type[DeprovisionEnvironment | RemoveEnvironment]
    ) -> None:
        account_id, now = await mail.silo("a"), mail.clock.now()
        await mail.silo("b")
        await mail.take(*(bounce(account_id, at=now) for _ in range(5)))
        assert {place for tenant_id, place in await residue(mail.pool) if tenant_id == "a"} >= {
            "mail_count", "mail_sending",
        }  # fmt: skip

        await mail.world.handle(asked(ask(tenant_id="a")))
        await mail.take(bounce(account_id, at=now))
        await mail.applying().apply_all()

        assert {tenant_id for tenant_id, _ in await residue(mail.pool)} == {"b"}
        assert await mail.oddities() == {"stranger": 1}


async def ended(task: asyncio.Task[Any] | None) -> None:
    assert task is not None
    task.cancel()
    await asyncio.wait([task])
