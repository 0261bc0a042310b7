"""The checks of numbers that users give."""

from __future__ import annotations

import math

__all__ = ["check_real", "check_whole"]


def check_whole(name: str, value: object, least: int) -> None:
    """Raise `TypeError` unless `value` is an int (no bool), and `ValueError` if it is below `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def check_real(
    name: str, value: object, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """Raise `TypeError` unless `value` is a number (no bool), and `ValueError` for one not finite or out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    wanted = [
        text
        for text, bad in (
            ("finite", not math.isfinite(value)),
            (f"at least {least}", least is not None and value < least),
            (f"above {above}", above is not None and value <= above),
            (f"at most {most}", most is not None and value > most),
        )
        if bad
    ]
    if wanted:
        raise ValueError(f"{name} must be {wanted[0]}, not {value}")
