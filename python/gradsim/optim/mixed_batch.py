"""Captures all tasks of a mixed batch from one backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn

from gradsim.gradients.buffer import GradientBuffer
from gradsim.one_backward import (
    SCALES,
    Pool,
    Samples,
    Scale,
    TaskScale,
    check_model,
    check_scale,
    check_surroundings,
    is_sequence_first,
    mixed,
)
from gradsim.one_backward.verify import check, recorder_for
from gradsim.optim import arguments
from gradsim.optim.delegate import DelegatingOptimizer
from gradsim.optim.held import combine_held
from gradsim.optim.parameters import Layout
from gradsim.optim.spreading import Spreading
from gradsim.optim.streamed import StoredRows, StreamedStep
from gradsim.optim.streamed_exchange import StreamedExchange
from gradsim.optim.surgery import Surgery


class MixedBatches(DelegatingOptimizer):
    """The part of `SurgeryOptimizer` that takes mixed batches."""

    surgery: Surgery
    buffer: GradientBuffer
    _layout: Layout
    _model: nn.Module | None
    _open: str | None  # the block that is open
    _streamed: StreamedStep | StreamedExchange | None  # the last mixed batch of the step, already corrected
    _plain: dict[int, Tensor]  # gradients of parameters in no group, not split by task
    _verified: bool
    _pool: Pool
    _processes: Spreading

    @property
    def tasks(self) -> list[str]:
        assert self.surgery.tasks is not None
        return list(self.surgery.tasks)

    @contextmanager
    def mixed_batch(
        self,
        task_ids: Tensor | Sequence[int] | Sequence[str],
        task_scale: TaskScale = None,
        *,
        last: bool = True,
        verify: bool = False,
        second_pass: bool = False,
        batch_dim: int | None = None,
    ) -> Iterator[None]:
        """Capture the gradients of all tasks from one backward over one batch: forward and backward go inside.

        It leaves what one `task` block per task would leave, at about the price of plain training, and each group is
        corrected and its rows freed as soon as they are complete. See docs/one-backward.md.

        Args:
            task_ids: for each of the B samples of the batch its task: int64 [B] (on the CPU: a GPU would be waited
                for), or a list of B numbers or names.
            task_scale: what a task counts. None: as the loss gives it; the task gradients add up to the plain gradient.
                `"mean"`: as if the loss were the mean over the task's own samples (times B / n_t). `"tokens"`: the same
                with the targets that torch's cross entropy does not ignore. A dict from task to factor.
            last: False: keep the rows (T N b bytes); a further batch of the same step follows.
            verify: compare the first batch of two or more tasks with separate backwards, which takes their time and
                the memory of T' + 3 gradients of the model; later ones cost nothing. See `one_backward.verify.check`.
            second_pass: keep no rows; measure first, and combine from the inputs and output gradients of the layers,
                which are kept instead. For groups as large as the model.
            batch_dim: the dimension of the samples; None: the first, or the second where only that fits.

        Raises:
            ValueError, TypeError: wrong arguments.
            RuntimeError: inside another block; after the last batch of the step; a gradient that cannot be split by
                task, naming the parameter or module; a second backward. The gradients of this batch are then dropped,
                those captured before stay.
        """
        recorder = recorder_for(self._model, self._verified) if verify else None
        samples = Samples(arguments.task_ids(task_ids, self.tasks), arguments.dimension(batch_dim))
        check_scale(task_scale, self.tasks)
        if self._open is not None:
            raise RuntimeError(f"mixed_batch() was opened inside {self._open}; close that first")
        check_surroundings()
        stream = last and self.buffer.storage != "flat"
        if second_pass and (self._in_step() or not stream):
            raise RuntimeError(
                "second_pass=True keeps no rows: it needs storage='autograd' or 'cpu', last=True and a single mixed "
                "batch in the step, with nothing captured before"
            )
        self._begin("mixed_batch()")
        several = self._processes.replicas is not None or self._processes.shards is not None
        if several and second_pass:
            raise RuntimeError(
                "second_pass=True keeps no rows, and there is nothing that could be averaged over the processes; leave "
                "it out"
            )
        if several and not last and task_scale in SCALES and self._processes.average == "present":
            raise RuntimeError(
                f"task_scale={task_scale!r} with average='present' needs all samples of a step in the last mixed "
                "batch; use average='world'"
            )
        gathered = self._processes.gathered(self._model, self._layout)
        if gathered is not None and verify:
            raise RuntimeError("verify=True runs the model once per task, which FSDP2 does not stand; leave it out")
        if self._model is not None:
            check_model(self._model)
            samples.sequence_first = is_sequence_first(self._model)
        stored = StoredRows(samples, self.buffer)
        streamed: StreamedStep | StreamedExchange | None = None
        if several and (stream or gathered is not None):
            streamed = self._processes.stream(self.surgery, self._layout, self.buffer, samples, last)
        elif stream:
            streamed = StreamedStep(self.surgery, self._layout, self.buffer, samples, self._pool, second_pass)
        parameters = self.buffer.parameters
        skipped = self._layout.groups.excluded if task_scale is None and not several else []
        outside = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        self._open = "mixed_batch()"
        try:
            with (
                recorder or nullcontext(),
                self._processes.capturing(self._model, self._open),
                mixed(
                    parameters if gathered is None else gathered.parameters,
                    self._layout.names,
                    samples,
                    streamed or stored,
                    skipped=skipped,
                    model=self._model,
                    scale=Scale(task_scale, samples, self.tasks, self._processes.together(self.surgery, self._layout)),
                    second_pass=second_pass,
                    space=None if streamed is None else streamed.space,
                    passing=() if gathered is None else gathered.modules,
                    begun=streamed.begin if isinstance(streamed, StreamedExchange) else None,
                ) as collector,
            ):
                yield
            if recorder is not None:
                self._verified = check(recorder, collector, skipped, self.tasks)
            plain = {i: gradient for i in skipped if (gradient := parameters[i].grad) is not None}
            if streamed is None:
                stored.add_to_buffer()
            elif second_pass and isinstance(streamed, StreamedStep):
                streamed.combine(collector)
            else:
                streamed.flush()
            if gathered is not None:
                _refuse_past(parameters, self._layout.names)
            self._streamed = streamed if last else None
            for i, gradient in plain.items():
                self._plain[i] = self._plain[i].add_(gradient) if i in self._plain else gradient
        except BaseException:
            self._processes.is_lost |= isinstance(streamed, StreamedExchange)
            raise
        finally:
            self._open = None
            for p, gradient in zip(parameters, outside, strict=True):
                p.grad = gradient

    def _in_step(self) -> bool:
        """Whether something has been captured since the last `finish` or `zero_grad`."""
        return self._streamed is not None or bool(self._plain) or any(self.buffer.captured)

    def _refuse_after_last(self, what: str) -> None:
        if self._streamed is not None:
            raise RuntimeError(
                f"{what} came after the last mixed batch of the step, whose surgery is done; call finish() and step(), "
                "or give last=False to all mixed batches of a step but the last"
            )

    def _combined(self) -> list[Tensor | None]:
        """The combined gradients of the step; what the surgery remembers is changed here."""
        if self._streamed is None:
            if self._processes.replicas is not None or self._processes.shards is not None:
                combined, present = self._processes.combined(self.surgery, self._layout, self.buffer)
            else:
                present = sum(self.buffer.captured)
                combined = combine_held(self.surgery, self._layout.groups, self.buffer)
            scale = 1.0 / present if self.surgery.reduction == "mean" and present > 1 else 1.0
        else:
            combined, scale = self._streamed.commit()
            self._processes.after_stream(self._streamed)
        for i, gradient in self._plain.items():
            before, gradient = combined[i], gradient if scale == 1.0 else gradient * scale
            combined[i] = gradient if before is None else before + gradient
        return combined

    def _forget(self) -> None:
        self.buffer.clear()
        self._streamed, self._plain = None, {}
        self._processes.blocks = []

    def _begin(self, what: str) -> None:
        raise NotImplementedError


def _refuse_past(parameters: Sequence[Tensor], names: Sequence[str]) -> None:
    """Refuse gradients that FSDP2 has reduced although all should have been followed (RuntimeError)."""
    for p, name in zip(parameters, names, strict=True):
        if p.grad is not None:
            raise RuntimeError(
                f"{name} received a gradient that could not be split by task: it was used in a place that is not "
                "followed; use one task() block per task"
            )
