"""One ask per tenant at a time, for statements that can change a tenant once."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar


class OfTenant(Protocol):
    """Whatever concerns one tenant."""

    @property
    def tenant_id(self) -> str:
        """Return whose it is."""
        ...


Asked = TypeVar("Asked", bound=OfTenant)
Outcome = TypeVar("Outcome")


async def in_turn(
    asks: Sequence[Asked], handle: Callable[[Sequence[Asked]], Awaitable[Sequence[Outcome]]]
) -> list[Outcome]:
    """Handle a batch in turns that have each tenant once, so that its second ask finds what the first made of it.

    A tenant has one active workflow, so there is hardly ever more than one turn.

    Returns:
        What came of each ask, in the order of the asks.
    """
    outcomes: dict[int, Outcome] = {}
    for positions in _turns(asks):
        handled = await handle([asks[position] for position in positions])
        outcomes.update(zip(positions, handled, strict=True))
    return [outcomes[position] for position in range(len(asks))]


def _turns(asks: Sequence[OfTenant]) -> list[list[int]]:
    turns: list[list[int]] = []
    taken: defaultdict[str, int] = defaultdict(int)
    for position, ask in enumerate(asks):
        turn = taken[ask.tenant_id]
        taken[ask.tenant_id] += 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(position)
    return turns
