"""The webhook driver, with a receiver that says what a test wants; what all drivers promise: `test_driver_contract`."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import pytest

from services.provisioning.drivers import Done, Environment, Inspection, Next, Outcome, Refused, Retry, Task
from services.provisioning.drivers.documents import LARGEST
from services.provisioning.drivers.webhook import Keys, PostgresCallbacks, WebhookDriver, WebhookTerms, callback_routes
from services.provisioning.drivers.webhook import api as callback_api
from services.provisioning.drivers.webhook.callbacks import Waiting
from services.provisioning.drivers.webhook.driver import ASK, AWAIT, UnusableUrlError, WebhookFailedError, check_url
from services.provisioning.drivers.webhook.signatures import TOLERANCE, WrongSignatureError
from shared.clock import ManualClock
from shared.http import create_api
from shared.ids import TimeOrderedIds
from shared.postgres import Pool

SECRET, NEXT_SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "whsec_bmV4dC1zZWNyZXQtbmV4dC1zZWNyZXQtbmV4dA=="
KEYS = Keys.of(SECRET)
ORIGIN, URL = "https://tenure.example.com", "https://made.example.com/hook?to=tenure"
ACME = Environment(
    environment_id=UUID("01a20081-0000-7000-8000-000000000001"),
    tenant_id="acme",
    isolation="silo",
    region="local",
    resources={"place": "here"},
)
PATIENCE = timedelta(hours=1)

Answer = Callable[[httpx2.Request], httpx2.Response]


class Body(httpx2.AsyncByteStream):
    """What is answered, as it comes over a wire."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


def says(document: Any, status: int = 200) -> Answer:
    return only(status, json.dumps(document).encode())


def only(status: int, body: bytes = b"", **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx2.Response(status, headers=given, stream=Body(body))


def fails(_: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("connection refused at 10.0.0.1")


@dataclass
class Desk:
    """The driver on a clock that stands still, and whoever is asked.

    Attributes:
        asked: everything in order.
        answer: what is answered.
    """

    clock: ManualClock
    callbacks: PostgresCallbacks
    client: httpx2.AsyncClient
    driver: WebhookDriver
    asked: list[httpx2.Request] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: only(202))

    async def step(self, task: Task, operation: str = "provision") -> Outcome:
        (outcome,) = await getattr(self.driver, operation)([task])
        assert isinstance(outcome, Done | Next | Retry | Refused)
        return outcome

    async def ask(self, operation: str = "provision", **task: Any) -> tuple[Task, Outcome]:
        """Do the first two steps: note a question, and send it."""
        noted = await self.step(Task(environment=ACME, **task), operation)
        assert isinstance(noted, Next)
        assert noted.stage == ASK
        following = Task(environment=ACME, target=task.get("target"), stage=ASK, notes=noted.notes)
        return following, await self.step(following, operation)

    async def asked_and_waiting(self) -> Task:
        """Ask somebody who will call back, and return the task of the look for that."""
        _, outcome = await self.ask()
        assert isinstance(outcome, Next)
        assert outcome.stage == AWAIT
        return Task(environment=ACME, stage=AWAIT, notes=outcome.notes)

    async def call_back(self, document: Any, *, keys: Keys = KEYS, request: int = -1) -> httpx2.Response:
        """Answer what was asked, to where that is to be answered."""
        path = urlsplit(json.loads(self.asked[request].content)["callbackUrl"]).path
        body = json.dumps(document).encode()
        headers = keys.headers(path.rpartition("/")[2], body, now=self.clock.now())
        return await self.post(path, body, headers)

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
        return await self.client.post(path, content=body, headers={"Content-Type": "application/json", **headers})


@pytest.fixture
async def desk(pool: Pool) -> AsyncIterator[Desk]:
    clock, callbacks = ManualClock(), PostgresCallbacks(pool)
    terms = WebhookTerms(url=URL, keys=KEYS, origin=ORIGIN, timeout=timedelta(seconds=0.5), patience=PATIENCE)
    router = callback_routes(callbacks, Keys.of(f"{NEXT_SECRET},{SECRET}"), clock=clock)
    api = create_api("provisioning", routers=[router], admin_key="key", checks={}, version="1")
    desks: list[Desk] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        desks[0].asked.append(request)
        return desks[0].answer(request)

    async with (
        httpx2.AsyncClient(transport=httpx2.MockTransport(respond)) as out,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url=ORIGIN) as back,
    ):
        driver = WebhookDriver(terms, client=out, callbacks=callbacks, clock=clock, ids=TimeOrderedIds())
        desks.append(Desk(clock, callbacks, back, driver))
        yield desks[0]


# Asking


async def test_what_is_asked_is_signed_as_standard_webhooks_has_it(desk: Desk) -> None:
    await desk.ask()

    (request,) = desk.asked
    identity, seconds = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, f"{identity}.{seconds}.".encode() + request.content, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert int(seconds) == int(desk.clock.now().timestamp())
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["Content-Type"] == "application/json"


async def test_what_is_asked_says_what_a_script_is_told_and_where_to_call_back(desk: Desk) -> None:
    await desk.ask("move", target=ACME)

    asked = json.loads(desk.asked[0].content)
    assert (asked["operation"], asked["stage"], asked["notes"]) == ("move", "", {})
    assert asked["environment"] == asked["target"]
    assert asked["environment"]["resources"] == {"place": "here"}
    assert asked["callbackUrl"] == f"{ORIGIN}/v1/driver-callbacks/{desk.asked[0].headers['webhook-id']}"


async def test_what_is_asked_says_of_which_product_an_environment_is(desk: Desk) -> None:
    for environment in (ACME, replace(ACME, tenant_id="acme:notes", product="notes")):
        noted = await desk.step(Task(environment=environment))
        assert isinstance(noted, Next)
        await desk.step(Task(environment=environment, stage=ASK, notes=noted.notes))

    asked = [json.loads(each.content)["environment"] for each in desk.asked]
    assert [(each["tenantId"], each["product"]) for each in asked] == [("acme", None), ("acme", "notes")]


async def test_one_question_has_one_id_however_often_it_is_sent(desk: Desk) -> None:
    desk.answer = only(503)
    following, outcome = await desk.ask()
    assert isinstance(outcome, Retry)

    desk.answer = says({})
    assert isinstance(await desk.step(following), Done)
    await desk.ask()

    first, again, another = [each.headers["webhook-id"] for each in desk.asked]
    assert first == again != another


async def test_an_answer_may_be_there_at_once(desk: Desk) -> None:
    desk.answer = says({"resources": {"place": "there"}, "result": {"url": "x"}})

    _, outcome = await desk.ask()

    assert outcome == Done(resources={"place": "there"}, result={"url": "x"})


async def test_steps_of_whoever_is_asked_are_told_again_with_all_that_was_noted(desk: Desk) -> None:
    step = {"stage": "wait", "notes": {"id": 7}, "afterSeconds": 3, "said": "being made"}
    desk.answer = says({"next": step, "resources": {"place": "soon"}})
    _, first = await desk.ask(notes={"notes": {"of": "an earlier job"}})

    assert isinstance(first, Next)
    assert (first.stage, first.after, first.said) == (ASK, timedelta(seconds=3), "being made")
    assert first.resources == {"place": "soon"}

    desk.answer = says({})
    assert isinstance(await desk.step(Task(environment=ACME, stage=first.stage, notes=first.notes)), Done)
    asked = json.loads(desk.asked[1].content)
    assert (asked["stage"], asked["notes"]) == ("wait", {"of": "an earlier job", "id": 7})
    assert desk.asked[0].headers["webhook-id"] != desk.asked[1].headers["webhook-id"]


async def test_a_job_that_turns_back_begins_anew_and_forgets_no_note(desk: Desk) -> None:
    desk.answer = says({"next": {"stage": "wait", "notes": {"id": 7}}})
    _, first = await desk.ask()
    assert isinstance(first, Next)
    desk.answer = says({})

    await desk.ask("deprovision", notes=first.notes)

    asked = json.loads(desk.asked[1].content)
    assert (asked["operation"], asked["stage"], asked["notes"]) == ("deprovision", "", {"id": 7})


async def test_a_refusal_says_why(desk: Desk) -> None:
    refused = {"refused": {"code": "no_quota", "detail": "There is no room."}}
    for answer in (says(refused), says(refused, 409)):
        desk.answer = answer

        _, outcome = await desk.ask()

        assert outcome == Refused(code="no_quota", detail="There is no room.")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_what_is_wrong_with_the_question_is_a_refusal(desk: Desk, status: int) -> None:
    desk.answer = says({"internal": "secret"}, status)

    _, outcome = await desk.ask()

    assert outcome == Refused(code="webhook_refused", detail=f"The webhook refuses with status {status}.")


@pytest.mark.parametrize("status", [204, 301, 307, 408, 425, 429, 500, 503])
async def test_what_may_be_otherwise_next_time_is_tried_again(desk: Desk, status: int) -> None:
    desk.answer = only(status, location="http://elsewhere/")

    _, outcome = await desk.ask()

    assert outcome == Retry(detail=f"The webhook answers with status {status}.")
    assert len(desk.asked) == 1


async def test_a_server_says_how_long_it_wants_to_be_left_alone_within_bounds(desk: Desk) -> None:
    later = format_datetime(desk.clock.now() + timedelta(minutes=2), usegmt=True)
    earlier = format_datetime(desk.clock.now() - timedelta(minutes=2), usegmt=True)
    for said, seconds in (("120", 120), (later, 120), (earlier, 0), ("9" * 30, 3600), ("soon", 0), ("-5", 0)):
        desk.answer = only(503, retry_after=said)

        _, outcome = await desk.ask()

        assert isinstance(outcome, Retry)
        assert outcome.after == timedelta(seconds=seconds), said


async def test_who_cannot_be_reached_is_asked_again_and_the_address_is_told_to_nobody(desk: Desk) -> None:
    desk.answer = fails

    _, outcome = await desk.ask()

    assert outcome == Retry(detail="The webhook cannot be reached.")


async def test_who_does_not_answer_in_time_is_asked_again(desk: Desk) -> None:
    class Slow(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(60)

    desk.answer = lambda _: httpx2.Response(200, stream=Slow())

    _, outcome = await desk.ask()

    assert outcome == Retry(detail="The webhook does not answer in time.")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "empty"),
        (b"all is well", "not JSON"),
        (b'{"resource": {}}', "`resource` of the answer"),
        (b" " * (LARGEST + 1), "more than"),
    ],
)
async def test_what_cannot_be_understood_is_tried_again(desk: Desk, body: bytes, complaint: str) -> None:
    desk.answer = only(200, body)

    _, outcome = await desk.ask()

    assert isinstance(outcome, Retry)
    assert complaint in outcome.detail


# Calling back


async def test_who_calls_back_is_heard(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    assert isinstance(await desk.step(waiting), Next)

    assert (await desk.call_back({"resources": {"place": "there"}})).status_code == 204

    assert await desk.step(waiting) == Done(resources={"place": "there"})
    assert len(desk.asked) == 1


async def test_what_was_called_back_is_there_until_somebody_has_stored_what_it_means(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    await desk.call_back({"resources": {"place": "there"}})

    assert await desk.step(waiting) == await desk.step(waiting) == Done(resources={"place": "there"})


async def test_of_several_answers_the_first_counts(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()

    for place in ("there", "there", "elsewhere"):
        assert (await desk.call_back({"resources": {"place": place}})).status_code == 204

    assert await desk.step(waiting) == Done(resources={"place": "there"})


async def test_who_calls_back_before_the_answer_has_arrived_is_heard_too(desk: Desk) -> None:
    noted = await desk.step(Task(environment=ACME))
    assert isinstance(noted, Next)
    asking = Task(environment=ACME, stage=ASK, notes=noted.notes)
    desk.answer = fails
    assert isinstance(await desk.step(asking), Retry)

    assert (await desk.call_back({})).status_code == 204

    assert await desk.step(asking) == Done(resources=ACME.resources)
    assert len(desk.asked) == 1


async def test_a_callback_may_name_another_step_or_refuse(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    await desk.call_back({"next": {"stage": "verify", "notes": {"id": 7}}})

    following = await desk.step(waiting)

    assert isinstance(following, Next)
    _, outcome = following, await desk.step(Task(environment=ACME, stage=following.stage, notes=following.notes))
    assert isinstance(outcome, Next)
    assert json.loads(desk.asked[1].content)["stage"] == "verify"
    await desk.call_back({"refused": {"code": "no_quota", "detail": "No room."}})
    waiting = Task(environment=ACME, stage=outcome.stage, notes=outcome.notes)
    assert await desk.step(waiting) == Refused(code="no_quota", detail="No room.")


async def test_it_looks_less_and_less_often(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    pauses = []
    for _ in range(4):
        outcome = await desk.step(waiting)
        assert isinstance(outcome, Next)
        pauses.append(outcome.after.total_seconds())
        await desk.clock.advance(20)

    assert pauses == [1, 5, 10, 15]


async def test_who_never_calls_back_is_asked_anew_after_a_while(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    await desk.clock.advance(PATIENCE.total_seconds())

    assert await desk.step(waiting) == Retry(detail="The webhook has not called back within 3600 s.")
    assert (await desk.call_back({})).status_code == 404

    anew = await desk.step(waiting)
    assert isinstance(anew, Next)
    assert anew.stage == ASK
    await desk.step(Task(environment=ACME, stage=ASK, notes=anew.notes))
    assert desk.asked[0].headers["webhook-id"] != desk.asked[1].headers["webhook-id"]
    assert (await desk.call_back({})).status_code == 204


async def test_who_never_calls_back_is_not_asked_for_ever(desk: Desk) -> None:
    task = Task(environment=ACME)
    for _ in range(100):
        outcome = await desk.step(task)
        if isinstance(outcome, Refused):
            break
        if isinstance(outcome, Next):
            task = Task(environment=ACME, stage=outcome.stage, notes=outcome.notes)
        await desk.clock.advance(PATIENCE.total_seconds())

    assert outcome == Refused(code="webhook_unanswered", detail="It was asked 5 times in vain.")
    assert len(desk.asked) == 5


async def test_a_callback_that_asks_for_another_try_gets_it(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    await desk.call_back({"retry": {"detail": "busy", "afterSeconds": 60}})

    assert await desk.step(waiting) == Retry(detail="busy", after=timedelta(seconds=60))
    anew = await desk.step(waiting)
    assert isinstance(anew, Next)
    assert anew.stage == ASK


async def test_counts_that_are_none_are_asked_for_once_more(desk: Desk) -> None:
    _, outcome = await desk.ask("deprovision")
    assert isinstance(outcome, Next)
    waiting = Task(environment=ACME, stage=AWAIT, notes=outcome.notes)
    await desk.call_back({"result": {"files": "many"}})

    assert isinstance(await desk.step(waiting, "deprovision"), Retry)
    anew = await desk.step(waiting, "deprovision")
    assert isinstance(anew, Next)
    assert anew.stage == ASK


async def test_what_is_asked_next_makes_earlier_answers_unneeded(desk: Desk, pool: Pool) -> None:
    await desk.ask()
    await desk.call_back({})
    await desk.ask("throttle")

    assert (await desk.call_back({}, request=0)).status_code == 404
    assert await pool.fetchval("SELECT count(*) FROM driver_callback") == 1


async def test_an_answer_that_comes_while_the_question_is_sent_again_is_not_lost(desk: Desk) -> None:
    key, now = "0" * 64, desk.clock.now()
    for minutes in (0, 5):
        since = now + timedelta(minutes=minutes)
        await desk.callbacks.expect(key, ACME.environment_id, now=since, until=since + PATIENCE)
        assert await desk.callbacks.record(key, {"resources": {} if minutes == 0 else {"another": "answer"}})

    assert await desk.callbacks.find(key) == Waiting(now + timedelta(minutes=5), {"resources": {}})


async def test_what_nobody_needs_any_more_is_forgotten(desk: Desk, pool: Pool) -> None:
    await desk.ask()
    assert await desk.callbacks.sweep(desk.clock.now() + PATIENCE) == 0

    assert await desk.callbacks.sweep(desk.clock.now() + PATIENCE + timedelta(days=1)) == 1
    assert await pool.fetchval("SELECT count(*) FROM driver_callback") == 0


# Who may call back


async def test_a_callback_may_be_signed_with_either_of_two_keys(desk: Desk) -> None:
    for secret in (SECRET, NEXT_SECRET):
        await desk.asked_and_waiting()
        assert (await desk.call_back({}, keys=Keys.of(secret))).status_code == 204


async def test_nobody_is_heard_who_has_not_signed_this_answer_just_now(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    key = desk.asked[0].headers["webhook-id"]
    path, body, now = f"{callback_api.PATH}/{key}", b'{"resources": {}}', desk.clock.now()
    right = KEYS.headers(key, body, now=now)
    late = KEYS.headers(key, body, now=now - TOLERANCE - timedelta(seconds=1))
    early = KEYS.headers(key, body, now=now + TOLERANCE + timedelta(seconds=1))
    wrong: list[tuple[bytes, dict[str, str]]] = [
        (body, {}),
        (body + b" ", right),
        (body, late),
        (body, early),
        (body, Keys.of("whsec_" + base64.b64encode(b"x" * 32).decode()).headers(key, body, now=now)),
        (body, KEYS.headers("0" * 64, body, now=now)),
        (body, {**right, "webhook-timestamp": "soon"}),
        (body, {**right, "webhook-timestamp": right["webhook-timestamp"] + "0"}),
        (body, {**right, "webhook-signature": right["webhook-signature"].replace("v1,", "v2,")}),
        (body, {**right, "webhook-signature": "v1,"}),
        (body, {**right, "webhook-signature": "v1,not base64"}),
    ]
    for content, headers in wrong:
        answer = await desk.post(path, content, headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "wrong_signature"), headers
    assert isinstance(await desk.step(waiting), Next)

    assert (await desk.post(path, body, right)).status_code == 204


async def test_what_we_have_asked_is_no_answer_when_it_is_sent_back_to_us(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()
    request = desk.asked[0]
    headers = {name: request.headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}

    answer = await desk.post(f"{callback_api.PATH}/{headers['webhook-id']}", request.content, headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_answer")
    assert isinstance(await desk.step(waiting), Next)


async def test_one_of_several_signatures_is_enough(desk: Desk) -> None:
    await desk.asked_and_waiting()
    both = Keys.of(f"whsec_{base64.b64encode(b'z' * 32).decode()},{SECRET}")

    assert (await desk.call_back({}, keys=both)).status_code == 204


async def test_a_key_that_nobody_waits_for_is_unknown_only_to_whoever_has_signed(desk: Desk) -> None:
    path, body = f"{callback_api.PATH}/{'0' * 64}", b"{}"

    signed = await desk.post(path, body, KEYS.headers("0" * 64, body, now=desk.clock.now()))
    assert (signed.status_code, signed.json()["code"]) == (404, "unknown_callback")
    assert (await desk.post(path, body, {})).status_code == 401


async def test_a_callback_is_small_and_can_be_understood(desk: Desk) -> None:
    waiting = await desk.asked_and_waiting()

    large = await desk.call_back({"resources": {"much": "x" * callback_api.LARGEST}})
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    strange = await desk.call_back({"resource": {}})
    assert (strange.status_code, strange.json()["detail"]) == (
        422,
        "`resource` of the answer is wrong: Extra inputs are not permitted.",
    )
    assert isinstance(await desk.step(waiting), Next)


def test_a_message_says_who_has_signed_it_and_anything_else_is_refused() -> None:
    now = ManualClock().now()
    headers = KEYS.headers("an-id", b"body", now=now)

    assert KEYS.check(headers, b"body", now=now + TOLERANCE) == "an-id"
    with pytest.raises(WrongSignatureError):
        KEYS.check(headers, b"body", now=now + TOLERANCE + timedelta(seconds=1))


@pytest.mark.parametrize("text", ["", " , ", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64!", SECRET[6:]])
def test_a_key_that_is_none_is_told_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="key") as raised:
        Keys.of(text)

    shown = text.removeprefix("whsec_").strip(" ,")
    assert not shown or shown not in str(raised.value)
    assert repr(KEYS) == "Keys(1 keys)"


# Looking


async def test_who_looks_is_answered_at_once(desk: Desk) -> None:
    desk.answer = says({"exists": True, "isThrottled": True, "isolation": "silo"})

    assert await desk.driver.inspect([ACME]) == [Inspection(exists=True, is_throttled=True, isolation="silo")]
    asked = json.loads(desk.asked[0].content)
    assert asked["operation"] == "inspect"
    assert "callbackUrl" not in asked


@pytest.mark.parametrize("answer", [only(202), only(500), only(404), says({}), fails])
async def test_who_cannot_look_says_so(desk: Desk, answer: Answer) -> None:
    desk.answer = answer

    with pytest.raises(WebhookFailedError):
        await desk.driver.inspect([ACME])


# Whom it may ask


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:9000/", "http://localhost/hook", "http://[::1]:9000/"])
def test_whoever_is_elsewhere_is_asked_in_secret(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "made.example.com",
        "ftp://a.example",
        "https://",
        "https://u:p@a.example/",
        "https://a.example/#x",
        "https://a b/",
    ],
)
def test_an_address_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(UnusableUrlError):
        check_url(url, may_be_plain=True)


def test_only_who_wants_it_asks_others_without_tls() -> None:
    with pytest.raises(UnusableUrlError, match="https"):
        check_url("http://made.example.com/")
    with pytest.raises(UnusableUrlError, match="https"):
        check_url("http://10.0.0.1/")

    check_url("http://made.example.com/", may_be_plain=True)
