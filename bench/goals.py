"""Every goal for the speed on the CPU, in one table: the cell, what of it is looked at, and the limit."""

from __future__ import annotations

from dataclasses import dataclass

# What is looked at -> how its goal reads. "roofline", "copy": share of the least time that the ceilings of the same run
# allow; "ideal": multiple of that time; "naive", "torchjd": how many times as fast; "ms": milliseconds.
TEXTS = {
    "roofline": "≥ {:.0%} roofline",
    "copy": "≥ {:.0%} copy",
    "ideal": "≤ {:.1f} x ideal",
    "naive": "≥ {:.0f} x PyTorch",
    "torchjd": "≥ {:.0f} x TorchJD",
    "ms": "≤ {:.0f} ms",
}
SMALLER_IS_BETTER = frozenset({"ideal", "ms"})


@dataclass(frozen=True)
class Goal:
    """A limit for one value of a cell."""

    metric: str
    limit: float

    def __str__(self) -> str:
        return TEXTS[self.metric].format(self.limit)

    def met(self, value: float) -> bool:
        """Whether `value` is on the right side of the limit."""
        return value <= self.limit if self.metric in SMALLER_IS_BETTER else value >= self.limit


_STEP = (Goal("ideal", 1.6), Goal("naive", 12), Goal("torchjd", 7))

GOALS: dict[str, tuple[Goal, ...]] = {
    "gramian fp32 T=4": (Goal("roofline", 0.75),),
    "gramian fp32 T=8": (Goal("roofline", 0.75),),
    "gramian fp32 T=16": (Goal("roofline", 0.65),),
    "gramian fp32 T=32": (Goal("roofline", 0.60),),
    "combine fp32 T=8": (Goal("copy", 0.85),),
    "step, buffer": _STEP,
    "step, list": _STEP,
    "small groups, buffer": (Goal("ms", 1),),  # TorchJD, too, is given its matrices ready made
}
