"""Compares the task gradients of a mixed batch with those of separate backwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradsim.one_backward.agreement import Difference, Gradients, Tolerance, compare, norms, total
from gradsim.one_backward.block import mixed
from gradsim.one_backward.collector import Collector
from gradsim.one_backward.cut import Cut
from gradsim.one_backward.eager import eager
from gradsim.one_backward.recorder import Call, Recorder
from gradsim.one_backward.rows import TaskRows
from gradsim.one_backward.samples import Samples
from gradsim.one_backward.terms import gradients_of, gradients_of_terms
from gradsim.one_backward.undisturbed import undisturbed


def recorder_for(model: nn.Module | None, verified: bool) -> Recorder | None:
    """What has to be open while the block runs; None: the check has been passed before.

    Raises:
        ValueError: no model.
    """
    if model is None:
        raise ValueError("verify=True calls the model again: build the optimizer with model=, or leave verify out")
    return None if verified else Recorder(model)


def check(recorder: Recorder, collector: Collector, skipped: Sequence[int], tasks: Sequence[str]) -> bool:
    """Compare what one backward gives with what one backward per task gives, and with the plain gradient.

    The recorded calls of the model are run again, with the gradients that their outputs received in the block: all
    samples together under `mixed`, all samples together plainly, and the samples of each task by themselves. It is in
    eval mode if they drew random numbers. Where the loss was computed outside of the model, that part is not run again.
    A loss inside the model is a mean over fewer samples when a task is alone, so it is compared up to one factor for
    each term that it is the sum of; the plain gradient tells whether the scale is right.

    It takes the time of T + 2 forwards and backwards, and T' + 3 gradients of the whole model. Nothing is changed.

    Args:
        recorder: its calls. collector: of the block. skipped: the parameters that were not split by task.
        tasks: their names.

    Returns:
        False where nothing could be compared: a single task in the batch, or gradients that are not finite (a gradient
        scaler at its start).

    Raises:
        RuntimeError: a difference, naming the parameter; a model that cannot be run again.
    """
    samples, parameters = collector.samples, collector.parameters
    calls = recorder.calls
    if not calls:
        raise RuntimeError(
            "verify=True saw no call of the model in the block whose output got a gradient: call the very module that "
            "was given as model=, or use verify=False"
        )
    if len(samples.present) < 2:
        return False
    left = set(skipped)
    followed = [i for i, p in enumerate(parameters) if p.requires_grad and i not in left]
    chosen = [parameters[i] for i in followed]
    for call in calls:
        call.detach()
    report = _Report(recorder.model, [collector.names[i] for i in followed], chosen, calls)
    with undisturbed(recorder.model, parameters, any(call.is_random for call in calls)), eager():
        plain = _plain(recorder.model, calls, chosen)
        if not all(x is None or x.isfinite().all() for x in plain):
            return False
        rows = _rows(recorder.model, calls, collector, skipped, followed)
        both = compare(total(rows), plain, [], report.tolerance, norms(rows))
        report.refuse(both, "all tasks together", "the plain gradient of the batch")
        for row, t in zip(rows, samples.present, strict=True):
            known, terms = _separate(recorder.model, calls, chosen, samples, t, tasks[t])
            report.refuse(compare(row, known, terms, report.tolerance), f"task {tasks[t]!r}", "a separate backward")
    return True


class _Rows:
    """A sink that keeps all rows."""

    def __init__(self) -> None:
        self.of: dict[int, TaskRows] = {}

    def ready(self, parameter: int, rows: TaskRows | None) -> None:
        if rows is not None:
            self.of[parameter] = rows

    def space(self, parameter: int, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
        return None


def _rows(
    model: nn.Module, calls: Sequence[Call], collector: Collector, skipped: Sequence[int], followed: Sequence[int]
) -> list[Gradients]:
    """[T'] rows of the parameters that are followed."""
    kept = _Rows()
    with mixed(collector.parameters, collector.names, collector.samples, kept, skipped=skipped, model=model):
        outputs = [y for call in calls for y in call.run(model).values()]
        torch.autograd.backward(outputs, [go for call in calls for go in call.gradients.values()])
    return [
        [kept.of[i].spread(kept.of[i].values[j]) if i in kept.of else None for i in followed]
        for j in range(len(collector.samples.present))
    ]


def _plain(model: nn.Module, calls: Sequence[Call], parameters: Sequence[Tensor]) -> Gradients:
    outputs = [y for call in calls for y in call.run(model).values()]
    gradients = [go for call in calls for go in call.gradients.values()]
    return gradients_of(outputs, gradients, parameters)


def _separate(
    model: nn.Module, calls: Sequence[Call], parameters: Sequence[Tensor], samples: Samples, t: int, task: str
) -> tuple[Gradients, list[Gradients]]:
    """The gradient of the samples of task t alone: of the outputs with samples, and of each term without."""
    own = torch.tensor([i for i, of in enumerate(samples.task_of) if of == t])
    places = {key: place for call in calls for key, place in call.places.items()}
    cut = Cut(own, samples.size, samples.batch_dim, places)
    fixed: list[tuple[Tensor, Tensor]] = []
    free: list[tuple[Tensor, Tensor]] = []
    try:
        for call in calls:
            outputs = call.run(model, cut.arguments(call.args), cut.arguments(call.kwargs))
            for path, y in outputs.items():
                go, has_samples = cut.gradient(call.gradients[path], y.shape, call.output_places.get(path))
                (fixed if has_samples else free).append((y, go))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        where = ", ".join(f"{path} in dimension {dim}" for path, dim in cut.dims.items()) or "none"
        raise RuntimeError(
            f"verify=True cannot compare with task {task!r} alone: {type(error).__name__}: {error} (arguments that "
            f"were cut: {where}; take a batch whose number of samples is no other size, or give batch_dim=)"
        ) from error
    return gradients_of_terms(fixed, free, parameters)


class _Report:
    """Says what is wrong."""

    def __init__(
        self, model: nn.Module, names: Sequence[str], parameters: Sequence[Tensor], calls: Sequence[Call]
    ) -> None:
        self._kinds = {id(p): type(m).__name__ for m in model.modules() for p in m.parameters(recurse=False)}
        self._names, self._parameters = names, parameters
        self.tolerance = max((Tolerance.of(x) for x in _dtypes(parameters, calls)), key=lambda x: x.relative)

    def refuse(self, difference: Difference, what: str, other: str) -> None:
        """Raises RuntimeError if something differs."""
        if not difference.count:
            return
        i = difference.parameter
        kind = self._kinds.get(id(self._parameters[i]), "no module")
        raise RuntimeError(
            f"verify=True: for {what} the gradient of {self._names[i]} ({kind}) differs from that of {other} by "
            f"{difference.relative:.1e} of its norm, and {difference.count} of {len(self._names)} parameters differ by "
            f"more than rounding ({self.tolerance.relative:.0e}): either samples interact in the model (batch "
            "statistics, negatives from the batch, routing with a capacity, random numbers), or they are in another "
            "dimension than was found (give batch_dim=); use one task() block per task if it is neither"
        )


def _dtypes(parameters: Sequence[Tensor], calls: Sequence[Call]) -> set[torch.dtype]:
    """In which the gradients were computed."""
    found = {p.dtype for p in parameters} | {dtype for _, dtype, on in (call.autocast for call in calls) if on}
    cuda = any(p.is_cuda for p in parameters)
    if cuda and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32):
        found.add(torch.float16)  # TensorFloat-32 keeps as many bits
    return found
