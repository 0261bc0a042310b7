"""A model of a few hundred parameters for all three problems, and data whose right grouping is known."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gradsim.data.tasks import Example, TaskData, TaskSet
from gradsim.models.model import Batch
from gradsim.training import Budget

WORDS = 12
TASKS = ("north", "south", "east", "west")  # north and east agree, south and west agree, and the pairs contradict
GROUPS = (("north", "east"), ("south", "west"))


class ToyModule(nn.Module):
    """Words in, one vector each out, or their mean; two layers that granularities find."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS + 1, width, padding_idx=0)
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)

    def forward(self, words: Tensor, pool: bool) -> Tensor:
        x = self.embedding(words)
        if pool:
            x = x.sum(1) / (words > 0).sum(1, keepdim=True)
        for layer in self.layers:
            x = x + torch.tanh(layer(self.dropout(x)))
        return self.head(x)


class ToyModel:
    """A `TextModel` of words `1` to `WORDS`. `seen` counts the examples of each task that its losses were taken of."""

    def __init__(self, problem: str = "classification", *, width: int = 8, dropout: float = 0.0) -> None:
        self.problem, self.width, self.dropout = problem, width, dropout
        self.seen: Counter[str] = Counter()
        self.losses = 0  # how many were taken

    @property
    def name(self) -> str:
        return "toy"

    def build(self, seed: int) -> nn.Module:
        outputs = WORDS + 1 if self.problem == "text" else 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ToyModule(self.width, outputs, self.dropout)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """`words` [B, L], `labels` [B] or [B, L] (-100: none), and the place of the task's name in TASKS."""
        texts = [example.text.split() if isinstance(example.text, str) else example.text for example in examples]
        longest = max(len(text) for text in texts) - 1  # the first word is the name of the task
        words = torch.zeros(len(texts), longest, dtype=torch.int64)
        labels = torch.full((len(texts), longest), -100)
        for row, (text, example) in enumerate(zip(texts, examples, strict=True)):
            words[row, : len(text) - 1] = torch.tensor([int(word) for word in text[1:]])
            if isinstance(example.label, tuple):
                labels[row, : len(text) - 1] = torch.tensor(example.label[1:])
        if self.problem == "classification" and examples[0].label is not None:
            labels = torch.tensor([example.label for example in examples])
        return {"words": words, "labels": labels, "tasks": torch.tensor([TASKS.index(text[0]) for text in texts])}

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        self.losses += 1
        self.seen.update(TASKS[task] for task in batch["tasks"].tolist())
        if self.problem == "text":
            nats, tokens = self._likelihood(module, batch)
            return nats.sum() / tokens.sum()
        logits = module(batch["words"], self.problem == "classification")
        return nn.functional.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten(), ignore_index=-100)

    def predict(self, module: nn.Module, batch: Batch) -> list[int] | list[tuple[int, ...]] | list[tuple[float, int]]:
        if self.problem == "text":
            nats, tokens = self._likelihood(module, batch)
            return list(zip(nats.tolist(), tokens.tolist(), strict=True))
        best = module(batch["words"], self.problem == "classification").argmax(-1)
        if self.problem == "classification":
            return best.tolist()
        lengths = (batch["words"] > 0).sum(1).tolist()
        return [(0, *row[:length]) for row, length in zip(best.tolist(), lengths, strict=True)]

    def _likelihood(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of each word after the first, given the one before it."""
        words = batch["words"]
        logits = module(words[:, :-1], False)
        present = words[:, 1:] > 0
        nats = nn.functional.cross_entropy(logits.transpose(1, 2), words[:, 1:], reduction="none")
        return (nats * present).sum(1), present.sum(1)


def toy_tasks(
    problem: str = "classification",
    *,
    sizes: Mapping[str, int] | None = None,
    test: int = 30,
    dev: int = 0,
    seed: int = 0,
) -> TaskSet:
    """Label 1: there are more words from the upper half than from the lower; in `south` and `west` it is 0 there."""
    sizes = sizes or dict.fromkeys(TASKS, 60)
    generator = random.Random(seed)

    def example(task: str) -> Example:
        words = [generator.randint(1, WORDS) for _ in range(generator.choice([3, 5, 7]))]
        flipped = task in GROUPS[1]
        if problem == "text":
            return Example(f"{task} " + " ".join(map(str, words)))
        if problem == "tagging":
            return Example((task, *map(str, words)), (0, *(int((word > WORDS // 2) != flipped) for word in words)))
        upper = sum(word > WORDS // 2 for word in words) > len(words) / 2
        return Example(f"{task} " + " ".join(map(str, words)), int(upper != flipped))

    return TaskSet(
        {
            task: TaskData(*(tuple(example(task) for _ in range(count)) for count in (size, dev, test)))
            for task, size in sizes.items()
        },
        problem,
        () if problem == "text" else ("lower", "upper"),
        "toys",
    )


def toy_budget(steps: int = 6, batch: int = 4, learning_rate: float = 0.01, **options: object) -> Budget:
    return Budget(steps, batch, learning_rate, **options)  # type: ignore[arg-type]
