"""What must hold when everything is quiet again: one function for each promise, named by its id.

The ids are those of the project's list of invariants. Each function gets the evidence and returns what is wrong; it
reads databases, queues and the clients' journal, and asks no service anything.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from deploy.audit import expected_facts, of_dropped_products
from deploy.databases import APPLICATION
from shared.contracts import CATALOGUE, SERVICES
from shared.contracts.base import Ask
from shared.messaging.event import BATCH
from shared.messaging.topology import parking_queue_of
from tests.simulation.servers import Servers
from tests.simulation.world import SUBSCRIBER, World

Row = Mapping[str, Any]

_FINAL = {"completed", "compensated", "abandoned"}
_LEGAL = {
    "": {"started"},
    "started": {"compensating", "completed", "needs_attention"},
    "running": {"compensating", "completed", "needs_attention", "abandoned"},
    "compensating": {"compensated", "needs_attention", "abandoned"},
    "needs_attention": {"compensating", "compensated", "abandoned", "running", "completed"},
}
"""Which status of a workflow may follow which."""

_STATUSES = _FINAL | {"running", "compensating", "needs_attention"}
_STATING = ("tenant", "identity", "billing", "metrics", "provisioning")
_PARTICIPANTS = (*_STATING, APPLICATION)
_SINGLE = {"account", "customer", "environment", "subscription", "tenancy.tenant", "tenant", "tracked_tenant"}
"""Places where a tenant has one thing at most, and each of its products another one."""


@dataclass
class Evidence:
    """What was found at the end of a simulation.

    Attributes:
        outcomes: what each tenant must be like: ``alive``, ``gone`` or ``unfinished``.
        keys: the workflow that each idempotency key stands for.
        live: how often each database has something of a tenant, by database, tenant and place.
        stated: what each service says of a tenant, by service, tenant and fact.
        outboxes: how many messages wait in each.
        inboxes: the messages that took effect in each service.
        operations: in which state participants have each step.
    """

    world: World
    workflows: Sequence[Row] = ()
    steps: Mapping[UUID, Mapping[str, Row]] = field(default_factory=dict)
    history: Mapping[UUID, Sequence[Row]] = field(default_factory=dict)
    outcomes: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, UUID] = field(default_factory=dict)
    live: Mapping[str, Mapping[str, Counter[str]]] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    outboxes: Mapping[str, int] = field(default_factory=dict)
    inboxes: Mapping[str, set[UUID]] = field(default_factory=dict)
    operations: Mapping[tuple[UUID, str], Sequence[str]] = field(default_factory=dict)


async def gathered(world: World, servers: Servers) -> Evidence:
    """Read everything that the promises are about."""
    found = Evidence(world)
    read = servers.read
    found.workflows = await read("onboarding", "SELECT * FROM workflow ORDER BY created_at, id")
    found.steps = _by_workflow_and_name(await read("onboarding", "SELECT * FROM step"))
    found.history = _by_workflow(await read("onboarding", "SELECT * FROM history ORDER BY workflow_id, seq"))
    found.outcomes = _pairs(await read("onboarding", "SELECT tenant_id AS key, outcome AS value FROM tenant_outcome"))
    found.keys = _pairs(await read("onboarding", "SELECT key, workflow_id AS value FROM idempotency"))
    found.live = {name: _places(await read(name, _live_view(name))) for name in (*SERVICES, APPLICATION)}
    found.stated = {name: _facts(await read(name, "SELECT * FROM audited_fact")) for name in _STATING}
    operations: dict[tuple[UUID, str], list[str]] = defaultdict(list)
    for name in SERVICES:
        (row,) = await read(
            name, "SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT array_agg(message_id) FROM inbox) AS inbox"
        )
        found.outboxes = {**found.outboxes, name: row["outbox"]}
        found.inboxes = {**found.inboxes, name: set(row["inbox"] or ())}
        for operation in await read(name, "SELECT workflow_id, step, state FROM operation"):
            operations[operation["workflow_id"], operation["step"]].append(operation["state"])
    found.operations = operations
    return found


def check(evidence: Evidence) -> list[str]:
    """Return every broken promise, each with its id in front."""
    broken = list(evidence.world.violations) + list(evidence.world.journal.broken)
    for name, promise in CHECKS.items():
        broken += [f"{name} {problem}" for problem in promise(evidence)]
    return broken


def check_S1(evidence: Evidence) -> Iterator[str]:  # noqa: N802 - the id of the promise
    """Accepted orders are workflows, one each, and all answers to an order name it."""
    ids = {str(row["id"]) for row in evidence.workflows}
    promised: Counter[str] = Counter()
    for order in evidence.world.journal.orders:
        named = {workflow["id"] for workflow in order.accepted}
        kept = str(evidence.keys[order.key]) if order.key in evidence.keys else None
        if named and named != {kept}:
            yield f"{order.key} was answered with {named} and stands for {kept}"
        promised.update(named)
        yield from (f"{order.key} was promised {each}, which does not exist" for each in named - ids)
    yield from (f"{each} was promised to {count} orders" for each, count in promised.items() if count > 1)
    stray = ids - {str(workflow_id) for workflow_id in evidence.keys.values()}
    yield from (f"{workflow_id} is nobody's order" for workflow_id in stray)


def check_S2(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """What was refused created nothing."""
    for order in evidence.world.journal.orders:
        refusals = [answer.status for answer in order.answers if answer.status != 202]
        if refusals and order.key in evidence.keys:
            yield f"{order.key} {order.path} was refused with {refusals} and began {evidence.keys[order.key]}"


def check_S4(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """A history has no gap, one end, and nothing but late answers after it."""
    for row in evidence.workflows:
        entries = evidence.history.get(row["id"], ())
        if [entry["seq"] for entry in entries] != list(range(1, row["seq"] + 1)):
            yield f"{row['id']}: seq is {[entry['seq'] for entry in entries]}, the workflow's {row['seq']}"
        kinds = [entry["kind"] for entry in entries]
        ends = [place for place, kind in enumerate(kinds) if kind in _FINAL]
        if row["status"] in _FINAL and [kinds[place] for place in ends] != [row["status"]]:
            yield f"{row['id']} is {row['status']}, its history says {[kinds[place] for place in ends]}"
        if ends and (after := [kind for kind in kinds[ends[0] + 1 :] if not kind.startswith("late_")]):
            yield f"{row['id']}: after its end there is {after}"


def check_S5(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """A tenant that is there is everywhere, once, and what the services say of it agrees."""
    for tenant_id in _those(evidence, "alive"):
        for name in ("onboarding", *_PARTICIPANTS):
            places = evidence.live[name].get(tenant_id, Counter())
            if not places:
                yield f"{tenant_id} is not in {name}"
            if doubles := [each for each, count in places.items() if count > 1 and each.partition(":")[0] in _SINGLE]:
                yield f"{tenant_id} is more than once in {name}: {doubles}"
            if left := of_dropped_products(places, evidence.stated["tenant"].get(tenant_id, {})):
                yield f"{tenant_id} has {left} in {name} of products that it has no more"
        record = evidence.stated["tenant"].get(tenant_id, {})
        if record.get("state") not in {"active", "suspended"}:
            yield f"{tenant_id}: tenant says state is {record.get('state')}"
        for service, facts in expected_facts(record).items():
            yield from (
                f"{tenant_id}: {service} says {each}" for each in _deviations(evidence, service, tenant_id, facts)
            )


def _deviations(evidence: Evidence, service: str, tenant_id: str, wanted: Mapping[str, str | None]) -> Iterator[str]:
    """Return what a service states of a tenant and must not; of its products, nothing else than is wanted."""
    stated = evidence.stated[service].get(tenant_id, {})
    for fact in sorted(wanted.keys() | {each for each in stated if ":" in each}):
        if stated.get(fact) != wanted.get(fact):
            yield f"{fact} is {stated.get(fact)}, not {wanted.get(fact)}"


def check_S6(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """A tenant that never came to be, or is gone, is nowhere, and its name is free."""
    entitled = _those(evidence, "alive") | _those(evidence, "unfinished")
    for name, tenants in evidence.live.items():
        for tenant_id, places in tenants.items():
            if tenant_id not in entitled:
                yield f"{name} still has {sorted(places)} of {tenant_id or 'nobody'}"


def check_S8(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """A tenant has one active workflow at most."""
    active = Counter(row["tenant_id"] for row in evidence.workflows if row["status"] not in _FINAL)
    yield from (f"{tenant_id} has {count} active workflows" for tenant_id, count in active.items() if count > 1)


def check_S9(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """Each step is done by one participant, once, however often it is asked; what it answered is what is the case."""
    for (workflow_id, step_name), states in evidence.operations.items():
        if len(states) > 1:
            yield f"{workflow_id} {step_name} was done {len(states)} times"
    for row in evidence.workflows:
        asked = {step["name"] for step in _plan(row) if step["ask"] is not None}
        for name, step in evidence.steps.get(row["id"], {}).items():
            states = evidence.operations.get((row["id"], name), [])
            if step["status"] == "succeeded" and row["status"] == "completed" and name in asked and states != ["done"]:
                yield f"{row['id']} {name} succeeded, its participant says {states}"
            if step["status"] == "undone" and name in asked and states != ["undone"]:
                yield f"{row['id']} {name} is undone, its participant says {states}"


def check_S10(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """What was undone stays undone: a step that a participant has taken back never counts as done again."""
    undone: set[tuple[UUID | None, str | None]] = set()
    for effect in evidence.world.effects:
        if effect.service != "onboarding" and effect.step is not None and undoes(effect.type):
            undone.add((effect.workflow_id, effect.step))
    for key in undone:
        assert key[0] is not None
        assert key[1] is not None
        states = evidence.operations.get((key[0], key[1]), [])
        if states != ["undone"]:
            yield f"{key[0]} {key[1]} was taken back and is {states}"


def check_S11(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """A step is asked when all before it have succeeded, and undone when all after it are undone or did nothing."""
    for row in evidence.workflows:
        after = {step["name"]: step["after"] for step in _plan(row)}
        yield from (f"{row['id']} {each}" for each in _disorder(evidence.history.get(row["id"], ()), after))


def _disorder(entries: Sequence[Row], after: Mapping[str, Sequence[str]]) -> Iterator[str]:
    done: set[str] = set()
    effective: set[str] = set()
    for entry in entries:
        kind, step = entry["kind"], entry["step"]
        if kind == "asked":
            effective.add(step)
            if missing := [each for each in after[step] if each not in done]:
                yield f"asked {step} before {missing} had succeeded"
        elif kind == "undo_asked" and (followers := sorted(each for each in effective if step in after[each])):
            yield f"undid {step} before {followers}"
        if kind in {"succeeded", "waited", "skipped"}:
            done.add(step)
        if kind in {"undone", "skipped"} or (kind == "refused" and not _is_retried(entries, entry)):
            effective.discard(step)


def check_S12(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """What went over the wires was committed, all of it, and nothing that was committed is left behind."""
    world = evidence.world
    for name in SERVICES:
        if ghosts := world.wires.tap.said[name] - world.committed[name]:
            yield f"{name} said {_some(ghosts)}, which it never committed"
        if unsaid := world.committed[name] - world.wires.tap.said[name] - _status_ids(evidence):
            yield f"{name} committed {_some(unsaid)} and never said it"
        if evidence.outboxes[name]:
            yield f"{name} has {evidence.outboxes[name]} messages in its outbox"


def check_S13(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """What reached a queue took effect, or is parked."""
    for name in SERVICES:
        routed = evidence.world.wires.tap.routed[name]
        if lost := routed - evidence.inboxes[name] - _parked_ids(evidence, name):
            yield f"{name} was sent {_some(lost)}, which took no effect"
        if invented := evidence.inboxes[name] - routed:
            yield f"{name} handled {_some(invented)}, which nobody sent"


def check_S14(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """A message takes effect once at each service."""
    counts = Counter((effect.service, effect.id, effect.type) for effect in evidence.world.effects)
    for (service, message_id, kind), count in counts.items():
        if count > 1:
            yield f"{kind} {message_id} took effect {count} times at {service}"


def check_S15(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """Nothing is parked but what somebody meant to be."""
    broker = evidence.world.wires.broker
    for name in SERVICES:
        for message in broker.messages(parking_queue_of(name)):
            yield f"{name} has parked {dict(message.headers)} {message.body[:300]!r}"


def check_S18(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """Everybody outside is told of each workflow: a legal path from its start to one end, twice only in copies."""
    told: dict[str, dict[str, Any]] = defaultdict(dict)
    for message in evidence.world.wires.broker.messages(SUBSCRIBER):
        if message.routing_key.startswith("status."):
            data = orjson.loads(message.body)
            told[data["workflowId"]][message.message_id] = data
    for row in evidence.workflows:
        statuses = Counter(data["status"] for data in told[str(row["id"])].values())
        path = ["started", *(each["kind"] for each in evidence.history[row["id"]] if each["kind"] in _STATUSES)]
        if statuses != Counter(path):
            yield f"{row['id']}: told {dict(statuses)}, happened {path}"
        for before, after in zip(["", *path], path, strict=False):
            if after not in _LEGAL.get(before, set()):
                yield f"{row['id']} went from {before} to {after}"


def check_S19(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """Who reads a workflow again never sees it go back."""
    for workflow_id, statuses in evidence.world.journal.seen.items():
        ended = [place for place, status in enumerate(statuses) if status in _FINAL]
        if ended and set(statuses[ended[0] :]) != {statuses[ended[0]]}:
            yield f"{workflow_id} was read as {statuses}"


def check_L1(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """Every workflow has ended, and as it should."""
    doomed = {order.workflow_id for order in evidence.world.journal.orders if order.doomed}
    for row in evidence.workflows:
        if row["status"] not in _FINAL:
            steps = {name: step["status"] for name, step in evidence.steps[row["id"]].items()}
            yield f"{row['id']} is {row['status']}: {steps}"
        elif str(row["id"]) in doomed and row["status"] == "completed":
            yield f"{row['id']} should have been undone"


def check_L2(evidence: Evidence) -> Iterator[str]:  # noqa: N802
    """All orders were answered."""
    for order in evidence.world.journal.orders:
        if not order.answers:
            yield f"{order.key} {order.path} was never answered"


CHECKS: Mapping[str, Callable[[Evidence], Iterator[str]]] = {
    name.removeprefix("check_"): value for name, value in list(globals().items()) if name.startswith("check_")
}
"""Every promise by its id."""


def _those(evidence: Evidence, outcome: str) -> set[str]:
    return {tenant_id for tenant_id, each in evidence.outcomes.items() if each == outcome}


def _plan(row: Row) -> Sequence[Row]:
    plan = row["plan"]
    steps: Sequence[Row] = orjson.loads(plan) if isinstance(plan, str) else plan
    return steps


def _is_retried(entries: Sequence[Row], refused: Row) -> bool:
    """Tell whether a refusal was not the last word: then an earlier attempt may still succeed."""
    following = next((each for each in entries if each["seq"] == refused["seq"] + 1), None)
    return following is not None and following["kind"] == "retry_scheduled"


def undoes(kind: str) -> bool:
    """Tell whether a type of message takes something back."""
    message = CATALOGUE[kind]
    return issubclass(message, Ask) and message.undoes is not None


def _status_ids(evidence: Evidence) -> set[UUID]:
    return {UUID(message.message_id) for message in evidence.world.wires.broker.messages(SUBSCRIBER)}


def _parked_ids(evidence: Evidence, service: str) -> set[UUID]:
    parked = evidence.world.wires.broker.messages(parking_queue_of(service))
    return {UUID(event["id"]) for each in parked if each.content_type == BATCH for event in orjson.loads(each.body)}


def _some(ids: set[UUID]) -> str:
    return ", ".join(map(str, sorted(ids)[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _by_workflow(rows: Sequence[Row]) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["workflow_id"]].append(row)
    return found


def _by_workflow_and_name(rows: Sequence[Row]) -> dict[UUID, dict[str, Row]]:
    return {key: {row["name"]: row for row in each} for key, each in _by_workflow(rows).items()}


def _places(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        found[row["tenant_id"]][row["place"]] += 1
    return found


def _facts(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        found[row["tenant_id"]][row["fact"]] = row["value"]
    return found


def _pairs(rows: Sequence[Row]) -> dict[str, Any]:
    return {row["key"]: row["value"] for row in rows}


def _live_view(name: str) -> str:
    return f"SELECT tenant_id, place FROM {'tenancy.' if name == APPLICATION else ''}live_record"
