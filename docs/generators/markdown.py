"""The little Markdown that the generated pages need."""

from collections.abc import Iterable, Sequence

from docs.generators.catalogue import title_of
from shared.contracts import Message

GENERATED = "<!-- Written by `make docs`; change the code instead. -->"
"""What a generated page says of itself to whoever opens its source."""


def link(message: type[Message], *, page: str = "") -> str:
    """Return a link to a message on the page of all messages, which is this page unless another is named."""
    title = title_of(message)
    return f"[{title}]({page}#{title.lower().replace(' ', '-')})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mermaid(*lines: str) -> str:
    """Return a diagram, as a block that forges and editors draw."""
    return "\n".join(["```mermaid", *lines, "```", ""])
