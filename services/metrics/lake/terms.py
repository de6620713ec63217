"""Where the lake is, and how it is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LakeTerms:
    """What an installation wants of its lake.

    Attributes:
        place: an absolute folder, or ``s3://bucket/prefix``.
        seconds: from the end of a round, in which everything new is written, to the next one.
        days: how long files of a stream are kept, by its name; one that is not named is kept for ever.
    """

    place: str
    seconds: float = 10.0
    days: Mapping[str, int] = field(default_factory=dict)
