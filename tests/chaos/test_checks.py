"""The checkers of the campaign see what is lost, doubled, stuck, left over or wrong; and nothing where all is well."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from shared.messaging.bus import Delivery
from tests.chaos.campaign.check_events import check_events
from tests.chaos.campaign.check_promises import check_promises
from tests.chaos.campaign.check_tenants import check_tenants
from tests.chaos.campaign.findings import Finding
from tests.chaos.campaign.journal import Journal, Promise, Refusal
from tests.chaos.campaign.records import Records
from tests.chaos.campaign.tenants import Picture, Tenant, Tier, expected, without_connections
from tests.chaos.campaign.views import Views
from tests.chaos.watcher import Watcher

TIERS = {"free": Tier("free", {"seats": 3}, 2), "premium": Tier("premium", {"seats": 250}, 50)}
KINDS = ["started", "asked", "succeeded", "completed"]
TENANT = Tenant("t1", "Ada", "free", (("notes", "1.0"),), frozenset({"a@ada.example"}), state="active")


@dataclass
class World:
    """All that a checker can see, sound until a test spoils it."""

    promises: list[Promise] = field(default_factory=lambda: [Promise("k1", "onboard", "w1", "t1", status="completed")])
    refusals: list[Refusal] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=lambda: [("k1", "w1")])
    rows: dict[str, Mapping[str, Any]] = field(default_factory=lambda: {"w1": workflow()})
    told: dict[str, list[str]] = field(default_factory=lambda: {"w1": ["started", "completed"]})
    tenant: Tenant = TENANT
    written: Mapping[str, Picture] = field(default_factory=lambda: {"t1": expected(TENANT, TIERS)})
    shown: Picture = field(default_factory=lambda: expected(TENANT, TIERS))
    holders: Mapping[str, str] = field(default_factory=lambda: {"ada": "t1"})
    invoices: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""

    async def keys(self) -> list[tuple[str, str]]:
        return self.kept

    async def workflows(self) -> dict[str, Mapping[str, Any]]:
        return self.rows

    async def pictures(self) -> Mapping[str, Picture]:
        return self.written

    async def names(self) -> Mapping[str, str]:
        return self.holders

    async def final_invoices(self) -> Mapping[str, int]:
        return self.invoices

    async def tiers(self) -> Mapping[str, Tier]:
        return TIERS

    async def picture(self, _: str) -> Picture:
        return self.shown

    async def certificate_trouble(self, _: Tenant) -> str:
        return self.trouble

    def heard(self) -> Watcher:
        watcher = Watcher()
        for workflow_id, path in self.told.items():
            for number, status in enumerate(path):
                watcher.hear(message(workflow_id, number, status))
        return watcher

    async def findings(self, folder: Path) -> list[Finding]:
        records, views = cast("Records", self), cast("Views", self)
        journal = Journal(folder / "journal", self.promises, self.refusals, unanswered=self.unanswered)
        return [
            *await check_promises(journal, records),
            *await check_events(self.heard(), records),
            *await check_tenants([self.tenant], records, views),
        ]


def workflow(**changes: Any) -> Mapping[str, Any]:
    sound = {"status": "completed", "failure": None, "finished_at": 1, "kinds": KINDS}
    return sound | {"seq": 4, "last": 4, "entries": 4} | changes


def message(workflow_id: str, number: int, status: str) -> Delivery:
    told = {"workflowId": workflow_id, "status": status, "occurredAt": f"2026-01-01T00:00:0{number}Z"}
    key = f"status.onboard.{status}.t1"
    return Delivery(number, "", key, None, orjson.dumps(told), "", f"{workflow_id} {number}", {}, redelivered=False)


def undone(world: World, **changes: Any) -> None:
    kinds = ["started", "refused", "compensating", "compensated"]
    world.rows["w1"] = workflow(status="compensated", kinds=kinds, **changes)
    world.promises[0].status = "compensated"
    world.told["w1"] = ["started", "compensating", "compensated"]
    world.tenant = replace(TENANT, state="absent")
    world.written, world.shown, world.holders = {}, Picture(), {}


def off_boarded(world: World) -> None:
    world.tenant = replace(TENANT, state="archived")
    world.written = {"t1": Picture(record=("archived", "Ada"))}
    world.shown, world.holders, world.invoices = Picture(record=("archived", "Ada")), {}, {"t1": 1}


async def test_nothing_is_found_where_all_is_well(tmp_path: Path) -> None:
    assert await World().findings(tmp_path) == []


async def test_nothing_is_found_where_a_doomed_workflow_was_undone(tmp_path: Path) -> None:
    world = World()
    undone(world, failure="unknown_region")
    world.promises[0].doomed = True

    assert await world.findings(tmp_path) == []


async def test_only_a_tenant_of_a_release_without_them_may_lack_the_connections_of_its_tier(tmp_path: Path) -> None:
    world = World()
    default_connections(world)
    assert {finding.meaning for finding in await world.findings(tmp_path)} == {"wrong"}

    world.tenant = replace(TENANT, may_lack_connections=True)
    assert await world.findings(tmp_path) == []

    world.shown = replace(world.shown, environments=((7, *world.shown.environments[0][1:]),))
    world.written = {"t1": world.shown}
    assert {finding.meaning for finding in await world.findings(tmp_path)} == {"wrong"}


async def test_nothing_is_found_where_a_tenant_has_gone_as_it_must(tmp_path: Path) -> None:
    world = World()
    off_boarded(world)

    assert await world.findings(tmp_path) == []


def no_row(world: World) -> None:
    world.rows.clear()
    world.told.clear()


def no_key(world: World) -> None:
    world.kept.clear()


def refused_but_kept(world: World) -> None:
    world.refusals.append(Refusal("k2", "onboard", 409, "wrong_state"))
    world.kept.append(("k2", "w1"))


def never_promised(world: World) -> None:
    world.rows["w2"] = workflow()
    world.told["w2"] = ["started", "completed"]


def never_answered(world: World) -> None:
    world.unanswered.append("k9")


def not_ended(world: World) -> None:
    world.rows["w1"] = workflow(status="running", finished_at=None, kinds=["started"], seq=1, last=1, entries=1)
    world.told["w1"] = ["started"]


def ended_twice(world: World) -> None:
    world.rows["w1"] = workflow(kinds=[*KINDS[:3], "compensated", "completed"])


def history_with_a_hole(world: World) -> None:
    world.rows["w1"] = workflow(entries=3)


def told_otherwise(world: World) -> None:
    world.promises[0].status = "compensated"


def undone_for_no_reason(world: World) -> None:
    undone(world, failure="cancelled")


def completed_though_doomed(world: World) -> None:
    world.promises[0].doomed = True


def end_not_told(world: World) -> None:
    world.told["w1"] = ["started"]


def end_told_twice(world: World) -> None:
    world.told["w1"] = ["started", "completed", "completed"]


def told_in_an_impossible_order(world: World) -> None:
    world.told["w1"] = ["completed", "started"]


def told_of_nothing(world: World) -> None:
    world.told["w7"] = ["started", "completed"]


def plan_not_written(world: World) -> None:
    world.written = {"t1": replace(world.written["t1"], subscriptions=(("premium", "active"),))}


def charged_twice(world: World) -> None:
    world.written = {"t1": replace(world.written["t1"], subscriptions=(("free", "active"),) * 2)}


def not_blocked_but_shown_so(world: World) -> None:
    world.shown = replace(world.shown, blocked=True)


def left_over(world: World) -> None:
    off_boarded(world)
    world.written = {"t1": replace(world.written["t1"], admins=("a@ada.example",))}


def nobody_ordered_it(world: World) -> None:
    world.written = {**world.written, "t9": expected(TENANT, TIERS)}


def name_still_taken(world: World) -> None:
    off_boarded(world)
    world.holders = {"ada": "t1"}


def two_last_invoices(world: World) -> None:
    off_boarded(world)
    world.invoices = {"t1": 2}


def no_last_invoice(world: World) -> None:
    off_boarded(world)
    world.invoices = {}


def no_certificate(world: World) -> None:
    off_boarded(world)
    world.trouble = "no certificate"


def default_connections(world: World) -> None:
    world.shown = without_connections(world.shown)
    world.written = {"t1": world.shown}


SPOILT: Mapping[Callable[[World], None], set[str]] = {
    no_row: {"lost"},
    no_key: {"lost"},
    refused_but_kept: {"doubled"},
    never_promised: {"doubled"},
    never_answered: {"stuck"},
    not_ended: {"stuck"},
    ended_twice: {"doubled", "lost"},
    history_with_a_hole: {"lost"},
    told_otherwise: {"wrong"},
    undone_for_no_reason: {"wrong"},
    completed_though_doomed: {"wrong"},
    end_not_told: {"lost"},
    end_told_twice: {"doubled", "wrong"},
    told_in_an_impossible_order: {"wrong"},
    told_of_nothing: {"doubled"},
    plan_not_written: {"wrong"},
    charged_twice: {"wrong"},
    not_blocked_but_shown_so: {"wrong"},
    left_over: {"residue"},
    nobody_ordered_it: {"residue"},
    name_still_taken: {"wrong"},
    two_last_invoices: {"doubled"},
    no_last_invoice: {"lost"},
    no_certificate: {"wrong"},
}
"""What a test does to a sound world, and what must be found then."""


@pytest.mark.parametrize("spoil", SPOILT)
async def test_whatever_is_not_as_it_must_be_is_found(spoil: Callable[[World], None], tmp_path: Path) -> None:
    world = World()
    spoil(world)

    assert {finding.meaning for finding in await world.findings(tmp_path)} == SPOILT[spoil]
