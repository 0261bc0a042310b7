"""`task_similarity`: the cosines of task gradients at one point, over several batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from torch import nn

from gradsim.gradients import Granularity
from gradsim.gradients.granularity import Expression, Spec
from gradsim.similarity.loaders import Loaders
from gradsim.similarity.measurements import Measurements
from gradsim.similarity.session import session
from gradsim.similarity.similarity import Similarity
from gradsim.similarity.source import LossFunction
from gradsim.similarity.untouched import random_state
from gradsim.similarity.validate import check_metadata

__all__ = ["task_similarity"]


def task_similarity(
    model: nn.Module,
    loaders: Mapping[str, Iterable[Any]],
    loss_fn: LossFunction,
    *,
    granularity: Granularity | Spec = "all_layer",
    exclude: Expression | Sequence[Expression] = (),
    batches: int | None = None,
    progress: bool = True,
    within: bool = True,
    tasks_at_once: int | None = None,
    projection: int | None = None,
    seed: int = 0,
    train_mode: bool = False,
    resume: str | PathLike[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Similarity:
    """Measure how similar the gradients of the tasks are, group by group (GradSim, Wang et al., EMNLP 2023).

    Measurement s compares the s-th batch of every task; the entries are means over s. The parameters stay as they are,
    and afterwards so are `.grad`, the buffers, the mode of every module and the random state, also after an error.

    Args:
        model: a module; all its trained parameters on one device.
        loaders: task -> any iterable of batches, also one that can be walked only once. Batches of one task should be
            disjoint, those of different tasks of the same size.
        loss_fn: `loss_fn(model, batch)` gives one differentiable number.
        granularity, exclude: how parameters are grouped and which are left out, as in `GradVac`.
        batches: how many measurements; None: until the shortest loader ends.
        progress: show a bar on stderr, on a terminal and where rich is installed.
        within: also compare batches s and s + 1 of each task with each other, without which a low similarity between
            tasks cannot be told from noise. Takes no backward pass more where all tasks are in memory or projected.
        tasks_at_once, projection, seed, train_mode: as for `Measurements`, where memory and passes are stated.
        resume: a file for the progress of an interrupted measurement. If it is there the measurement goes on from it,
            with the same result bit for bit (on a device whose gradients are the same from call to call): the loaders
            must then give the same batches as before. It is written at the start, every ten seconds or so, and on
            errors, and removed at the end.
        metadata: what the result shall say of itself besides its settings.

    Returns:
        A `Similarity` on the CPU with std, count, within (None where not measured), norms and samples.

    Raises:
        ValueError: a loader that ends before `batches` (before the first measurement where its length is known;
            otherwise what was measured by then is in `resume`), a resume file that is damaged or of another model,
            other tasks, groups or settings, and what `Measurements` raises.
        TypeError: as for `Measurements`, and loaders that are no mapping of iterables.
        OSError: the resume file cannot be read or written.
    """
    check_metadata({} if metadata is None else metadata)
    if not isinstance(within, bool):
        raise TypeError(f"within must be True or False, not {within!r}")
    walk = Loaders(loaders, batches)
    meter = _Meter(
        model,
        walk.tasks,
        loss_fn,
        granularity=granularity,
        exclude=exclude,
        tasks_at_once=tasks_at_once,
        projection=projection,
        seed=seed,
        train_mode=train_mode,
    )
    meter.within = within
    with random_state(meter.source.device):
        session(meter, walk, call={"kind": "cosine", "within": within}, progress=progress, resume=resume)
    return meter.similarity(metadata)


class _Meter(Measurements):
    """Every batch but the last is compared with the next one of its task."""

    within = True

    def step(self, batches: dict[str, Any], previous: dict[str, Any] | None) -> None:
        self.compare(batches, previous if self.within and previous is not None else {}, keep=self.within)

    def passes(self, count: int, resumed: bool) -> int:
        T = len(self.tasks)
        first = self.engine.passes(T, self.within and resumed, False)
        return first + (count - 1) * self.engine.passes(T, self.within, True)
