"""Similarity along training: the cosines of the tasks' gradients, group by group, again and again."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsim.cli.demo.model import NameClassifier
from gradsim.cli.demo.words import Words
from gradsim.gradients import Granularity
from gradsim.similarity import Similarity
from gradsim_kernels import cosine_similarity, gramian

__all__ = ["Measurements"]


class Measurements:
    """Collects measurements of one model's task gradients and makes a `Similarity` of them.

    A measurement takes each task's gradient over all names, in two random halves: their sum is the task's gradient,
    free of sampling noise, and their cosine the similarity within the task.
    """

    def __init__(self, words: Words, model: NameClassifier, *, seed: int) -> None:
        names, parameters = zip(*model.named_parameters(), strict=True)
        self._words, self._model, self._parameters = words, model, parameters
        self._groups = Granularity("all_layer").groups(names)
        self._generator = torch.Generator().manual_seed(seed)
        self._cosine: list[Tensor] = []
        self._within: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._steps: list[int] = []

    def measure(self, step: int) -> None:
        """Measure now, after `step` steps. Neither the parameters nor their `.grad` change."""
        halves = self._words.halves(self._generator)
        rows = [torch.autograd.grad(self._model.loss(*half), self._parameters) for both in halves for half in both]
        M = gramian(rows, self._groups.members).cpu()  # [G, 2 T, 2 T]: everything below comes out of it
        T = len(halves)
        whole = M.view(-1, T, 2, T, 2).sum(dim=(2, 4))  # inner products of the sums of both halves
        self._cosine.append(cosine_similarity(whole))
        self._within.append(cosine_similarity(M)[:, 0::2, 1::2].diagonal(dim1=1, dim2=2).clone())
        self._steps.append(step)
        self._norms.append(whole.diagonal(dim1=1, dim2=2).sqrt() / 2)  # the mean of the halves, not their sum

    def similarity(self) -> Similarity:
        """The mean over the measurements so far."""
        cosine = torch.stack(self._cosine)
        return Similarity(
            tasks=self._words.tasks,
            groups=self._groups.names,
            cosine=cosine.mean(dim=0),
            count=torch.full_like(cosine[0], len(cosine), dtype=torch.int64),
            std=cosine.std(dim=0, correction=0),
            within=torch.stack(self._within).mean(dim=0),
            norms=torch.stack(self._norms).mean(dim=0),
            samples=cosine,
            steps=torch.tensor(self._steps),
        )
