"""How the functions of a module become tests on several processes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

Case = Callable[[], Any]


def slow(case: Case) -> Case:
    """Leave this case out of `make test`."""
    case.slow = True  # type: ignore[attr-defined]
    return case


def on(world: int, *modules: ModuleType, slow: bool = False) -> list[Any]:
    """Parameters `world, case`: every public function that the modules define, in order of definition."""
    found = [
        case
        for module in modules
        for name, case in vars(module).items()
        if not name.startswith("_")
        and getattr(case, "__module__", None) == module.__name__
        and not isinstance(case, type)
    ]
    return [
        pytest.param(
            world,
            case,
            id=f"{case.__name__}-{world}",
            marks=[pytest.mark.slow] if slow or getattr(case, "slow", False) else [],
        )
        for case in found
    ]
