"""Which drivers this installation has, and which lane a job waits in."""

from collections.abc import Iterable, Iterator

from services.provisioning.drivers.port import Capacity, Driver

CARRYING = "move"
"""The lane in which data is carried from one kind of environment to another."""


class Drivers:
    """The drivers by name.

    A lane is a queue of its own with a capacity of its own: one for each isolation of each driver, and one for moves.
    What is slow in one never holds up another.
    """

    def __init__(self, drivers: Iterable[Driver]) -> None:
        self._drivers = {driver.name: driver for driver in drivers}

    def __iter__(self) -> Iterator[Driver]:
        return iter(self._drivers.values())

    def add(self, driver: Driver) -> None:
        """Have one more driver."""
        self._drivers[driver.name] = driver

    def names(self) -> list[str]:
        """Return what there is, as tiers and products call it."""
        return list(self._drivers)

    def find(self, name: str) -> Driver | None:
        """Return a driver, if the installation has it."""
        return self._drivers.get(name)

    def of(self, lane: str) -> Driver:
        """Return the driver of a lane.

        Raises:
            KeyError: the installation does not have it any more.
        """
        return self._drivers[lane.partition("/")[0]]

    def lanes(self) -> dict[str, Capacity]:
        """Return the capacity of every lane."""
        return {
            lane_of(driver.name, place): driver.capacity(place)
            for driver in self
            for place in (*driver.isolations, CARRYING)
        }


def lane_of(driver: str, place: str) -> str:
    """Return the lane of a driver's environments of one isolation, or of its moves."""
    return f"{driver}/{place}"
