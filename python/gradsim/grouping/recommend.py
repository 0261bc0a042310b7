"""Which number of groups to take, from the gains over chance, and the sentence that says why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.choice import Candidate

__all__ = ["Gains", "recommend"]

_SIGNIFICANT = 0.05
_UNSTABLE = 0.5


@dataclass(frozen=True)
class Gains:
    """For one K: the gain on the similarity, those on shuffled ones, and what is rounding; all by one solver."""

    own: float
    shuffled: NDArray[np.float64]
    tiny: float

    def standing_out(self) -> NDArray[np.float64]:
        """How far each gain, the own one first, is above the mean of the shuffled ones, in their deviations."""
        spread = float(self.shuffled.std(ddof=1))
        if spread <= self.tiny:
            return np.zeros(len(self.shuffled) + 1)
        return np.asarray((np.array([self.own, *self.shuffled]) - self.shuffled.mean()) / spread)


def recommend(rows: Sequence[Candidate], gains: Sequence[Gains], resampling: str | None) -> tuple[int, str, float]:
    """The number of groups, the reason, and the p-value of there being groups at all.

    The p-value is that of the largest excess over all K at once, so that many K do not make chance look significant.
    """
    standing_out = np.max([gain.standing_out() for gain in gains], axis=0)
    p_value = float(np.mean(standing_out >= standing_out[0]))  # the own one counts, as in any permutation test
    if p_value > _SIGNIFICANT or standing_out[0] <= 0:
        fewest = rows[0].num_groups
        return fewest, f"no number of groups beats chance (p = {p_value:.2f}), so the fewest, {fewest}", p_value
    best = max(rows, key=lambda row: row.excess)
    shuffles = len(gains[0].shuffled)
    error = math.hypot(best.chance_std * math.sqrt(1 + 1 / shuffles), best.gain_std or 0.0)
    row = next(row for row in rows if row.excess > 0 and row.excess >= best.excess - error)
    if row is best:
        reason = f"{row.num_groups} groups gain most over chance ({row.excess:.3g}, p = {p_value:.2f})"
    else:
        reason = (
            f"{row.num_groups} is the fewest whose gain over chance ({row.excess:.3g}, p = {p_value:.2f}) is within "
            f"one standard error ({error:.2g}) of the greatest ({best.excess:.3g} for {best.num_groups})"
        )
    if resampling is None or row.stability_mean is None:
        reason += "; how stable the groups are is unknown: there are no measurements to resample"
    elif row.stability_mean < _UNSTABLE:
        reason += f"; but they are unstable: resampled, they agree to {row.stability_mean:.2f} only (adjusted Rand)"
    else:
        reason += f"; resampled, they agree to {row.stability_mean:.2f} (adjusted Rand)"
    return row.num_groups, reason, p_value
