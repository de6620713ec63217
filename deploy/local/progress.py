"""Onboardings as they happen: a live table where somebody watches a terminal, plain lines anywhere else."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_STEPS = {
    "register-tenant": "register",
    "create-administrators": "admins",
    "open-account": "billing",
    "track-tenant": "metrics",
    "provision-environment": "provision",
    "activate-tenant": "activate",
}
_WORDS = {
    "asked": "…",
    "retry_scheduled": "again…",
    "timed_out": "late",
    "succeeded": "done",
    "refused": "failed",
    "failed": "failed",
    "undo_asked": "undo…",
    "undo_timed_out": "late",
    "undone": "undone",
    "skipped": "skipped",
}
_STATUSES = {
    "started": "running",
    "compensating": "undoing",
    "compensated": "undone",
    "completed": "completed",
    "needs_attention": "stuck",
    "abandoned": "abandoned",
}
_COLOURS = {"done": "green", "completed": "green", "undone": "yellow", "failed": "red", "late": "red", "stuck": "red"}
_TOLD = ("succeeded", "refused", "timed_out", "undone", *_STATUSES)
_WIDE = 110
_FRAMES_PER_SECOND = 20


@dataclass
class Progress:
    """How far one onboarding has come.

    Attributes:
        steps: the word shown for each step that was reached.
        status: the word shown for the whole.
    """

    name: str
    tier: str
    status: str = "waiting"
    steps: dict[str, str] = field(default_factory=dict)
    started_at: datetime | None = None
    seconds: float | None = None

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take in an entry of the workflow's history."""
        kind, step = event["kind"], event["step"]
        at = datetime.fromisoformat(event["at"])
        if step in _STEPS and kind in _WORDS:
            self.steps[step] = _WORDS[kind]
        if step is None and kind in _STATUSES:
            self.status = _STATUSES[kind]
            self.started_at = self.started_at or at
            self.seconds = (at - self.started_at).total_seconds()


class Display(Protocol):
    """Where progress is shown."""

    def heard(self, progress: Progress, event: Mapping[str, Any]) -> None:
        """Show that something happened to one of the onboardings."""
        ...


def showing(out: Console, rows: Sequence[Progress]) -> AbstractContextManager[Display]:
    """Return the display that suits the output: a table only where it can be redrawn and read."""
    plain = not out.is_terminal or out.is_dumb_terminal or "NO_COLOR" in os.environ
    return _lines(out, rows) if plain or out.height < len(rows) + 4 else _live_table(out, rows)


@contextmanager
def _live_table(out: Console, rows: Sequence[Progress]) -> Iterator[Display]:
    with Live(console=out, auto_refresh=False, get_renderable=lambda: _table(out, rows)) as live:
        yield _LiveTable(live)
        live.refresh()


class _LiveTable:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._drawn = 0.0

    def heard(self, _progress: Progress, _event: Mapping[str, Any]) -> None:
        if time.monotonic() - self._drawn >= 1 / _FRAMES_PER_SECOND:
            self._live.refresh()
            self._drawn = time.monotonic()


def _table(out: Console, rows: Sequence[Progress]) -> Table:
    """Draw the table; the status comes first, so that a name from right to left does not turn the line around."""
    wide = out.width >= _WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 3 if wide else 1, 0, 0), header_style="bold")
    table.add_column("", min_width=9, no_wrap=True)
    table.add_column("tenant", no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("tier", no_wrap=True)
    for heading in _STEPS.values():
        table.add_column(heading, no_wrap=True)
    if wide:
        table.add_column("ms", justify="right", no_wrap=True)
    for row in rows:
        cells = [_coloured(row.status), Text(row.name)]
        cells += [Text(row.tier, "bright_black")] if wide else []
        cells += [_coloured(row.steps.get(step, "·")) for step in _STEPS]
        cells += [Text(_milliseconds(row), "bright_black")] if wide else []
        table.add_row(*cells)
    return table


def _coloured(word: str) -> Text:
    return Text(word, _COLOURS.get(word, "bright_black"))


def _milliseconds(row: Progress) -> str:
    return "" if row.seconds is None else f"{row.seconds * 1000:.0f}"


@contextmanager
def _lines(out: Console, rows: Sequence[Progress]) -> Iterator[Display]:
    yield _Lines(out, max(cell_len(row.name) for row in rows))


class _Lines:
    def __init__(self, out: Console, width: int) -> None:
        self._out = out
        self._width = width
        self._started = time.monotonic()

    def heard(self, progress: Progress, event: Mapping[str, Any]) -> None:
        if event["kind"] not in _TOLD:
            return
        seconds = time.monotonic() - self._started
        what = event["step"] or "onboarding"
        word = _WORDS[event["kind"]] if event["step"] else progress.status
        word += f"  {event['detail']['code']}" if event["kind"] == "refused" else ""
        self._out.print(Text(f"{seconds:6.2f} s  {set_cell_size(progress.name, self._width)}  {what:<21}  {word}"))
