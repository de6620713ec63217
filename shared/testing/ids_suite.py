"""What every source of identities promises; the machine's and its twin are held to the same."""

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from shared.clock import Clock
from shared.ids import Ids
from shared.testing.clock_suite import PassTime

_MANY = 10_000
_VERSION = 7
_TOLERANCE = timedelta(milliseconds=50)


class IdsSuite:
    """Inherit, and provide the fixtures ``ids``, ``clock`` (by which they are made) and ``pass_time``."""

    def test_an_identity_is_a_uuid_of_version_7(self, ids: Ids) -> None:
        """RFC 9562, section 5.7."""
        made = ids.new()
        assert (made.version, made.variant) == (_VERSION, RFC_4122)

    def test_no_identity_is_made_twice(self, ids: Ids) -> None:
        """Nor within one millisecond."""
        assert len({ids.new() for _ in range(_MANY)}) == _MANY

    async def test_later_identities_sort_after_earlier_ones(self, ids: Ids, pass_time: PassTime) -> None:
        """As bytes, which is how Postgres compares them."""
        made = []
        for _ in range(3):
            made.append(ids.new())
            await pass_time(0.003)
        assert sorted(made, key=lambda each: each.bytes) == made

    def test_an_identity_tells_when_it_was_made(self, ids: Ids, clock: Clock) -> None:
        """The inbox finds its partition by it."""
        assert abs(moment_of(ids.new()) - clock.now()) < _TOLERANCE


def moment_of(identity: UUID) -> datetime:
    """Read the time off a UUID of version 7."""
    return datetime.fromtimestamp((identity.int >> 80) / 1000, UTC)
