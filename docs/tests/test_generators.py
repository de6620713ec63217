import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import yaml

from deploy.manifest import manifest
from docs.__main__ import main
from docs.generators import PAGES
from docs.generators.catalogue import title_of
from services.onboarding.engine import Engine
from services.onboarding.expiration import Terms
from services.onboarding.handlers import relay
from services.onboarding.lifecycles import CURRENT
from services.onboarding.lifecycles.onboard import ONBOARD
from services.onboarding.reviews import Reviews
from services.onboarding.saga import Started
from services.onboarding.storage import Stored
from services.onboarding.workflow import planned
from shared.clock import SystemClock
from shared.contracts import CATALOGUE, SERVICES, Ask, Message, metrics, provisioning, tenant
from shared.ids import TimeOrderedIds
from shared.messaging import outbox
from shared.messaging.event import Event, Outgoing
from shared.messaging.topology import STATUS_EXCHANGE, exchanges

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"customerName": "Zürich Äpfel", "adminEmails": ["a@example.org"], "tier": "free"}


@pytest.fixture(scope="module")
def messages() -> str:
    return PAGES["docs/messages.md"]()


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(PAGES["docs/asyncapi.yaml"]())
    return document


def test_every_generated_page_of_the_repository_is_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_the_code_has_left_behind_is_named_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.md").write_text("old\n")
    (tmp_path / "fresh.md").write_text("new\n")

    code = main(["--check"], root=tmp_path, pages={"old.md": lambda: "new\n", "fresh.md": lambda: "new\n"})

    assert code == 1
    assert capsys.readouterr().out == "old.md is not what the code says: run `make docs` and commit it.\n"
    assert (tmp_path / "old.md").read_text() == "old\n"


def test_a_missing_page_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], root=tmp_path, pages={"docs/missing.md": lambda: "new\n"}) == 1
    assert capsys.readouterr().out.startswith("docs/missing.md ")
    assert not (tmp_path / "docs").exists()


def test_writing_tells_what_has_changed_and_leaves_nothing_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fresh.md").write_text("new\n")
    pages = {"docs/missing.md": lambda: "Grüezi\n", "fresh.md": lambda: "new\n"}

    assert main([], root=tmp_path, pages=pages) == 0
    assert capsys.readouterr().out == "Wrote docs/missing.md.\n"
    assert main(["--check"], root=tmp_path, pages=pages) == 0


def test_a_page_written_twice_is_the_same() -> None:
    assert [write() for write in PAGES.values()] == [write() for write in PAGES.values()]


@pytest.mark.parametrize("key", CATALOGUE)
def test_every_message_has_a_row_that_says_who_says_and_who_hears_it(key: str, messages: str) -> None:
    system, name = manifest(), title_of(CATALOGUE[key])
    anchor = name.lower().replace(" ", "-")
    row = next(line for line in messages.splitlines() if line.startswith(f"| [{name}](#{anchor})<br>"))
    said, heard = row.split(" | ")[3:5]

    assert f"### {name}\n" in messages
    assert said.split(", ") == [service for service in SERVICES if key in system.publishes[service]]
    hearers = [service for service in system.services if key in system.subscribes[service]]
    assert heard.split(", ") == hearers or heard in {"everybody outside", "nobody yet"}


@pytest.mark.parametrize("page", ["docs/messages.md", "docs/lifecycles.md"])
def test_every_link_of_a_generated_page_leads_somewhere(page: str) -> None:
    text = _written(page)
    for target in re.findall(r"]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / "docs" / path).exists(), target
        linked = _written(f"docs/{path}") if anchor and path else text
        assert not anchor or anchor in _anchors(linked), target


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    targets = re.findall(r"]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]

    assert missing == []


@cache
def _written(page: str) -> str:
    return PAGES[page]() if page in PAGES else (ROOT / page).read_text(encoding="utf-8")


def _anchors(markdown: str) -> list[str]:
    anchors = [heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)]
    assert len(anchors) == len(set(anchors)), "two headings have one anchor"
    return anchors


def test_every_field_of_a_message_is_described_by_its_name_on_the_wire(messages: str) -> None:
    section = messages.partition("### RegisterTenant\n")[2].partition("###")[0]
    wire = tenant.RegisterTenant(tenant_id="t", customer_name="c", tier="free", email="e").model_dump(by_alias=True)

    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == wire.keys() - {"tenantId"}


def test_an_ask_says_what_undoes_it_or_that_nothing_does(messages: str) -> None:
    undone = {message.undoes for message in CATALOGUE.values() if issubclass(message, Ask)}
    for ask in (message for message in CATALOGUE.values() if issubclass(message, Ask) and not message.undoes):
        section = messages.partition(f"### {ask.__name__}\n")[2].partition("###")[0]
        assert ("undone by [" in section) is (ask in undone), ask
        assert ("never undone" in section) is (ask not in undone), ask


def test_every_reference_in_the_asyncapi_document_leads_somewhere(asyncapi: dict[str, Any]) -> None:
    for reference in _references(asyncapi):
        assert _found(asyncapi, reference) is not None, reference


def test_every_message_is_sent_or_answered_on_a_channel_of_its_sayer(asyncapi: dict[str, Any]) -> None:
    operations = asyncapi["operations"].values()
    travelling = {
        reference["$ref"].split("/")[-1]
        for operation in operations
        for reference in [*operation["messages"], *operation.get("reply", {}).get("messages", ())]
    }
    carried = {key for channel in asyncapi["channels"].values() for key in channel["messages"]}

    assert travelling == carried == set(asyncapi["components"]["messages"]) == {*CATALOGUE, "usage"}
    assert all(
        reference["$ref"].startswith(operation["channel"]["$ref"])
        for operation in operations
        for reference in operation["messages"]
    )


def test_every_ask_names_its_answers(asyncapi: dict[str, Any]) -> None:
    for ask in (message for message in CATALOGUE.values() if issubclass(message, Ask)):
        reply = asyncapi["operations"][f"onboarding.asks.{ask.__name__}"]["reply"]["messages"]
        answers = {CATALOGUE[reference["$ref"].split("/")[-1]] for reference in reply}
        assert answers == {each for each in CATALOGUE.values() if getattr(each, "answers", None) is ask}


def test_the_exchanges_of_the_asyncapi_document_are_declared(asyncapi: dict[str, Any]) -> None:
    named = {channel["bindings"]["amqp"]["exchange"]["name"] for channel in asyncapi["channels"].values()}

    assert named == {each["name"] for each in exchanges(manifest()) if not each["name"].endswith(".retry")}


def test_the_documented_envelope_is_the_one_on_the_wire(asyncapi: dict[str, Any]) -> None:
    message = tenant.TenantDeregistered(tenant_id="t")
    identity = TimeOrderedIds().new()
    bare = Event(identity, "tenant", SystemClock().now(), message)
    full = replace(bare, workflow_id=identity, step="s", causation_id=identity, traceparent=f"00-{1:032x}-{1:016x}-01")
    schema = asyncapi["components"]["schemas"]["CloudEvent"]

    assert orjson.loads(full.encode()).keys() == {*schema["properties"], "data"}
    assert orjson.loads(bare.encode()).keys() == {*schema["required"], "data"}


def test_what_everybody_outside_is_told_is_documented_as_it_is_told(asyncapi: dict[str, Any]) -> None:
    ids = TimeOrderedIds()
    workflow = planned(ids.new(), ONBOARD.kind, str(ids.new()), ONBOARD.plan)
    stored = Stored(workflow, ONBOARD.name, ONBOARD.version, REQUEST)
    _, outgoing = Engine(clock=SystemClock(), ids=ids).first(stored, Started())
    told = next(each for each in outgoing if each.exchange == STATUS_EXCHANGE)

    _assert_documented(told, asyncapi, channel="status")


def test_the_warning_of_a_contracts_end_is_documented_as_it_is_told(asyncapi: dict[str, Any]) -> None:
    kernel: Any = SimpleNamespace(ports=SimpleNamespace(ids=TimeOrderedIds()))
    intake: Any = None
    reviews = Reviews(kernel, intake, Terms(warning=timedelta(days=14), grace=timedelta(days=30)))
    account = {"tenant_id": str(kernel.ports.ids.new()), "expiration": date(2027, 1, 1)}

    _assert_documented(reviews._warning(account, SystemClock().now()), asyncapi, channel="warning-expiration")


@pytest.mark.parametrize(
    ("fact", "channel"),
    [
        (provisioning.MailReported(tenant_id="t", hour=NOON, counts={"permanent_bounce": 1}), "mail"),
        (
            provisioning.MailSendingPaused(
                tenant_id="t", code="bounce_rate", sends=9, bounces=9, complaints=0, limit_percent=8, hours=24,
                occurred_at=NOON,
            ),
            "warning-mail",
        ),
        (provisioning.MailSendingResumed(tenant_id="t", occurred_at=NOON), "mail-resumed"),
        (
            metrics.QuotaCrossed(
                tenant_id="t", meter="seats", percent=80, used="4", limit_value=5, month="2027-03", enforcement="hard",
                occurred_at=NOON,
            ),
            "warning-quota",
        ),
    ],
    ids=["counted", "paused", "resumed", "quota"],
)  # fmt: skip
async def test_what_is_said_of_mails_and_quotas_is_documented_as_it_is_told(
    asyncapi: dict[str, Any], fact: Message, channel: str
) -> None:
    ids: Any = TimeOrderedIds()
    connection: Any = None
    event = Event(ids.new(), fact.owner, NOON, fact)

    (told,) = await relay(connection, [event], clock=SystemClock(), ids=ids)

    _assert_documented(told, asyncapi, channel=channel)


def _assert_documented(told: Outgoing, asyncapi: dict[str, Any], *, channel: str) -> None:
    parcel = outbox._binary_parcel(told)
    schemas = asyncapi["components"]["schemas"]
    data = schemas[parcel.headers["ce-type"]]

    assert list(asyncapi["channels"][channel]["messages"]) == [parcel.headers["ce-type"]]
    assert re.fullmatch(re.sub(r"\{\w+\}", r"[^.]+", asyncapi["channels"][channel]["address"]), told.routing_key)
    assert set(schemas["CloudEventHeaders"]["required"]) <= parcel.headers.keys()
    assert parcel.headers.keys() <= schemas["CloudEventHeaders"]["properties"].keys()
    assert orjson.loads(parcel.body).keys() == data["properties"].keys()


def test_the_words_of_a_routing_key_are_those_of_the_lifecycles(asyncapi: dict[str, Any]) -> None:
    told = asyncapi["channels"]["error"]["parameters"]

    assert set(told["kind"]["enum"]) == {definition.kind for definition in CURRENT}
    assert set(told["step"]["enum"]) == {step for definition in CURRENT for step in definition.steps}


@pytest.mark.parametrize("service", SERVICES)
def test_an_openapi_document_describes_every_path_that_the_service_owns_and_no_other(service: str) -> None:
    document = json.loads(PAGES[f"docs/openapi/{service}.json"]())
    owned = import_module(f"services.{service}.api").PATHS
    common = ("/healthz", "/readyz", "/metrics")

    assert document["openapi"].startswith("3.1")
    assert all(path.startswith((*owned, *common)) for path in document["paths"])
    assert all(any(path.startswith(prefix) for path in document["paths"]) for prefix in owned)
    assert all(_found(document, reference) is not None for reference in _references(document))


def _references(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(content.get("$ref"), str):
            yield content["$ref"]
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _references(each)


def _found(document: Any, reference: str) -> Any:
    for name in reference.removeprefix("#/").split("/"):
        document = document.get(name, {})
    return document or None


def test_what_several_services_tell_by_one_name_is_told_apart(asyncapi: dict[str, Any]) -> None:
    of_billing, of_tenant = CATALOGUE["billing.api_keys_used.v1"], CATALOGUE["tenant.api_keys_used.v1"]

    assert (title_of(of_billing), title_of(of_tenant)) == ("ApiKeysUsed of billing", "ApiKeysUsed of tenant")
    assert title_of(CATALOGUE["tenant.tenant_registered.v1"]) == "TenantRegistered"
    heard = {name for name in asyncapi["operations"] if name.startswith("identity.hears.ApiKeysUsed.of.")}
    assert len(heard) == len(SERVICES) - 1
