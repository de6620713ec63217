"""Each failpoint of the kernel raises once, and every message still takes effect exactly once."""

from collections import Counter

import pytest

from shared.contracts.billing import OpenAccount, VoidAccount
from shared.contracts.tenant import TenantActivated
from shared.failpoints import FAILPOINTS, armed, hits
from shared.messaging import outbox
from shared.testing.one_service import OneService
from shared.testing.three_services import asked, told

ELSEWHERE = {
    *("before_202", "due_claimed", "job_claimed", "job_stepped"),
    *("usage_inserted", "usage_committed", "lake_planned", "lake_stored", "lake_written"),
}
"""Failpoints of one service alone."""

KERNEL = [name for name in FAILPOINTS if name not in ELSEWHERE]


@pytest.fixture(autouse=True)
def eager_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sweeper look as often as the clock of these tests moves."""
    monkeypatch.setattr(outbox, "_SWEEP_SECONDS", 0.05)


@pytest.mark.parametrize("visit", [1, 2])
@pytest.mark.parametrize("name", KERNEL)
async def test_a_failure_at_any_place_changes_nothing_in_the_end(service: OneService, name: str, visit: int) -> None:
    asks = [asked(OpenAccount(tenant_id=f"t{number}", customer_name="Ada", plan="pro")) for number in range(4)]
    undo = asked(VoidAccount(tenant_id="t0"), workflow_id=asks[0].workflow_id)
    news = told(TenantActivated(tenant_id="t1"))

    with armed(f"{name}:{visit}=raise"):
        async with service.relaying(), service.consuming():
            await service.publish(*asks[:2])
            await service.until(lambda: len(service.said()) >= 2)
            await service.until(lambda: is_settled(service))  # what follows is another visit of every place
            await service.publish(*asks[2:])
            await service.publish(news)
            await service.publish(undo)
            await service.until(lambda: answered(service) == {event.id for event in [*asks, undo]})
            await service.until(lambda: is_settled(service))
        assert hits(name) == 1

    expected = [("opened", f"t{number}") for number in range(4)] + [("started", "t1"), ("voided", "t0")]
    assert sorted(await service.effects()) == expected
    assert service.parked() == ()
    ways = Counter((answer.causation_id, answer.id) for answer in service.said())
    assert len(ways) == len(asks) + 1  # one answer each, however often it was sent


@pytest.mark.parametrize("name", ["received", "handled", "before_commit", "after_commit", "before_ack", "acked"])
async def test_an_outage_is_not_counted_as_an_attempt(service: OneService, name: str) -> None:
    with armed(f"{name}=raise"):
        async with service.relaying(), service.consuming():
            await service.publish(asked(OpenAccount(tenant_id="t1", customer_name="Ada", plan="pro")))
            await service.until(lambda: len(service.said()) >= 1 and service.is_quiet())
        assert hits(name) == 1

    assert [message.returns for message in service.broker.messages("billing.parking")] == []
    assert await service.effects() == [("opened", "t1")]


def answered(service: OneService) -> set[object]:
    return {answer.causation_id for answer in service.said()}


async def is_settled(service: OneService) -> bool:
    return service.is_quiet() and await service.unsent() == 0
