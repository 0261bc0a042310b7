"""For each function of samples and parameters: how its parameters' gradients are cut by task."""

from __future__ import annotations

from gradsim.one_backward.rules.fallback import each_task
from gradsim.one_backward.rules.table import RULES, WATCHED

__all__ = ["RULES", "WATCHED", "each_task"]
