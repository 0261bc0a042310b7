"""Rows that are views into one tensor with fixed addresses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class FlatRows:
    """A tensor `[T, N]` for the rows and one `[N]` for the combined gradient, both allocated at the first capture.

    Args:
        parameters: the P parameters, N elements in all.
        num_tasks: T.
        dtype: of the rows; None: that of the gradients, which is also that of the combined gradient.

    Attributes:
        rows: the tensor `[T, N]`. update: the tensor `[N]`. None before the first capture.
    """

    def __init__(self, parameters: Sequence[Tensor], num_tasks: int, dtype: torch.dtype | None) -> None:
        self._sizes = [p.numel() for p in parameters]
        self._shapes = [p.shape for p in parameters]
        self._num_tasks, self._dtype = num_tasks, dtype
        self.rows: Tensor | None = None
        self.update: Tensor | None = None

    @torch.no_grad()
    def copied(
        self, task: int, gradients: Sequence[Tensor | None], held: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The gradients, copied into the row of the task, as views into it.

        Args:
            held: the row as it was; a view that comes back was accumulated into where it lies.

        Raises:
            TypeError: gradients of several dtypes or devices.
        """
        new = [x if x is not before else None for x, before in zip(gradients, held, strict=True)]
        self._allocate([x for x in new if x is not None])
        if self.rows is None:
            return new  # nothing but None so far
        views = self._cut(self.rows[task])
        for view, x in zip(views, new, strict=True):
            if x is not None:
                view.copy_(x)
        return [None if gradient is None else view for view, gradient in zip(views, gradients, strict=True)]

    def places(self) -> list[Tensor] | None:
        """Where the combined gradient of each parameter goes; None before the first capture.

        It is never in the rows: `p.grad` outlives the step (`zero_grad(set_to_none=False)`), and the next capture would
        write over it.
        """
        return None if self.update is None else self._cut(self.update)

    def _allocate(self, gradients: Sequence[Tensor]) -> None:
        kinds = {(x.dtype, x.device) for x in gradients}
        if self.update is not None:
            kinds.add((self.update.dtype, self.update.device))
        if len(kinds) > 1:
            raise TypeError(
                "storage='flat' needs gradients of one dtype on one device, not "
                + " and ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
                + "; use storage='autograd'"
            )
        if self.rows is None and kinds:
            dtype, device = next(iter(kinds))
            size = sum(self._sizes)
            self.rows = torch.zeros(self._num_tasks, size, dtype=self._dtype or dtype, device=device)
            self.update = torch.zeros(size, dtype=dtype, device=device)

    def _cut(self, row: Tensor) -> list[Tensor]:
        parts = row.split(self._sizes)
        return [x.view(shape) for x, shape in zip(parts, self._shapes, strict=True)]
