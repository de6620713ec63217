"""The figures of a rolling restart, in Markdown."""

from collections import Counter
from collections.abc import Sequence

from tests.chaos.campaign.records import Records
from tests.rolling.deployment import Restart
from tests.rolling.legacy import Legacy
from tests.rolling.visitors import Visitors

_HEAD = (
    "| service | stopped in | ready in | longest without an answer | workflows under way | longest of them | setbacks |"
)


async def table(restarts: Sequence[Restart], visitors: Visitors, records: Records) -> list[str]:
    """Return a line for each service that was restarted."""
    lines = [_HEAD, "|---|---:|---:|---:|---:|---:|---|"]
    for each in restarts:
        count, longest = await records.met(asked_at=each.asked_at, ready_at=each.ready_at)
        times = f"{each.stopping:.1f} s | {each.starting:.1f} s | {visitors.longest[each.service]:.1f} s"
        lines.append(f"| {each.service} | {times} | {count} | {longest:.1f} s | {_listed(Counter(each.setbacks))} |")
    return lines


async def used(legacy: Legacy, records: Records) -> list[str]:
    """Return what tenants of the old code have been through since, and what they still lack."""
    pictures = (await records.pictures()).values()
    lacking = sum(connections is None for picture in pictures for connections, *_ in picture.environments)
    lines = [f"of old code   {len(legacy.tenants):5}  tenants; completed since: {_listed(legacy.completed)}"]
    if lacking:
        lines.append(f"unchanged     {lacking:5}  tenants have the old number of connections until their tier changes")
    return lines


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
