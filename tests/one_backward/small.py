"""Small modules for single functions: what the tests of the rules are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from one_backward.split import TASKS, Inputs, Rows, apart, check, mixed_rows, separate_rows
from torch import Tensor, nn

B, L, D = len(TASKS), 6, 8
WORDS = 9
WIDE = torch.float64


class Parts(nn.Module):
    """Parameters and modules under the names they are given."""

    def __init__(self, **parts: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)


@dataclass(frozen=True)
class Small:
    """A function of samples and parameters.

    Attributes:
        parts: makes the parameters, modules and buffers.
        inputs: makes the inputs of all samples.
        run: (parts, **inputs) -> a tensor with its samples at `out_dim`.
        dims: where inputs have their samples, if not in front; None: nowhere.
        idle: parameters that need no gradient in every task.
    """

    parts: Callable[[], Mapping[str, object]]
    inputs: Callable[[], Inputs]
    run: Callable[..., Tensor]
    out_dim: int = 0
    dims: dict[str, int | None] = field(default_factory=dict)
    idle: tuple[str, ...] = ()

    def module(self) -> nn.Module:
        torch.manual_seed(1)
        return Parts(**self.parts()).double()  # type: ignore[arg-type]

    def check(self, tasks: tuple[int, ...] = TASKS, **options: object) -> Rows:
        """One backward against one backward per task, see `split.check`."""
        torch.manual_seed(2)
        inputs, module = self.inputs(), self.module()
        settings = {"run": self.run, "out_dim": self.out_dim, "dims": self.dims, "idle": self.idle, **options}
        return check(module, inputs, tasks, **settings)


def real(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=WIDE)


def learned(*shape: int) -> nn.Parameter:
    return nn.Parameter(real(*shape))


def frozen(module: nn.Module, *names: str) -> nn.Module:
    """The module with these parameters frozen."""
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


def words(*shape: int) -> Tensor:
    return torch.randint(WORDS, shape)


def vectors() -> Inputs:
    """x [B, D]."""
    return {"x": real(B, D)}


def sequences() -> Inputs:
    """x [B, L, D]."""
    return {"x": real(B, L, D)}


def time_first() -> Inputs:
    """x [L, B, D]."""
    return {"x": real(L, B, D)}


def square() -> Inputs:
    """x [B, B, D]: as many places as samples."""
    return {"x": real(B, B, D)}


def sentences() -> Inputs:
    """i [B, L]."""
    return {"i": words(B, L)}


def square_sentences() -> Inputs:
    """i [B, B]: as many words as samples."""
    return {"i": words(B, B)}


def right_or_refused(case: Small, tasks: tuple[int, ...] = TASKS) -> None:
    """The rows are right, or a sentence of `mixed_batch` says why not."""
    torch.manual_seed(2)
    inputs = case.inputs()
    expected = separate_rows(case.module(), inputs, tasks, run=case.run, out_dim=case.out_dim, dims=case.dims)
    try:
        found = mixed_rows(case.module(), inputs, tasks, run=case.run, out_dim=case.out_dim)
    except RuntimeError as error:
        assert "mixed_batch" in str(error) or "could not be split by task" in str(error), error
    else:
        assert max(apart(found, expected).values()) < 1e-12
