"""The test kit: in-memory twins, the suites that prove them, and ways to wait."""

from shared.testing.eventually import eventually, hurry

__all__ = ["eventually", "hurry"]
