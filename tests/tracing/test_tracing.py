"""One workflow is one trace: every hop of it through six services, in one tree, whatever becomes of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.onboarding.lifecycles.onboard import ONBOARD
from shared.contracts import identity
from shared.service import VERSION
from shared.settings import TracingSettings
from shared.testing import eventually
from shared.tracing.exporting import Exporting, exported
from tests.system import System, Workflow, withheld
from tests.tracing.hops import Happened, Span, Story, missing, of_workflow, read

pytestmark = [pytest.mark.broker, pytest.mark.asyncio(loop_scope="session")]

SERVICES = {"onboarding", "tenant", "identity", "billing", "metrics", "provisioning"}


class Traces:
    """What the running system has traced, in a file."""

    def __init__(self, path: Path, exporting: Exporting, system: System) -> None:
        self._path = path
        self._exporting = exporting
        self._system = system

    async def of(self, workflow: Workflow) -> tuple[list[Span], Story]:
        """Return a workflow's trace, as soon as it is whole, and what must be in it."""
        story = await self._story(workflow)
        lacks: list[str] = []

        def is_whole() -> bool:
            self._exporting.flush()
            lacks[:] = missing(of_workflow(read(self._path), workflow["id"]), story)
            return not lacks

        await eventually(is_whole, describe=lambda: f"the whole trace, which lacks {lacks}")
        return of_workflow(read(self._path), workflow["id"]), story

    def named(self, trace_id: str, name: str) -> list[Span]:
        """Return the spans of a name in a trace, as far as they have ended."""
        self._exporting.flush()
        return [each for each in read(self._path) if (each.trace_id, each.name) == (trace_id, name)]

    async def _story(self, workflow: Workflow) -> Story:
        pool = self._system.services["onboarding"].kernel.pool
        rows = await pool.fetch(
            "SELECT kind, step, message_id FROM history WHERE workflow_id = $1 ORDER BY seq", workflow["id"]
        )
        return Story(
            workflow_id=workflow["id"],
            kind="onboard",
            begun_by="POST /v1/onboardings",
            asks={each.name: (str(each.ask), each.undo) for each in ONBOARD.plan},
            history=[
                Happened(row["kind"], row["step"], str(row["message_id"]) if row["message_id"] else None)
                for row in rows
            ],
        )


@pytest_asyncio.fixture(loop_scope="session")
async def traces(system: System, tmp_path: Path) -> AsyncIterator[Traces]:
    path = tmp_path / "traces.jsonl"
    with exported(TracingSettings(file=path), version=VERSION) as exporting:
        assert exporting is not None
        yield Traces(path, exporting, system)


async def test_a_failed_onboarding_is_one_tree_with_every_hop(system: System, traces: Traces) -> None:
    async with withheld(system, identity.RemoveAdministrators) as unsaid:
        workflow = await system.onboard("Traced back", region="mars")
        await eventually(lambda: len(unsaid) == 1)
    system.clock.put_forward(ONBOARD.steps["create-administrators"].timeout)
    undone = await system.finished(workflow)
    assert (undone["status"], undone["failure"]["code"]) == ("compensated", "unknown_region")

    trace, story = await traces.of(undone)

    assert {each.service for each in trace} == SERVICES
    kinds = [each.kind for each in story.history]
    assert (kinds.count("undo_asked"), kinds.count("undo_timed_out")) == (5, 1)
    for lost in trace:
        assert missing([each for each in trace if each is not lost], story), f"{lost.name} is not missed"


async def test_a_job_that_answers_later_is_in_the_tree(system: System, traces: Traces) -> None:
    completed = await system.finished(await system.onboard("Traced forth"))
    assert completed["status"] == "completed"

    trace, _ = await traces.of(completed)

    assert {each.service for each in trace} == SERVICES


async def test_a_client_finds_the_workflow_in_its_own_trace(system: System, traces: Traces) -> None:
    client = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{client}-b7ad6b7169203331-01"}
    body = {"customerName": "Traced by its client", "adminEmails": ["ada@tenants.example"]}
    accepted = (await system.client.post("/v1/onboardings", json=body, headers=headers)).json()
    await system.finished(accepted)

    await eventually(lambda: bool(traces.named(f"0x{client}", "begin onboard")))

    (request,) = traces.named(f"0x{client}", "POST /v1/onboardings")
    assert request.parent_id == "0xb7ad6b7169203331"
