"""Sending invitations: each with its own token, again and again but not for ever, and whatever fails fails alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from services.identity import delivery, handlers
from services.identity.delivery import AT_A_TIME, LEASE, Delivery, Errand, accept_url_of, invitation_mail
from services.identity.invitations import AT_ONCE, RETRY_DELAYS, Token
from services.identity.mail import LogMailer, Mail, MailError, MailRefusedError
from services.identity.tests.office import ISSUER, PASSWORD, Office, open_office
from services.identity.tests.world import WEEK
from shared.access import Role
from shared.contracts.identity import AddAdministrators, CreateAdministrators, SetAdministrators
from shared.ids import TimeOrderedIds
from shared.logs import redact
from shared.postgres import Pool, transaction
from shared.testing import eventually

ANNA, BELA, CLEO = "anna@example.org", "bela@example.org", "cleo@example.org"
DOWN = MailError("SMTPConnectError")


@pytest.fixture
async def office(pool: Pool) -> AsyncIterator[Office]:
    async with open_office(pool) as office:
        yield office


async def create(office: Office, *emails: str, tenant_id: str = "t1", customer_name: str = "Acme") -> None:
    ask = CreateAdministrators(tenant_id=tenant_id, customer_name=customer_name, emails=emails)
    async with transaction(office.pool) as connection:
        await handlers.create_administrators(
            connection, [ask], clock=office.clock, ids=TimeOrderedIds(), invitation_lifetime=WEEK
        )


async def states(office: Office) -> dict[str, tuple[str, int]]:
    rows = await office.pool.fetch("SELECT email, delivery, attempts FROM invitation JOIN users USING (user_id)")
    return {row["email"]: (row["delivery"], row["attempts"]) for row in rows}


async def test_who_was_made_an_administrator_gets_a_mail_with_a_link_that_lets_it_in(office: Office) -> None:
    await create(office, ANNA)

    assert await office.deliver() == 1

    (mail,) = office.postbox.mails
    assert (mail.recipient, mail.subject) == (ANNA, "Your invitation to Acme")
    assert mail.link.startswith(f"{ISSUER}/invitations/accept#token=")
    assert mail.link in mail.text
    assert "“Acme” as an administrator" in mail.text
    assert "08 January 2026, 00:00 UTC" in mail.text
    assert await states(office) == {ANNA: ("sent", 1)}
    assert (await office.accept(office.postbox.token(ANNA), password=PASSWORD)).status_code == 200


async def test_what_was_sent_is_not_sent_again(office: Office) -> None:
    await create(office, ANNA, BELA)
    await office.deliver()

    await office.clock.advance(WEEK.total_seconds() / 2)

    assert await office.deliver() == 0
    assert sorted(mail.recipient for mail in office.postbox.mails) == [ANNA, BELA]


async def test_all_that_is_pending_is_sent_however_much_it_is(office: Office) -> None:
    emails = [f"{number}@example.org" for number in range(3 * AT_A_TIME + 1)]
    await create(office, *emails)

    assert await office.deliver() == len(emails)

    assert sorted(mail.recipient for mail in office.postbox.mails) == sorted(emails)
    assert len({mail.link for mail in office.postbox.mails}) == len(emails)


async def test_a_mail_that_fails_is_tried_again_at_growing_distances_and_then_given_up(office: Office) -> None:
    await create(office, ANNA)
    office.postbox.trouble[ANNA] = DOWN

    for attempt, delay in enumerate(RETRY_DELAYS, start=1):
        assert await office.deliver() == 1
        assert await states(office) == {ANNA: ("pending", attempt)}
        await office.clock.advance(delay.total_seconds() - 1)
        assert await office.deliver() == 0
        await office.clock.advance(1)
    assert await office.deliver() == 1

    assert await states(office) == {ANNA: ("failed", 8)}
    await office.clock.advance(timedelta(days=2).total_seconds())
    assert await office.deliver() == 0
    assert timedelta(hours=20) < sum(RETRY_DELAYS, timedelta()) < timedelta(days=1)


async def test_a_mail_that_failed_once_arrives_later(office: Office) -> None:
    await create(office, ANNA)
    office.postbox.trouble[ANNA] = DOWN
    await office.deliver()
    office.postbox.trouble.clear()
    await office.clock.advance(RETRY_DELAYS[0].total_seconds())

    await office.deliver()

    assert await states(office) == {ANNA: ("sent", 2)}
    assert (await office.accept(office.postbox.token(ANNA), password=PASSWORD)).status_code == 200


async def test_an_address_that_is_refused_for_good_is_given_up_at_once_and_sent_to_again_when_asked(
    office: Office,
) -> None:
    await create(office, ANNA)
    await office.member(BELA, "t1", "TenantAdmin")
    office.postbox.trouble[ANNA] = MailRefusedError("SMTPRecipientRefused 550")
    await office.deliver()
    (shown,) = [each for each in await office.items(f"{BELA}/t1", "/v1/invitations") if each["email"] == ANNA]
    assert shown["delivery"] == "failed"
    office.postbox.trouble.clear()

    await office.ask(f"{BELA}/t1", "POST", f"/v1/invitations/{shown['invitationId']}/resend")
    await office.deliver()

    assert (await states(office))[ANNA] == ("sent", 1)


@pytest.mark.parametrize("trouble", [DOWN, MailRefusedError("no"), ValueError("odd"), KeyError("odd"), TimeoutError()])
async def test_what_fails_fails_alone(office: Office, trouble: Exception) -> None:
    await create(office, ANNA, BELA, CLEO)
    office.postbox.trouble[BELA] = trouble

    await office.deliver()

    assert sorted(mail.recipient for mail in office.postbox.mails) == [ANNA, CLEO]
    assert (await states(office))[BELA][0] != "sent"


class Slow:
    """Takes no mail to one recipient until it is told to."""

    def __init__(self, slow: str) -> None:
        self.slow = slow
        self.going_on = asyncio.Event()
        self.at_once = self.most_at_once = 0
        self.taken: list[str] = []

    async def send(self, mail: Mail) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if mail.recipient == self.slow:
            await self.going_on.wait()
        else:
            await asyncio.sleep(0.01)
        self.at_once -= 1
        self.taken.append(mail.recipient)


async def test_a_slow_mail_holds_up_no_other_and_only_so_many_are_sent_at_once(office: Office) -> None:
    emails = [f"{number:02}@example.org" for number in range(3 * AT_A_TIME)]
    await create(office, *emails)
    mailer = Slow(emails[0])
    running = asyncio.create_task(Delivery(office.pool, mailer, clock=office.clock, accept_url="x").run())

    async def all_others_are_taken() -> bool:
        await office.clock.advance(1)
        return len(mailer.taken) == len(emails) - 1

    await eventually(all_others_are_taken)
    assert mailer.most_at_once == AT_A_TIME
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert emails[0] not in mailer.taken


async def test_a_mail_that_takes_too_long_is_a_failure(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAIL_SECONDS", 0.05)
    await create(office, ANNA)
    slow = Delivery(office.pool, Slow(ANNA), clock=office.clock, accept_url="x")

    await slow.begin()
    await slow.finish()

    assert await states(office) == {ANNA: ("pending", 1)}


async def test_what_a_process_has_begun_is_left_to_it_until_its_lease_ends(office: Office) -> None:
    await create(office, ANNA)
    gone = Delivery(office.pool, Slow(ANNA), clock=office.clock, accept_url="x")
    running = asyncio.create_task(gone.run())
    await eventually(lambda: _is_begun(office))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

    assert await office.deliver() == 0
    await office.clock.advance(LEASE.total_seconds())
    assert await office.deliver() == 1
    assert await states(office) == {ANNA: ("sent", 2)}


async def _is_begun(office: Office) -> bool:
    return (await states(office))[ANNA][1] == 1


async def test_replicas_share_the_work_and_send_nothing_twice(office: Office) -> None:
    emails = [f"{number}@example.org" for number in range(2 * AT_A_TIME)]
    await create(office, *emails)
    replicas = [Delivery(office.pool, office.postbox, clock=office.clock, accept_url="x") for _ in range(3)]

    begun = await asyncio.gather(*(replica.begin() for replica in replicas))
    for replica in replicas:
        await replica.finish()

    assert sum(begun) + await office.deliver() == len(emails)
    assert sorted(mail.recipient for mail in office.postbox.mails) == sorted(emails)


async def test_what_expires_before_it_can_be_sent_is_given_up(office: Office) -> None:
    await create(office, ANNA)
    await office.clock.advance(WEEK.total_seconds())

    assert await office.deliver() == 0

    assert await states(office) == {ANNA: ("failed", 0)}


async def test_what_was_accepted_meanwhile_is_not_sent(office: Office) -> None:
    await create(office, ANNA)
    await office.pool.execute("UPDATE invitation SET accepted_at = created_at")

    assert await office.deliver() == 0


async def test_an_outcome_that_comes_late_does_not_concern_a_mail_that_was_asked_for_since(office: Office) -> None:
    await create(office, ANNA)
    await office.member(BELA, "t1", "TenantAdmin")
    mailer = Slow(ANNA)
    sending = Delivery(office.pool, mailer, clock=office.clock, accept_url="x")
    await sending.begin()
    invitation_id = (await office.invitation_of("t1", ANNA))["invitation_id"]
    await office.ask(f"{BELA}/t1", "POST", f"/v1/invitations/{invitation_id}/resend")

    mailer.going_on.set()
    await sending.finish()

    assert await states(office) == {ANNA: ("pending", 0), BELA: ("sent", 0)}
    await office.clock.advance(60)
    assert await office.deliver() == 1


async def test_running_survives_an_outage_of_the_mail_server_and_of_the_database(office: Office) -> None:
    await create(office, ANNA)
    office.postbox.trouble["*"] = OSError("nobody listens")
    attempts = 0
    begin = office.delivery.begin

    async def flaky() -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ConnectionRefusedError("the database is away")
        return await begin()

    office.delivery.begin = flaky  # type: ignore[method-assign]
    running = asyncio.create_task(office.delivery.run())

    async def has_arrived() -> bool:
        assert not running.done()
        await office.clock.advance(30)
        if (await states(office))[ANNA][1] > 1:
            office.postbox.trouble.clear()
        return bool(office.postbox.mails)

    await eventually(has_arrived)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_no_token_is_logged_by_delivery(office: Office) -> None:
    await create(office, ANNA, BELA)
    office.postbox.trouble[BELA] = ValueError("the mail with #token=quoted")

    with capture_logs() as lines:
        await office.deliver()

    assert len(lines) == 2
    assert office.postbox.token(ANNA) not in str(lines)
    assert "quoted" not in str(lines)
    assert ANNA not in str(lines)


async def test_a_developer_finds_address_and_link_in_the_log() -> None:
    mail = Mail(ANNA, "subject", "text", "http://127.0.0.1:8080/invitations/accept#token=secret")

    with capture_logs() as lines:
        await LogMailer().send(mail)

    (line,) = lines
    assert (line["log_level"], line["recipient"], line["link"]) == ("warning", ANNA, mail.link)
    assert redact(None, "", dict(line))["link"] == mail.link


def errand(customer_name: str | None, role: Role = Role.TENANT_ADMIN) -> Errand:
    expires_at = datetime(2026, 1, 8, tzinfo=UTC)
    return Errand(UUID(int=1), ANNA, role, customer_name, expires_at, 1, Token("secret"))


@pytest.mark.parametrize(
    ("customer_name", "role", "subject"),
    [
        ("Acme", Role.TENANT_USER, "Your invitation to Acme"),
        (None, Role.TENANT_USER, "Your invitation to an organisation"),
        (None, Role.SYSTEM_ADMIN, "Your invitation to this installation"),
        ("Acme\r\nBcc: x@example.org\u202e", Role.TENANT_USER, "Your invitation to Acme Bcc: x@example.org"),
    ],
)
def test_a_mail_says_whom_it_comes_from_in_one_line(customer_name: str | None, role: Role, subject: str) -> None:
    mail = invitation_mail(errand(customer_name, role), accept_url_of(ISSUER))

    assert mail.subject == subject
    assert mail.text.count("\n") == 7
    assert "secret" not in repr(mail)
    assert "secret" not in repr(errand(None))


# What handlers leave to be sent


async def test_the_customers_name_is_kept_from_every_ask_that_names_it(office: Office) -> None:
    await create(office, ANNA, customer_name="Acme")
    terms: dict[str, Any] = {"clock": office.clock, "ids": TimeOrderedIds(), "invitation_lifetime": WEEK}
    async with transaction(office.pool) as connection:
        addition = AddAdministrators(tenant_id="t1", customer_name="Bolt", emails=(BELA,))
        await handlers.add_administrators(connection, [addition], **terms)
        assert (
            await connection.fetchval(
                "SELECT customer_name FROM invitation JOIN users USING (user_id) WHERE email = $1", BELA
            )
            == "Bolt"
        )
        setting = SetAdministrators(tenant_id="t1", customer_name="Crow", emails=(CLEO, ANNA))
        await handlers.set_administrators(connection, [setting], **terms)

    names = {email: (await office.invitation_of("t1", email))["customer_name"] for email in (ANNA, CLEO)}

    assert names == {ANNA: "Acme", CLEO: "Crow"}


async def test_a_renewed_invitation_is_sent_at_once_and_tried_as_often_as_a_new_one(office: Office) -> None:
    await create(office, ANNA)
    await office.pool.execute("UPDATE invitation SET delivery = 'failed', attempts = 8, next_attempt_at = '2030-01-01'")
    await office.clock.advance(WEEK.total_seconds())

    await create(office, ANNA, customer_name="Acme of today")

    row = await office.invitation_of("t1", ANNA)
    assert (row["delivery"], row["attempts"], row["next_attempt_at"]) == ("pending", 0, AT_ONCE)
    assert row["customer_name"] == "Acme of today"
