"""Where task gradients come from: one loss, one backward pass, nothing accumulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradsim.gradients import Granularity
from gradsim.gradients.granularity import Expression, Spec
from gradsim.gradients.names import unwrapped
from gradsim.similarity.untouched import Buffers, mode, random_state, seed_all

__all__ = ["Gradients", "LossFunction", "Row"]

Row = list["Tensor | None"]
LossFunction = Callable[[nn.Module, Any], Tensor]


class Gradients:
    """The gradients of a model's parameters, group by group, for one batch at a time.

    Attributes:
        parameters: the P parameters that require gradients and are in a group.
        groups: the G names of the groups.
        members: for each group the indices of its parameters.
        taken: how many gradients were taken so far, each one a forward and a backward pass.
        on_pass: called after each of them, and after each forward pass alone.

    Args and errors: as for `Measurements`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        granularity: Granularity | Spec,
        exclude: Expression | Sequence[Expression],
        seed: int,
        train_mode: bool,
    ) -> None:
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable as loss_fn(model, batch), not {type(loss_fn).__name__}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"seed must be an integer, not {type(seed).__name__}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must lie between 0 and 2^63 - 1, not {seed}")
        if not isinstance(train_mode, bool):
            raise TypeError(f"train_mode must be True or False, not {train_mode!r}")
        named = _parameters(model)
        rule = Granularity.of(granularity, exclude)
        self.granularity = rule.spec if isinstance(rule.spec, str) else "custom"
        groups = rule.groups([name for name, _ in named])  # frozen ones have names too
        trained = [[named[i] for i in group if named[i][1].requires_grad] for group in groups.members]
        self.groups = [name for name, group in zip(groups.names, trained, strict=True) if group]
        flat = [pair for group in trained for pair in group]
        if not flat:
            raise ValueError("granularity and exclude leave no parameter that requires gradients")
        self.parameters = [p for _, p in flat]
        self.names = [unwrapped(name) for name, _ in flat]
        indices = iter(range(len(flat)))
        self.members = [[next(indices) for _ in group] for group in trained if group]
        self.sizes = [sum(self.parameters[i].numel() for i in group) for group in self.members]
        self.device = self.parameters[0].device
        self.model, self.loss_fn, self.seed, self.train_mode = model, loss_fn, seed, train_mode
        self.taken = 0
        self.on_pass: Callable[[], None] | None = None
        self._buffers: Buffers | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Gradients are taken inside; afterwards the model and the random state are as before, also after an error."""
        with random_state(self.device), mode(self.model, self.train_mode):
            self._buffers = Buffers.of(self.model)
            try:
                yield
            finally:
                self._buffers.restore()
                self._buffers = None

    def row(self, task: str, batch: Any) -> Row:
        """The gradient for one batch: a tensor per parameter, None for one that the loss does not reach.

        The tensors are those of autograd, uncopied. Every row starts from the same random state and the same buffers.
        Raises `TypeError` or `ValueError` where `loss_fn` gives no differentiable number.
        """
        with torch.inference_mode(False), torch.enable_grad():
            loss = self.loss(task, batch)
            if not loss.requires_grad:
                raise ValueError(f"loss_fn gave a loss for task {task!r} that depends on no trained parameter")
            row = list(torch.autograd.grad(loss, self.parameters, allow_unused=True))
        self._passed()
        self.taken += 1
        return [x.to_dense() if x is not None and x.layout is not torch.strided else x for x in row]

    def loss(self, task: str, batch: Any) -> Tensor:
        """The loss of one batch, a tensor without dimensions; whether it carries a graph is the caller's choice."""
        seed_all(self.seed, self.device)
        loss = self.loss_fn(self.model, batch)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn must return a tensor, but for task {task!r} it gave a {type(loss).__name__}")
        if loss.numel() != 1 or not loss.is_floating_point():
            was = f"{loss.dtype} {list(loss.shape)}"
            raise ValueError(f"loss_fn must return one floating-point number, but for task {task!r} it gave {was}")
        return loss.reshape(())

    @torch.no_grad()
    def value(self, task: str, batch: Any) -> float:
        """The loss of one batch as a number, from the same random state and buffers as the gradient."""
        value = float(self.loss(task, batch))
        self._passed()
        return value

    def _passed(self) -> None:
        if self._buffers is not None:
            self._buffers.restore()
        if self.on_pass is not None:
            self.on_pass()


def _parameters(model: object) -> list[tuple[str, nn.Parameter]]:
    """All parameters by name; refuses models whose gradients this process does not hold whole and in one place."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError("model must be the plain module, not DistributedDataParallel: give model.module")
    named = list(model.named_parameters())
    trained = [(name, p) for name, p in named if p.requires_grad]
    if not trained:
        raise ValueError("model has no parameter that requires gradients")
    first, device = trained[0][0], trained[0][1].device
    for name, p in trained:
        if any(kind.__name__ == "DTensor" for kind in type(p).__mro__):
            raise TypeError(f"parameter {name} is a DTensor: similarity is measured on whole parameters")
        if not p.is_floating_point():
            raise TypeError(f"parameter {name} must be real, not {p.dtype}")
        if p.device != device:
            raise ValueError(f"parameters must be on one device, but {first} is on {device} and {name} on {p.device}")
    return named
