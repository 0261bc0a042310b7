"""Rows of a small module: from one backward over a mixed batch, and from one plain float64 backward per task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradsim.one_backward import Samples, TaskRows, is_sequence_first, mixed

Rows = dict[str, Tensor]  # for each parameter [T', *shape], zero where no task reached it
Inputs = dict[str, Any]
Run = Callable[..., Tensor]  # module, **inputs -> a tensor
TASKS = (2, 0, 0, 2, 3)  # of four: unsorted, unequal, and task 1 is absent


class Kept:
    """Takes the rows of each parameter, and notes in which order they came."""

    def __init__(self) -> None:
        self.rows: dict[int, TaskRows | None] = {}

    def ready(self, parameter: int, rows: TaskRows | None) -> None:
        assert parameter not in self.rows, "a parameter was told twice"
        self.rows[parameter] = rows


def loss_of(y: Tensor, samples: int = 0) -> Tensor:
    """A sum over samples to which every element of a sample contributes in its own way."""
    y = y.movedim(samples, 0)
    count = y[0].numel()
    weights = torch.linspace(0.5, 1.5, count, dtype=y.dtype, device=y.device).view(y.shape[1:])
    return (torch.sin(y) * weights).sum() + 0.3 * (y * y * weights.flip(0) if y.dim() > 1 else y * y).sum()


def forward(module: nn.Module, **inputs: Any) -> Tensor:
    """The module itself, called."""
    result: Tensor = module(**inputs)
    return result


def taken(inputs: Inputs, index: Tensor, dims: dict[str, int | None]) -> Inputs:
    """The samples `index` of each input; dims: where an input has them, if not in front (None: it has none)."""
    return {
        name: x.index_select(dim, index) if isinstance(x, Tensor) and (dim := dims.get(name, 0)) is not None else x
        for name, x in inputs.items()
    }


def mixed_rows(
    module: nn.Module,
    inputs: Inputs,
    tasks: Sequence[int] = TASKS,
    *,
    run: Run = forward,
    out_dim: int = 0,
    batch_dim: int | None = None,
    known: bool = True,
) -> Rows:
    """The rows of `gradsim.one_backward.mixed`; known: the engine is told the module, not only its parameters."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    kept, before = Kept(), [p.detach().clone() for p in parameters]
    samples = Samples(list(tasks), batch_dim, known and is_sequence_first(module))
    with mixed(list(parameters), list(names), samples, kept, model=module if known else None):
        loss_of(run(module, **inputs), out_dim).backward()
    assert sorted(kept.rows) == list(range(len(parameters)))
    assert all(p.grad is None for p in parameters)
    assert all(torch.equal(p, x) for p, x in zip(parameters, before, strict=True))
    none = {name: p.new_zeros(len(samples.present), *p.shape) for name, p in zip(names, parameters, strict=True)}
    return {
        name: none[name] if (rows := kept.rows[i]) is None else rows.dense().detach() for i, name in enumerate(names)
    }


def separate_rows(
    module: nn.Module,
    inputs: Inputs,
    tasks: Sequence[int] = TASKS,
    *,
    run: Run = forward,
    out_dim: int = 0,
    dims: dict[str, int | None] | None = None,
) -> Rows:
    """The same from one plain backward per task, on nothing but the samples of the task, in float64."""
    twin = copy.deepcopy(module).double()
    names, parameters = zip(*twin.named_parameters(), strict=True)
    wide = {k: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for k, x in inputs.items()}
    columns: dict[str, list[Tensor]] = {name: [] for name in names}
    trained = [p for p in parameters if p.requires_grad]
    for task in sorted(set(tasks)):
        index = torch.tensor([b for b, t in enumerate(tasks) if t == task])
        loss = loss_of(run(twin, **taken(wide, index, dims or {})), out_dim)
        found = iter(torch.autograd.grad(loss, trained, allow_unused=True))
        for name, p in zip(names, parameters, strict=True):
            g = next(found) if p.requires_grad else None
            columns[name].append(torch.zeros_like(p) if g is None else g)
    return {name: torch.stack(column).detach() for name, column in columns.items()}


def apart(found: Rows, expected: Rows) -> dict[str, float]:
    """For each parameter the largest difference, relative to the largest gradient of all."""
    scale = max(float(x.abs().max()) for x in expected.values() if x.numel())
    assert scale > 0, "a gradient of zero proves nothing"
    result = {}
    for name, y in expected.items():
        assert found[name].shape == y.shape, f"{name}: {tuple(found[name].shape)}, not {tuple(y.shape)}"
        result[name] = float((found[name].double() - y).abs().max()) / scale
    return result


def check(
    module: nn.Module,
    inputs: Inputs,
    tasks: Sequence[int] = TASKS,
    *,
    run: Run = forward,
    out_dim: int = 0,
    dims: dict[str, int | None] | None = None,
    batch_dim: int | None = None,
    known: bool = True,
    tolerance: float = 1e-12,
    idle: Sequence[str] = (),
) -> Rows:
    """Both ways agree, and every parameter but the `idle` ones has a gradient in every present task."""
    expected = separate_rows(module, inputs, tasks, run=run, out_dim=out_dim, dims=dims)
    found = mixed_rows(module, inputs, tasks, run=run, out_dim=out_dim, batch_dim=batch_dim, known=known)
    wrong = {name: x for name, x in apart(found, expected).items() if not x <= tolerance}
    assert not wrong, wrong
    for name, p in module.named_parameters():
        if p.requires_grad and name not in idle:
            assert all(row.abs().max() > 0 for row in expected[name]), f"{name} has no gradient in some task"
    return found
