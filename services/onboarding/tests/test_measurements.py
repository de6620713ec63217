"""What is measured of workflows."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry

from services.onboarding.lifecycles.offboard import OFFBOARD
from services.onboarding.measurements import WorkflowMeasurements
from services.onboarding.tests.catalogue import REQUEST, refusals
from services.onboarding.tests.support import Desk, Replica, hear, open_desk, stored, told, waiting
from shared.clock import ManualClock, SystemClock
from shared.messaging.bus import Parcel
from shared.messaging.topology import STATUS_EXCHANGE
from shared.testing.eventually import eventually
from shared.testing.memory_bus import MemoryBroker


class Measured:
    """A desk whose workflows are measured, on a clock that stands still."""

    def __init__(self, desk: Desk, clock: ManualClock) -> None:
        self.desk = desk
        self.clock = clock
        self.registry = CollectorRegistry()
        self.workflows = WorkflowMeasurements(desk.pool, clock=clock, registry=self.registry)
        desk.kernel.bus.on_confirmed = self.workflows.told

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def statuses(self, kind: str) -> dict[str, float]:
        return {
            sample.labels["status"]: sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "tenure_workflow_statuses_total" and sample.labels["kind"] == kind
        }

    async def tell(self) -> None:
        """Let everything that was said reach the broker."""
        await self.clock.advance(10)
        await self.desk.kernel.relay.sweep()


@pytest.fixture
async def measured(database_url: str, broker: MemoryBroker) -> AsyncIterator[Measured]:
    clock = ManualClock(SystemClock().now())  # ids are of the machine's
    async with open_desk(database_url, broker, clock=clock) as desk:
        yield Measured(desk, clock)


async def test_what_becomes_of_workflows_is_counted_by_kind(measured: Measured) -> None:
    tenant_id = await measured.desk.tenant("Acme")
    fruitless = await measured.desk.start("Beta")
    await measured.desk.go_on(fruitless, refuse="provision-environment")
    await measured.desk.begin(OFFBOARD, tenant_id, reason="gone", graceDays=0, export=False)
    await measured.tell()

    assert measured.statuses("onboard") == {"started": 2, "completed": 1, "compensating": 1, "compensated": 1}
    assert measured.statuses("offboard") == {"started": 1}
    failures = {"kind": "onboard", "step": "provision-environment"}
    assert measured.value("tenure_workflow_step_failures_total", **failures) == 1


async def test_how_long_a_workflow_took_is_measured_when_it_has_ended(measured: Measured) -> None:
    workflow_id = await measured.desk.start("Acme")
    await measured.clock.advance(90)
    await measured.desk.go_on(workflow_id)
    await measured.tell()

    ended = {"kind": "onboard", "outcome": "completed"}
    assert measured.value("tenure_workflow_seconds_count", **ended) == 1
    assert measured.value("tenure_workflow_seconds_sum", **ended) == pytest.approx(90, abs=5)
    assert measured.value("tenure_workflow_seconds_bucket", le="60.0", **ended) == 0
    assert measured.value("tenure_workflow_seconds_bucket", le="300.0", **ended) == 1


async def test_a_step_that_is_tried_again_is_counted(measured: Measured) -> None:
    workflow_id = await measured.desk.start("Acme")
    [(step, ask_id)] = (await waiting(measured.desk.pool, workflow_id, "running")).items()
    refusal = refusals("any", code="busy", retryable=True)[step]
    await hear(measured.desk.pool, told(workflow_id, step, refusal, ask_id=ask_id), engine=measured.desk.engine)
    await measured.tell()

    assert measured.value("tenure_workflow_step_retries_total", kind="onboard", step=step) == 1
    assert measured.value("tenure_workflow_seconds_count", kind="onboard", outcome="completed") is None


async def test_what_others_are_told_of_is_no_workflow(measured: Measured) -> None:
    for exchange, key in (
        (STATUS_EXCHANGE, "mail.send.t1"),
        (STATUS_EXCHANGE, "warning.quota.t1"),
        ("x", "status.a.b.c"),
    ):
        measured.workflows.told(Parcel(exchange, key, b"{}", "application/json", str(uuid4())))

    assert [
        sample for metric in measured.registry.collect() for sample in metric.samples if "statuses" in sample.name
    ] == []


async def test_what_is_under_way_is_counted(measured: Measured) -> None:
    await measured.desk.start("Acme")
    await measured.desk.start("Beta")
    await measured.desk.tenant("Gamma")
    await measured.workflows.look()

    def in_progress(kind: str, status: str) -> float | None:
        return measured.value("tenure_workflows_in_progress", kind=kind, status=status)

    assert in_progress("onboard", "running") == 2
    assert in_progress("onboard", "needs_attention") == 0
    assert in_progress("offboard", "compensating") == 0
    assert in_progress("onboard", "completed") is None

    await measured.desk.pool.execute("UPDATE workflow SET status = 'compensating' WHERE status = 'running'")
    await measured.workflows.look()
    assert (in_progress("onboard", "running"), in_progress("onboard", "compensating")) == (0, 2)


async def test_a_workflow_to_which_nothing_happens_is_seen(measured: Measured) -> None:
    def quiet(kind: str) -> float | None:
        return measured.value("tenure_workflow_quiet_seconds", kind=kind, status="running")

    tenant_id = await measured.desk.tenant("Gamma")
    leaving = await measured.desk.begin(OFFBOARD, tenant_id, reason="gone", graceDays=30, export=False)
    await measured.desk.go_on(leaving, until=("grace-period",))
    await measured.desk.start("Acme")
    await measured.clock.advance(100)
    await measured.desk.start("Beta")
    await measured.clock.advance(1000)
    await measured.workflows.look()

    assert (await stored(measured.desk.pool, leaving)).workflow.status == "running"
    assert quiet("onboard") == pytest.approx(1100, abs=1)
    assert quiet("offboard") == 0  # it lets thirty days pass, and that is all


async def test_a_timer_that_does_not_go_off_is_seen(measured: Measured) -> None:
    await measured.workflows.look()
    assert measured.value("tenure_timers_overdue_seconds") == 0

    workflow_id = await measured.desk.start("Acme")
    await measured.workflows.look()
    assert measured.value("tenure_timers_overdue_seconds") == 0

    due_at = min(
        step.due_at for step in (await stored(measured.desk.pool, workflow_id)).workflow.steps.values() if step.due_at
    )
    await measured.clock.advance((due_at - measured.clock.now() + timedelta(seconds=70)).total_seconds())
    await measured.workflows.look()
    assert measured.value("tenure_timers_overdue_seconds") == pytest.approx(70, abs=1)


async def test_a_running_service_shows_it(replica: Replica) -> None:
    answer = await replica.client.post("/v1/onboardings", json=REQUEST)
    assert answer.status_code == 202

    async def shows() -> bool:
        text = (await replica.client.get("/metrics")).text
        started = 'tenure_workflow_statuses_total{kind="onboard",status="started"} 1.0' in text
        return started and 'tenure_polled_timestamp_seconds{what="workflows"}' in text

    await eventually(shows)
