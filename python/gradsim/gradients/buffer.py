"""Where the gradients of the tasks live between the backward passes and the surgery."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsim.gradients.flat import FlatRows
from gradsim.gradients.keeping import Keeper

STORAGES = ("autograd", "flat", "cpu")


class GradientBuffer:
    """T rows of gradients of the same P parameters. While a task is open, its row stands in `p.grad`.

    `storage="autograd"`: a row keeps the very tensors that autograd produced; `p.grad` is swapped from task to task.
    Nothing is copied and nothing is allocated beyond the T N b bytes of the gradients themselves (N elements of b
    bytes). The addresses change from step to step.

    `storage="flat"`: the rows are views into one tensor `[T, N]`, and the combined gradient has a place `[N]` of its
    own; both are allocated at the first capture, (T + 1) N b bytes. Each captured gradient is copied (2 T N b bytes
    moved per step) and lives twice for a moment (N b more bytes at the peak). The addresses never change.

    `storage="cpu"`: the rows are on the CPU (pinned, if they come from a GPU), copied while the next backward goes on.
    The device holds one row, and the one before as long as it is being copied. The surgery gets them group by group.

    `rows_dtype=torch.bfloat16`: rows of half the bytes of float32. A gradient is rounded when the block of its task is
    closed; a further micro-batch is added in the gradient's own dtype, and the sum is rounded again.

    Args:
        parameters: the P parameters.
        num_tasks: T.
        storage: `"autograd"`, `"flat"` or `"cpu"`.
        rows_dtype: `torch.bfloat16`, or None: the dtype of the gradients.

    Attributes:
        rows: T lists of P tensors, as they are kept; None where autograd left no gradient.
        captured: for each task whether it has been captured since the last `clear`.

    Raises:
        ValueError: an unknown storage, another dtype or no task.
        TypeError: with `storage="flat"`, at the first capture: gradients of several dtypes or devices.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        num_tasks: int,
        storage: str = "autograd",
        rows_dtype: torch.dtype | None = None,
    ) -> None:
        if storage not in STORAGES:
            raise ValueError(f"storage must be {', '.join(map(repr, STORAGES[:-1]))} or 'cpu', not {storage!r}")
        if rows_dtype not in (None, torch.bfloat16):
            raise ValueError(f"rows_dtype must be torch.bfloat16 or None (that of the gradients), not {rows_dtype!r}")
        if num_tasks < 1:
            raise ValueError(f"a gradient buffer needs at least one task, not {num_tasks}")
        self.parameters = list(parameters)
        self.storage, self.rows_dtype = storage, rows_dtype
        self.rows: list[list[Tensor | None]] = [[None] * len(self.parameters) for _ in range(num_tasks)]
        self.captured = [False] * num_tasks
        self._keeper = Keeper(storage == "cpu", rows_dtype)
        self._flat = FlatRows(self.parameters, num_tasks, rows_dtype)
        self._memory: dict[tuple[int, int], Tensor] = {}  # of rows on the CPU, used again in the next step
        self._kinds: list[tuple[torch.dtype, torch.device] | None] = [None] * len(self.parameters)  # of the gradients
        self._outside: list[Tensor | None] = []  # what p.grad held when the task was opened

    def renewed(self, parameters: Sequence[Tensor]) -> GradientBuffer:
        """An empty one of the same kind for other parameters."""
        return GradientBuffer(parameters, len(self.rows), self.storage, self.rows_dtype)

    @property
    def converts(self) -> bool:
        """Whether a row's tensors have another dtype, or lie on another device, than the gradients they come from."""
        return self.storage == "cpu" or self.rows_dtype is not None

    @property
    def flat(self) -> Tensor | None:
        """The tensor `[T, N]`; None without `storage="flat"` and before the first capture."""
        return self._flat.rows

    @property
    def update(self) -> Tensor | None:
        """The tensor `[N]` for the combined gradient, likewise."""
        return self._flat.update

    def open(self, task: int) -> None:
        """Put the row of the task into `p.grad`, so that backward accumulates into it; remember what was there."""
        self._outside = [p.grad for p in self.parameters]
        for p, gradient in zip(self.parameters, self.rows[task], strict=True):
            p.grad = None if self.converts else gradient  # a converted row is added when the task is closed

    def close(self, task: int) -> None:
        """Take `p.grad` as the row of the task and put back what was there before."""
        gradients = [p.grad for p in self.parameters]
        self._restore()
        if self.converts:
            self.add(task, gradients)
            return
        self.rows[task] = gradients if self.storage == "autograd" else self._copied(task, gradients)
        self.captured[task] = True

    @torch.no_grad()
    def add(self, task: int, gradients: list[Tensor | None]) -> None:
        """Add gradients of a task to its row; the tensors may be kept and written to, and leave the list."""
        for p in range(len(gradients)):
            # Each gradient is freed as soon as it has been converted.
            x, gradients[p] = gradients[p], None
            gradients[p] = self.rows[task][p] if x is None else self.sum(task, p, x, in_place=True)
        self.put(task, gradients)

    @torch.no_grad()
    def sum(self, task: int, parameter: int, x: Tensor, *, in_place: bool) -> Tensor:
        """What `put` takes: the row's gradient of the parameter and x together, as rows are kept.

        x may be kept and written to. `in_place`: so may the row.
        """
        held = self.rows[task][parameter]
        self._kinds[parameter] = (x.dtype, x.device)
        if self.storage == "flat" and self.converts:
            return x if held is None else x.add_(held)  # it is rounded where it is copied to
        if not self.converts:
            return x if held is None else held.add_(x) if in_place else x.add_(held)
        place = self._memory.get((task, parameter)) if held is None else held if in_place else None
        return self._keeper.keep(x, held, place)

    def put(self, task: int, row: list[Tensor | None]) -> None:
        """Make these the gradients of the task."""
        self.rows[task] = self._copied(task, row) if self.storage == "flat" else list(row)
        self.captured[task] = True
        if self.storage == "cpu":
            self._memory.update({(task, p): x for p, x in enumerate(row) if x is not None})

    def discard(self, task: int) -> None:
        """Forget the row of the open task, whatever it accumulated so far, and put back what was there before."""
        self.rows[task] = [None] * len(self.parameters)
        self.captured[task] = False
        self._restore()

    def clear(self) -> None:
        """Forget all rows; the flat tensor, and memory on the CPU, stays allocated."""
        self.free_rows()
        self.captured = [False] * len(self.rows)

    def free_rows(self) -> None:
        """Let go of all rows, but not of which tasks were captured."""
        self.rows = [[None] * len(self.parameters) for _ in self.rows]

    def column(self, parameter: int, *, widened: bool) -> list[Tensor | None]:
        """The gradients of one parameter for all T tasks on the device they came from.

        `widened`: in the dtype that they had, else in that of the rows. The tensors may be the rows' own, unless these
        are on the CPU.
        """
        kind = self._kinds[parameter]
        column = [row[parameter] for row in self.rows]
        if not self.converts or kind is None:
            return column
        dtype, device = kind
        self._keeper.wait(device)
        copy = self.storage == "cpu"  # also where the device is the CPU: the rows' memory is used again
        return [
            None if x is None else x.to(device, dtype if widened else x.dtype, non_blocking=True, copy=copy)
            for x in column
        ]

    @torch.no_grad()
    def result(self, parameter: int, x: Tensor | None) -> Tensor | None:
        """A combined gradient in the dtype of the gradients, where it stays until the next step."""
        kind, places = self._kinds[parameter], self._flat.places()
        if x is None or kind is None:
            return x
        return x.to(kind[0]) if places is None else places[parameter].copy_(x)

    def results(self, combined: list[Tensor | None]) -> list[Tensor | None]:
        """All combined gradients likewise; what comes in leaves the list as soon as it is converted."""
        for p in range(len(combined)):
            x, combined[p] = combined[p], None
            combined[p] = self.result(p, x)
        return combined

    @property
    def device(self) -> torch.device | None:
        """Where the captured gradients came from; None: there are none."""
        held = (p for row in self.rows for p, x in enumerate(row) if x is not None)
        kind = next((kind for p in held if (kind := self._kinds[p]) is not None), None)
        return None if kind is None else kind[1]

    def outputs(self) -> list[Tensor] | None:
        """Where the combined gradient of each parameter goes; None: over the rows.

        With `storage="flat"` it is never in the flat rows: `p.grad` outlives the step (`zero_grad(set_to_none=False)`),
        and the next capture would write over it.
        """
        return None if self.converts else self._flat.places()

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

    def _copied(self, task: int, gradients: list[Tensor | None]) -> list[Tensor | None]:
        return self._flat.copied(task, gradients, self.rows[task])
