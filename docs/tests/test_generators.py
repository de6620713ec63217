import json
import random
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
import yaml

from deploy.manifest import manifest
from docs.__main__ import main
from docs.generators import PAGES, simulation
from docs.generators.simulation import Transitions, explore, play, refusing, silent
from services.onboarding.engine import Engine, Stored
from services.onboarding.onboard import ONBOARD
from services.onboarding.saga import Input, Refused, Started, Succeeded, TimerDue, planned
from shared.clock import SystemClock
from shared.contracts import CATALOGUE, SERVICES, Ask, tenant
from shared.ids import TimeOrderedIds
from shared.messaging import outbox
from shared.messaging.event import Event
from shared.messaging.topology import STATUS_EXCHANGE, exchanges

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
    system, name = manifest(), CATALOGUE[key].__name__
    row = next(line for line in messages.splitlines() if line.startswith(f"| [{name}](#{name.lower()})<br>"))
    said, heard = row.split(" | ")[3:5]

    assert f"### {name}\n" in messages
    assert said.split(", ") == [service for service in SERVICES if key in system.publishes[service]]
    hearers = [service for service in system.services if key in system.subscribes[service]]
    assert heard.split(", ") == hearers or heard in {"everybody outside", "nobody yet"}


@pytest.mark.parametrize("page", ["docs/messages.md", "docs/onboarding.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    text = PAGES[page]()
    for target in re.findall(r"]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert not path or (ROOT / "docs" / path).exists(), target
        linked = PAGES[f"docs/{path}"]() if anchor and path else text
        assert not anchor or anchor in _anchors(linked), target


def _anchors(markdown: str) -> list[str]:
    anchors = [heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)]
    assert len(anchors) == len(set(anchors)), "two headings have one anchor"
    return anchors


def test_every_field_of_a_message_is_described_by_its_name_on_the_wire(messages: str) -> None:
    section = messages.partition("### RegisterTenant\n")[2].partition("###")[0]
    wire = tenant.RegisterTenant(tenant_id="t", customer_name="c", tier="free", email="e").model_dump(by_alias=True)

    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == wire.keys() - {"tenantId"}


def test_every_step_is_on_the_page_of_onboarding() -> None:
    page = PAGES["docs/onboarding.md"]()
    for step in ONBOARD.plan:
        assert f"| `{step.name}` | {step.service} |" in page
        assert f"->>{step.service}: {CATALOGUE[step.ask].__name__}\n" in page
        assert f"->>{step.service}: {CATALOGUE[step.undo].__name__}\n" in page


def test_steps_that_run_at_once_are_drawn_in_parallel_forward_and_backward() -> None:
    middle = {"create-administrators", "open-account", "track-tenant", "provision-environment"}
    page = PAGES["docs/onboarding.md"]()

    blocks = re.findall(r"^ +par (.*?)^ +end$", page, re.MULTILINE | re.DOTALL)

    assert [{block.split("\n")[0], *re.findall(r"and ([\w-]+)", block)} for block in blocks] == [middle, middle]


def test_a_refused_first_step_undoes_nothing_and_a_silent_one_is_undone() -> None:
    first = ONBOARD.plan[0]
    refused = play(ONBOARD.kind, ONBOARD.plan, refusing(ONBOARD.plan, first.name))
    unanswered = play(ONBOARD.kind, ONBOARD.plan, silent(ONBOARD.plan, first.name))

    assert [send.ask for each in refused for send in each.sends] == [first.ask]
    assert [send.ask for each in unanswered for send in each.sends] == [first.ask] * first.attempts + [first.undo]


def test_the_steps_that_are_explored_show_every_transition_that_all_steps_together_make() -> None:
    walked, chance = Transitions(), random.Random(7)
    for _ in range(100):
        frequent = chance.choice((Succeeded, Refused, TimerDue))
        workflow = planned(UUID(int=0), ONBOARD.kind, "tenant", ONBOARD.plan)
        happened: Input = Started()
        while not workflow.status.is_final:
            turn = simulation._advance(workflow, happened)
            simulation._note(walked, workflow, turn)
            workflow = turn.workflow
            inputs = list(simulation._inputs(workflow))
            happened = chance.choices(inputs, [30 if isinstance(each, frequent) else 1 for each in inputs])[0]

    shown = explore(ONBOARD.plan[:3])
    assert _arrows(walked) <= _arrows(shown)
    assert walked.step_ends <= shown.step_ends


def _arrows(found: Transitions) -> set[tuple[tuple[str, str], str]]:
    edges = [*found.workflow.items(), *found.step.items()]
    return {(edge, cause) for edge, causes in edges for cause in causes}


def test_the_diagrams_show_how_a_workflow_can_end() -> None:
    found = explore(ONBOARD.plan[:3])

    assert {after for _, after in found.workflow} == {"compensating", "needs_attention", "compensated", "completed"}
    assert ("running", "compensated") not in found.workflow
    assert ("completed", "compensating") not in found.workflow
    assert found.step_ends == {"pending", "succeeded", "failed", "undone"}


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

    assert travelling == carried == set(asyncapi["components"]["messages"]) == set(CATALOGUE)
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
    full = Event(identity, "tenant", bare.time, message, workflow_id=identity, step="s", causation_id=identity)
    schema = asyncapi["components"]["schemas"]["CloudEvent"]

    assert orjson.loads(full.encode()).keys() == {*schema["properties"], "data"}
    assert orjson.loads(bare.encode()).keys() == {*schema["required"], "data"}


def test_what_everybody_outside_is_told_is_documented_as_it_is_told(asyncapi: dict[str, Any]) -> None:
    ids = TimeOrderedIds()
    stored = Stored(planned(ids.new(), ONBOARD.kind, str(ids.new()), ONBOARD.plan), ONBOARD.version, REQUEST)
    _, outgoing = Engine(clock=SystemClock(), ids=ids).first(stored, Started())
    told = next(each for each in outgoing if each.exchange == STATUS_EXCHANGE)
    parcel = outbox._binary_parcel(told)
    schemas = asyncapi["components"]["schemas"]
    data = schemas[parcel.headers["ce-type"]]

    assert re.fullmatch(re.sub(r"\{\w+\}", r"[^.]+", asyncapi["channels"]["status"]["address"]), told.routing_key)
    assert set(schemas["CloudEventHeaders"]["required"]) <= parcel.headers.keys()
    assert parcel.headers.keys() <= schemas["CloudEventHeaders"]["properties"].keys()
    assert orjson.loads(parcel.body).keys() == data["properties"].keys()


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
