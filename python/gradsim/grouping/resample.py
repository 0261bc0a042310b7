"""Similarities as they might have been measured, and similarities without groups."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradsim.grouping.objective import Matrix
from gradsim.similarity import Similarity

__all__ = ["Resampler", "shuffled"]


def shuffled(matrix: Matrix, rng: np.random.Generator) -> Matrix:
    """The same similarities between other pairs of tasks; both directions of a pair stay together."""
    first, second = np.triu_indices(len(matrix), 1)
    order = rng.permutation(len(first))
    result = matrix.copy()
    result[first, second] = matrix[first[order], second[order]]
    result[second, first] = matrix[second[order], first[order]]
    return result


class Resampler:
    """Draws what another series of measurements might have given.

    From the samples, where the similarity holds two or more: a bootstrap, every entry the mean over as many samples
    as there are, drawn with replacement. Else from the spread: every entry from a normal distribution with its mean
    and its standard error std / sqrt(count), the larger of the known ones where a pair was measured once only.
    `kind` is `"samples"`, `"spread"`, or None where there is neither.
    """

    def __init__(self, similarity: object, matrix: Matrix, groups: Sequence[str] | None) -> None:
        self.matrix = matrix
        self.kind: str | None = None
        if not isinstance(similarity, Similarity):
            return
        rows = [similarity.groups.index(name) for name in (similarity.groups if groups is None else groups)]
        if similarity.samples is not None and len(similarity.samples) > 1:
            self.kind = "samples"
            self.samples = similarity.samples[:, rows].detach().cpu().numpy()
        elif similarity.std is not None:
            self._prepare_spread(similarity, similarity.std[rows].detach().cpu().numpy(), rows)

    def _prepare_spread(self, similarity: Similarity, std: NDArray[np.float64], rows: list[int]) -> None:
        count = similarity.count[rows].cpu().numpy()
        known = (count > 1) & np.isfinite(std)
        if not known.any():
            return
        self.kind = "spread"
        error = np.where(known, std, 0.0) / np.sqrt(np.maximum(count, 1))
        self.measured = count > 0
        self.error = np.where(known, error, error.max())
        self.mean = np.where(self.measured, similarity.cosine[rows].detach().cpu().numpy(), 0.0)
        self.symmetric = bool((self.mean == self.mean.transpose(0, 2, 1)).all())

    def draw(self, rng: np.random.Generator) -> Matrix:
        """One such similarity, averaged over the groups of parameters; the diagonal stays as it is."""
        drawn = self._from_samples(rng) if self.kind == "samples" else self._from_spread(rng)
        result = np.where(np.isfinite(drawn), drawn, self.matrix)
        np.fill_diagonal(result, self.matrix.diagonal())
        return result

    def _from_samples(self, rng: np.random.Generator) -> Matrix:
        picked = self.samples[rng.integers(0, len(self.samples), len(self.samples))]
        return _mean(_mean(picked))

    def _from_spread(self, rng: np.random.Generator) -> Matrix:
        noise = rng.normal(size=self.mean.shape)
        if self.symmetric:
            upper = np.triu(noise, 1)
            noise = upper + upper.transpose(0, 2, 1)
        return _mean(np.where(self.measured, self.mean + noise * self.error, np.nan))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the first dimension of what is not NaN; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))
