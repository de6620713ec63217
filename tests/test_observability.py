"""Whether running services measure what alert rules and dashboards ask for, and tell nobody's name by it."""

import functools
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.stack import Stack
from deploy.local.system import SERVICES, built_services
from deploy.tests.promql import asked, own, parsed, queries
from shared.clock import SystemClock
from shared.messaging.topology import Manifest
from shared.service import Ports
from shared.testing import eventually
from shared.testing.memory_bus import MemoryBroker, MemoryBus
from tests.system import System, Workflow

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ROOT = Path(__file__).parent.parent
_NO_SUCH_REGION = "nowhere-1"
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
}
_MOST_SERIES = 3000
"""What a service exposes at most; Prometheus keeps each in memory."""


@dataclass
class Exposed:
    """What services expose.

    Attributes:
        labels: of each name that can be asked for; None where there is no sample of it yet.
        values: every label's value.
        series: how many samples each service has.
    """

    labels: dict[str, frozenset[str] | None] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    series: dict[str, int] = field(default_factory=dict)

    def add(self, service: str, text: str) -> None:
        """Read what a service exposes."""
        self.series[service] = 0
        for family in text_string_to_metric_families(text):
            self.labels |= {f"{family.name}{suffix}": None for suffix in _SUFFIXES[family.type]} | self.labels
            for sample in family.samples:
                self.series[service] += 1
                self.labels[sample.name] = frozenset(sample.labels) | (self.labels.get(sample.name) or frozenset())
                self.values |= set(sample.labels.values())


@dataclass(frozen=True)
class Watched:
    """A system in which something has happened, and what it exposes.

    Attributes:
        optional: what a process of its own exposes besides, and services that are told of a provider and of a lake.
    """

    workflows: list[Workflow]
    exposed: Exposed
    optional: Exposed


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(system: System, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    ended = [
        await system.finished(await system.onboard("Watched")),
        await system.finished(await system.onboard("Watched in vain", region=_NO_SUCH_REGION)),
    ]
    assert [workflow["status"] for workflow in ended] == ["completed", "compensated"]
    exposed = Exposed()
    for name in SERVICES:
        await eventually(functools.partial(_has_looked, system, name), within=20, describe=name)
        exposed.add(name, await _metrics(system, name))
    yield Watched(ended, exposed, await _optional(stack, tmp_path_factory.mktemp("lake")))


async def _metrics(system: System, service: str) -> str:
    return (await system.client.get(f"/services/{service}/metrics")).text


async def _has_looked(system: System, service: str) -> bool:
    text = await _metrics(system, service)
    return all(f'tenure_polled_timestamp_seconds{{what="{what}"}}' in text for what in ("outbox", "queues"))


async def _optional(stack: Stack, lake: Path) -> Exposed:
    """Build, and do not run, services with all that is off in the running ones."""
    broker = MemoryBroker(Manifest.load(), SystemClock())
    ports = Ports(bus=lambda service: MemoryBus(broker, service))
    told = {name: dict(environment) for name, environment in stack.environment.items()}
    told["billing"]["TENURE_BILLING_STRIPE_KEY"] = "sk_test_none"
    told["metrics"]["TENURE_METRICS_LAKE"] = str(lake)
    exposed = Exposed()
    async with built_services(told, ports) as services:
        for service in services:
            exposed.add(service.name, generate_latest(service.kernel.registry).decode())
    await broker.close()
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    exposed.add("a process", generate_latest(process).decode())
    return exposed


async def test_whatever_is_asked_for_is_measured(watched: Watched) -> None:
    known = watched.exposed.labels | watched.optional.labels | {"up": None}
    missing = {
        f"{query.place} asks for {each.name}"
        for query in queries()
        for each in asked(parsed(query))
        if each.name not in known
    }

    assert missing == set()


async def test_whatever_the_operations_page_names_is_measured(watched: Watched) -> None:
    known = watched.exposed.labels | watched.optional.labels
    page = (_ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page[page.index("## What is measured") :]
    named = re.findall(r"`(tenure_\w+)`", table)

    assert len(named) > 15
    assert [name for name in named if name not in known and f"{name}_bucket" not in known] == []


async def test_whatever_it_is_chosen_by_is_a_label(watched: Watched) -> None:
    wrong = {
        f"{query.place}: {each.name} has no label {label}"
        for query in queries()
        for each in asked(parsed(query))
        if (labels := watched.exposed.labels.get(each.name)) is not None
        for label in own(each.labels) - labels
    }

    assert wrong == set()


async def test_what_has_happened_is_seen(watched: Watched) -> None:
    """Not only that there is such a metric: each of these has a sample after two onboardings."""
    seen = {name for name, labels in watched.exposed.labels.items() if labels is not None}

    assert seen >= {
        "tenure_workflow_seconds_bucket",
        "tenure_workflow_statuses_total",
        "tenure_workflow_step_failures_total",
        "tenure_workflows_in_progress",
        "tenure_workflow_quiet_seconds",
        "tenure_timers_overdue_seconds",
        "tenure_handler_seconds_bucket",
        "tenure_inbox_messages_total",
        "tenure_published_messages_total",
        "tenure_outbox_messages",
        "tenure_outbox_oldest_seconds",
        "tenure_queue_messages",
        "tenure_pool_wait_seconds_bucket",
        "tenure_pool_connections",
        "tenure_build_info",
        "tenure_http_request_seconds_count",
        "tenure_http_requests_total",
    }


async def test_no_label_is_a_tenant_or_anything_of_one(watched: Watched) -> None:
    secret = [workflow[name] for workflow in watched.workflows for name in ("id", "tenantId")]

    assert [(each, value) for each in secret for value in watched.exposed.values if each in value] == []
    assert not any("watched" in value.lower() or "example" in value for value in watched.exposed.values)


async def test_there_are_few_series_however_many_tenants(watched: Watched) -> None:
    assert max(watched.exposed.series.values()) < _MOST_SERIES, watched.exposed.series
