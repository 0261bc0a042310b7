"""Where the gradients of the tasks live between the backward passes and the surgery."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STORAGES = ("autograd", "flat")


class GradientBuffer:
    """T rows of gradients of the same P parameters. While a task is open, its row stands in `p.grad`.

    `storage="autograd"`: a row keeps the very tensors that autograd produced; `p.grad` is swapped from task to task.
    Nothing is copied and nothing is allocated beyond the T N b bytes of the gradients themselves (N elements of b
    bytes). The addresses change from step to step.

    `storage="flat"`: the rows are views into one tensor `[T, N]`, and the combined gradient has a place `[N]` of its
    own; both are allocated at the first capture, (T + 1) N b bytes. Each captured gradient is copied (2 T N b bytes
    moved per step) and lives twice for a moment (N b more bytes at the peak). The addresses never change.

    Args:
        parameters: the P parameters.
        num_tasks: T.
        storage: `"autograd"` or `"flat"`.

    Attributes:
        rows: T lists of P tensors, None where autograd left no gradient.
        captured: for each task whether it has been captured since the last `clear`.
        flat: the tensor `[T, N]`; None with `storage="autograd"` and before the first capture.
        update: the tensor `[N]` for the combined gradient, likewise.

    Raises:
        ValueError: an unknown storage or no task.
        TypeError: with `storage="flat"`, at the first capture: gradients of several dtypes or devices.
    """

    def __init__(self, parameters: Sequence[Tensor], num_tasks: int, storage: str = "autograd") -> None:
        if storage not in STORAGES:
            raise ValueError(f"storage must be 'autograd' or 'flat', not {storage!r}")
        if num_tasks < 1:
            raise ValueError(f"a gradient buffer needs at least one task, not {num_tasks}")
        self.parameters = list(parameters)
        self.storage = storage
        self.rows: list[list[Tensor | None]] = [[None] * len(self.parameters) for _ in range(num_tasks)]
        self.captured = [False] * num_tasks
        self.flat: Tensor | None = None
        self.update: Tensor | None = None
        self._outside: list[Tensor | None] = []  # what p.grad held when the task was opened

    def open(self, task: int) -> None:
        """Put the row of the task into `p.grad`, so that backward accumulates into it; remember what was there."""
        self._outside = [p.grad for p in self.parameters]
        for p, gradient in zip(self.parameters, self.rows[task], strict=True):
            p.grad = gradient

    def close(self, task: int) -> None:
        """Take `p.grad` as the row of the task and put back what was there before."""
        gradients = [p.grad for p in self.parameters]
        self.rows[task] = gradients if self.storage == "autograd" else self._copied(task, gradients)
        self.captured[task] = True
        self._restore()

    @torch.no_grad()
    def add(self, task: int, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients of a task that did not come through `p.grad`; the tensors may be kept and written to."""
        held = self.rows[task]
        both = [h if g is None else g if h is None else h.add_(g) for h, g in zip(held, gradients, strict=True)]
        self.rows[task] = both if self.storage == "autograd" else self._copied(task, both)
        self.captured[task] = True

    def discard(self, task: int) -> None:
        """Forget the row of the open task, whatever it accumulated so far, and put back what was there before."""
        self.rows[task] = [None] * len(self.parameters)
        self.captured[task] = False
        self._restore()

    def clear(self) -> None:
        """Forget all rows; the flat tensor stays allocated."""
        self.rows = [[None] * len(self.parameters) for _ in self.rows]
        self.captured = [False] * len(self.rows)

    def outputs(self) -> list[Tensor] | None:
        """Where the combined gradient of each parameter goes; None with `storage="autograd"`: over the rows.

        It is never in the flat rows: `p.grad` outlives the step (`zero_grad(set_to_none=False)`), and the next capture
        would write over it.
        """
        return None if self.update is None else self._cut(self.update)

    @property
    def memory_bytes(self) -> int:
        """The bytes that the rows and the place of the combined gradient occupy now (when flat: used or not)."""
        if self.flat is not None and self.update is not None:
            return self.flat.nbytes + self.update.nbytes
        return sum(gradient.nbytes for row in self.rows for gradient in row if gradient is not None)

    def _restore(self) -> None:
        for p, gradient in zip(self.parameters, self._outside, strict=True):
            p.grad = gradient
        self._outside = []

    @torch.no_grad()
    def _copied(self, task: int, gradients: list[Tensor | None]) -> list[Tensor | None]:
        if all(gradient is None for gradient in gradients):
            return gradients
        views = self._views(task, gradients)
        for view, gradient, held in zip(views, gradients, self.rows[task], strict=True):
            if gradient is not None and gradient is not held:  # a held view was accumulated into where it lies
                view.copy_(gradient)
        return [None if gradient is None else view for view, gradient in zip(views, gradients, strict=True)]

    def _views(self, task: int, gradients: list[Tensor | None]) -> list[Tensor]:
        kinds = {(gradient.dtype, gradient.device) for gradient in gradients if gradient is not None}
        if self.flat is not None:
            kinds.add((self.flat.dtype, self.flat.device))
        if len(kinds) > 1:
            raise TypeError(
                "storage='flat' needs gradients of one dtype on one device, not "
                + " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
                + "; use storage='autograd'"
            )
        if self.flat is None:
            dtype, device = next(iter(kinds))
            size = sum(p.numel() for p in self.parameters)
            self.flat = torch.zeros(len(self.rows), size, dtype=dtype, device=device)
            self.update = torch.zeros(size, dtype=dtype, device=device)
        return self._cut(self.flat[task])

    def _cut(self, row: Tensor) -> list[Tensor]:
        parts = row.split([p.numel() for p in self.parameters])
        return [x.view(p.shape) for x, p in zip(parts, self.parameters, strict=True)]
