"""A deliberate bug: what is changed where, and which tests have to see it."""

from dataclasses import dataclass
from pathlib import Path


class StaleDefectError(Exception):
    """The text that a defect changes is not in the file any more, or is there more than once."""


@dataclass(frozen=True)
class Defect:
    """A bug that is planted by replacing some text of a file.

    Attributes:
        name: what goes wrong, in a few words.
        file: relative to the root of the repository.
        before: the text that is replaced; it occurs exactly once.
        caught_by: test files or folders that have to fail, the quickest first.
    """

    name: str
    file: str
    before: str
    after: str
    caught_by: tuple[str, ...]

    def planted_in(self, root: Path) -> str:
        """Return the file's text with the defect in it.

        Raises:
            StaleDefectError: the text to replace does not occur exactly once.
        """
        text = (root / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.before)) != 1:
            raise StaleDefectError(f"{self.name}: {self.file} has {count} times {self.before!r}")
        return text.replace(self.before, self.after)
