"""Numbers and names as they stand in sentences, tables and figures."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

__all__ = ["clean", "count", "in_figure", "listed", "named", "number", "plain", "signed", "with_spread"]


def clean(text: Any) -> str:
    """`text` without what no page can show: control characters and lone surrogates become the replacement character."""
    return "".join("\ufffd" if unicodedata.category(x) in ("Cc", "Cs") else x for x in str(text))


def named(text: Any) -> str:
    """A name for a sentence or a table; one with right-to-left letters is isolated, so that it turns nothing else."""
    name = clean(text)
    if any(unicodedata.bidirectional(x) in ("R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI") for x in name):
        return f"\u2068{name}\u2069"
    return name


def in_figure(text: Any, width: int = 26) -> str:
    """A name for matplotlib: cut to `width` characters, a dollar sign is one and starts no formula."""
    name = clean(text)
    name = name if len(name) <= width else name[: width - 1] + "…"
    return name.replace("$", r"\$")


def number(value: float | None, digits: int = 3) -> str:
    """`value` with a true minus sign; a dash for None and NaN."""
    if value is None or value != value:
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) != 0 else text.replace("-", "")


def signed(value: float | None, digits: int = 3) -> str:
    """As `number`, with a plus sign before what is greater than 0."""
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 and text.strip("0.") else text


def with_spread(value: float, spread: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """`value ± spread`, or the value alone where no spread is known."""
    shown = signed(value, digits) if sign else number(value, digits)
    return shown if spread is None else f"{shown} ± {number(spread, digits)}"


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """`1 task`, `2 tasks`, `12,000 tasks`."""
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def listed(names: Sequence[Any], most: int = 12) -> str:
    """`a, b and c`; the names after the first `most` are only counted."""
    shown = [named(name) for name in names[:most]]
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def plain(value: Any) -> str:
    """A value of metadata or budget for people: strings and numbers as they are, the rest as JSON."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if value is None or isinstance(value, (str, float)):
        return "none" if value is None else clean(value)
    if isinstance(value, (list, tuple)) and all(isinstance(x, (str, int, float)) for x in value):
        return ", ".join(map(plain, value)) or "none"
    return clean(json.dumps(value, ensure_ascii=False, default=str))
