"""What is seen of a measurement while it runs: a bar on stderr, if rich is installed and somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar"]


@contextmanager
def bar(text: str, total: int | None, wanted: bool) -> Iterator[Callable[[], None]]:
    """Yields what to call after each of `total` passes; it draws only on a terminal, and never without rich."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:  # optional, and nothing but the bar is missing
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(text, total=total)
        yield lambda: shown.advance(task)
