"""What `mixed_batch` has to leave, computed without it: one plain forward and backward per task, on its own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from one_backward.zoo_case import Batch, Case
from torch import Tensor, nn

from gradsim.optim import SurgeryOptimizer

Row = list[Tensor | None]  # one gradient per parameter


@dataclass(frozen=True)
class Work:
    """One mixed batch of a case: which sample is of which task. `task_ids`: int64 [B]."""

    case: Case
    model: nn.Module
    batch: Batch
    task_ids: Tensor

    @property
    def loss(self) -> Tensor:
        """Of the whole batch, from a forward of its own."""
        return self.case.loss(self.model, self.batch)

    def task_loss(self, task: int) -> Tensor:
        """The loss of the task's samples, from a forward of nothing but them, as they count in the mixed loss.

        A mean over samples counts n_t of B of it, a mean over tokens k_t of K, a sum all.
        """
        index = torch.nonzero(self.task_ids == task)[:, 0]
        loss = self.case.loss(self.model, self.case.take(self.batch, index))
        weights = self.case.weights(self.batch)
        return loss if weights is None else loss * float(weights[index].sum())

    @property
    def present(self) -> list[int]:
        return sorted(set(self.task_ids.tolist()))


def gradient(model: nn.Module, loss: Tensor) -> Row:
    """What a plain backward leaves in `p.grad`; `p.grad` is None again afterwards."""
    loss.backward()
    found = [p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return found


def separate_rows(work: Work, num_tasks: int) -> list[Row]:
    """[T] rows from T plain backwards; a row of nothing but None for an absent task."""
    absent: Row = [None for _ in work.model.parameters()]
    rows = [absent] * num_tasks
    for task in work.present:
        rows[task] = gradient(work.model, work.task_loss(task))
    return rows


def masked_rows(work: Work, num_tasks: int, seed: int) -> list[Row]:
    """[T] rows with dropout on: each from the whole batch, under the same masks, the other tasks' labels ignored.

    For losses that are a mean over the labels that are not -100.
    """
    weights = work.case.weights(work.batch)
    assert weights is not None, f"{work.case.name}: a sum has no share to scale by"
    rows: list[Row] = [[None for _ in work.model.parameters()] for _ in range(num_tasks)]
    for task in work.present:
        chosen = work.task_ids == task
        labels = work.batch["labels"]
        mask = chosen.view([-1 if d == work.case.samples else 1 for d in range(labels.ndim)])
        torch.manual_seed(seed)
        loss = work.case.loss(work.model, {**work.batch, "labels": torch.where(mask, labels, -100)})
        rows[task] = gradient(work.model, loss * float(weights[chosen].sum()))
    return rows


def added(rows: Sequence[Row]) -> Row:
    """The sum over tasks, parameter by parameter."""
    result: Row = []
    for column in zip(*rows, strict=True):
        held = [x for x in column if x is not None]
        result.append(torch.stack(held).sum(0) if held else None)
    return result


def capture(opt: SurgeryOptimizer, rows: Sequence[Row]) -> None:
    """What one `task` block per task captures whose backward leaves these rows in `p.grad`."""
    for name, row in zip(opt.tasks, rows, strict=True):
        if any(x is not None for x in row):
            with opt.task(name):
                for p, gradient in zip(opt.buffer.parameters, row, strict=True):
                    p.grad = None if gradient is None else gradient.clone()


def rows_of(opt: SurgeryOptimizer) -> list[Row]:
    """Copies of what was captured, before `finish`."""
    return [[None if x is None else x.clone() for x in row] for row in opt.buffer.rows]


def combined(opt: SurgeryOptimizer) -> Row:
    """Copies of what `finish` left; drops it for the next step."""
    found = [None if p.grad is None else p.grad.clone() for p in opt.buffer.parameters]
    opt.zero_grad()
    return found


def norm(row: Row) -> float:
    """Of all parameters together."""
    squares = [float(x.double().square().sum()) for x in row if x is not None]
    return sum(squares) ** 0.5


def differences(found: Row, expected: Row, names: Sequence[str], floor: float = 1e-6) -> dict[str, float]:
    """For each parameter the relative difference in norm, where its gradient is above `floor` of the whole.

    Below that, what is compared is rounding: there the difference must be below `floor` of the whole, else it is
    infinite. So it is where one has a gradient and the other has none, unless the other's is zero.
    """
    whole = norm(expected)
    result: dict[str, float] = {}
    for x, y, name in zip(found, expected, names, strict=True):
        a, b = (float(z.double().norm()) if z is not None else 0.0 for z in (x, y))
        if x is None or y is None:
            result[name] = 0.0 if a == b == 0.0 else float("inf")
            continue
        assert x.shape == y.shape, f"{name} has a gradient of the shape {tuple(x.shape)}, not {tuple(y.shape)}"
        apart = float((x.double() - y.double()).norm())
        if b > floor * whole:
            result[name] = apart / b
        else:
            result[name] = 0.0 if max(a, b) <= 2 * floor * whole else float("inf")
    return result


def worst(found: Row, expected: Row, names: Sequence[str]) -> tuple[float, str]:
    """The largest of `differences` and whose it is."""
    apart = differences(found, expected, names)
    name = max(apart, key=lambda key: apart[key])
    return apart[name], name
