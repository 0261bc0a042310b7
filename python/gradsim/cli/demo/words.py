"""The names as tensors, cut into what is trained on and what is held out, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradsim.cli.demo.model import NameClassifier, encode
from gradsim.data import NameTable, hold_out

__all__ = ["Words"]


class Words:
    """The tasks of the demo: for every language of a `NameTable`, name -> concept.

    Every language holds out its own random share of names, so that a held-out name's concept was trained on in other
    languages only: held-out accuracy measures what these teach.
    """

    def __init__(self, table: NameTable, held_out: Sequence[float], *, seed: int, device: str) -> None:
        self.table = table
        self.tasks = [language.name for language in table.languages]
        self.grams = torch.stack([encode(names) for names in table.names]).to(device)  # [T, C, n-grams]
        self.concepts = torch.arange(len(table.concepts), device=device)
        self.held = hold_out(len(table.concepts), held_out, seed=seed)  # [T, C], on the CPU
        self._train = [torch.nonzero(~held).flatten() for held in self.held]

    def batches(self, steps: int, size: int, *, seed: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """For each step one batch per task: n-grams `[size, 96]` and concepts `[size]`; the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            chosen = [rows[torch.randint(len(rows), (size,), generator=generator)] for rows in self._train]
            yield [self.pick(task, rows) for task, rows in enumerate(chosen)]

    def halves(self, generator: torch.Generator) -> list[list[tuple[Tensor, Tensor]]]:
        """All names of every task in two halves, dealt at random and the same concepts for every task.

        Held-out names too: only gradients are taken of them, nothing is trained. Two languages compared on different
        concepts would look less alike than they are.
        """
        order = torch.randperm(len(self.concepts), generator=generator)
        parts = order.tensor_split(2)
        return [[self.pick(task, part) for part in parts] for task in range(len(self.tasks))]

    def pick(self, task: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The n-grams and the concepts of some of a task's names."""
        rows = rows.to(self.grams.device)
        return self.grams[task, rows], self.concepts[rows]

    @torch.no_grad()
    def accuracy(self, model: NameClassifier) -> list[float]:
        """The share of held-out names that the model gets right, task by task."""
        result = []
        for task, held in enumerate(self.held):
            grams, concepts = self.pick(task, torch.nonzero(held).flatten())
            result.append((model(grams).argmax(dim=1) == concepts).double().mean().item())
        return result

    def lookup_accuracy(self) -> list[float]:
        """The share of held-out names that another language spells the same in its training names.

        What a dictionary of the training names would get right without a model; a name that the training names give
        to several concepts counts by the share of them that is right.
        """
        meanings: dict[str, list[int]] = {}
        for names, held in zip(self.table.names, self.held.tolist(), strict=True):
            for concept, name in enumerate(names):
                if not held[concept]:
                    meanings.setdefault(name.lower(), []).append(concept)
        result = []
        for names, held in zip(self.table.names, self.held.tolist(), strict=True):
            asked = [(concept, meanings.get(name.lower(), [])) for concept, name in enumerate(names) if held[concept]]
            right = [found.count(concept) / len(found) if found else 0.0 for concept, found in asked]
            result.append(sum(right) / len(right))
        return result
