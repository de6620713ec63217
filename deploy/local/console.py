"""What our commands print: calm lines, in colour only where somebody looks at a terminal that shows it."""

import re

from rich.console import Console
from rich.text import Text

_PART = re.compile(r"(?P<name>\S+(?: \S+)?)(?P<gap> {2,})(?P<what>.*?)(?P<took> +\(\d+\.\d s\))?")


def console() -> Console:
    """Return standard output; plain without a terminal, with ``NO_COLOR`` or with ``TERM=dumb``."""
    return Console(highlight=False, soft_wrap=True)


def say_part(out: Console, line: str) -> None:
    """Print ``<name>  <what became of it>  (<seconds> s)`` with the name in front and the seconds behind."""
    match = _PART.fullmatch(line)
    if match is None:
        out.print(Text(line))
        return
    styled = Text.assemble((match["name"], "bold"), match["gap"], match["what"], (match["took"] or "", "bright_black"))
    out.print(styled)


def say_problem(out: Console, message: str) -> None:
    """Print what keeps a command from doing its work, and its remedy."""
    out.print(Text.assemble(("It cannot go on: ", "bold red"), message))
