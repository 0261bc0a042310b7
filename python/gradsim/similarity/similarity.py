"""The similarity of tasks: one matrix per group of parameters, with how often and how steadily it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradsim.similarity import store
from gradsim.similarity.validate import check_metadata, check_names, check_tensor

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["Similarity"]


@dataclass(eq=False)
class Similarity:
    """Gradient similarity of T tasks for G groups of parameters (GradSim, Wang et al., EMNLP 2023).

    Attributes:
        tasks: T different names.
        groups: G different names, one per group of the granularity.
        cosine: float64 `[G, T, T]`, the mean over measurements. Entry `[k, i, j]` counts only where
            `count[k, i, j] > 0`. For `kind="affinity"` it is what training j does for i.
        count: int64 `[G, T, T]`, the number of measurements of each pair.
        std: float64 `[G, T, T]` or None, the standard deviation over measurements (divided by the count).
        within: float64 `[G, T]` or None, the mean cosine between two disjoint batches of the same task, without which
            a low cosine between tasks cannot be told from noise.
        norms: float64 `[G, T]` or None, the mean norm of the task gradients that were not zero.
        samples: float64 `[S, G, T, T]` or None, the single measurements behind the means, NaN where a pair was not
            measured. What resampling draws from, and the curve along training.
        steps: int64 `[S]` or None, the training step of each of the samples.
        kind: what the entries are: `"cosine"`, or `"affinity"` (TAG).
        metadata: what else the file says of itself (model, data, settings): anything that JSON can hold.

    Raises `TypeError` for what is not a tensor of its dtype and `ValueError` for a wrong shape, a doubled name or a
    negative count. Two are equal when names, kind and all numbers are (NaN equals NaN, on whatever device).
    """

    tasks: list[str]
    groups: list[str]
    cosine: Tensor
    count: Tensor
    std: Tensor | None = None
    within: Tensor | None = None
    norms: Tensor | None = None
    samples: Tensor | None = None
    steps: Tensor | None = None
    kind: str = "cosine"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tasks, self.groups = list(self.tasks), list(self.groups)
        check_names("tasks", self.tasks)
        check_names("groups", self.groups)
        if not isinstance(self.kind, str):
            raise TypeError(f"kind must be a string, not {type(self.kind).__name__}")
        g, t = len(self.groups), len(self.tasks)
        check_tensor("cosine", self.cosine, torch.float64, (g, t, t))
        check_tensor("count", self.count, torch.int64, (g, t, t))
        if bool((self.count < 0).any()):
            raise ValueError("count must not be negative")
        for name, value, shape in (
            ("std", self.std, (g, t, t)),
            ("within", self.within, (g, t)),
            ("norms", self.norms, (g, t)),
        ):
            if value is not None:
                check_tensor(name, value, torch.float64, shape)
        if self.samples is not None:
            length = len(self.samples) if isinstance(self.samples, Tensor) and self.samples.ndim else 0
            check_tensor("samples", self.samples, torch.float64, (length, g, t, t))
        if self.steps is not None:
            if self.samples is None:
                raise ValueError("steps are those of the samples, and there are none")
            check_tensor("steps", self.steps, torch.int64, (len(self.samples),))
        self.metadata = check_metadata(self.metadata)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by the name of their attribute."""
        named = {name: getattr(self, name) for name in store.TENSORS}
        return {name: value for name, value in named.items() if value is not None}

    def names(self) -> dict[str, Any]:
        """All that is no tensor, by the name of its attribute."""
        return {"tasks": self.tasks, "groups": self.groups, "kind": self.kind, "metadata": self.metadata}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Similarity):
            return NotImplemented
        mine, theirs = self.tensors(), other.tensors()
        if self.names() != other.names() or set(mine) != set(theirs):
            return False
        return all(
            value.shape == theirs[name].shape
            and torch.allclose(value.cpu(), theirs[name].cpu(), rtol=0.0, atol=0.0, equal_nan=True)
            for name, value in mine.items()
        )

    def mean(self, groups: Sequence[str] | None = None) -> Tensor:
        """The similarity over several groups (all of them for None): float64 `[T, T]`.

        Every group has the same say, however many parameters it holds and however often it was measured: a group
        is one view of how two tasks relate. A group that never measured a pair does not enter for that pair; a pair
        that no group measured is NaN. Raises `ValueError` for an unknown group, or for none.
        """
        if isinstance(groups, str):
            raise TypeError(f"groups must be a list of names, not the string {groups!r}")
        names = self.groups if groups is None else list(groups)
        unknown = [name for name in names if name not in self.groups]
        if unknown or not names:
            raise ValueError(f"groups must be among {self.groups}, not {unknown or names}")
        rows = torch.tensor([self.groups.index(name) for name in names], device=self.cosine.device)
        measured = self.count[rows] > 0
        total = torch.where(measured, self.cosine[rows], 0.0).sum(dim=0)
        return total / measured.sum(dim=0)  # 0 / 0 where no group measured the pair: NaN

    def merge(self, *others: Similarity) -> Similarity:
        """This and other measurements of the same tasks and groups as one, as if measured together.

        Means are weighted by counts (`within` and `norms` by those of the diagonal), and the spread is that of all
        measurements; samples and steps follow one another. Where only some have a spread, samples or steps, the result
        has none. The metadata of all stand in a list under `"merged"`. Raises `ValueError` for another kind, other
        tasks or groups, or another order of them.
        """
        from gradsim.similarity.merge import merge

        return merge([self, *others])

    def save(self, path: str | PathLike[str]) -> None:
        """Write one safetensors file with JSON metadata, whole or not at all. Raises `OSError` where it cannot."""
        store.save(Path(path), self.names(), self.tensors())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Similarity:
        """Read what `save` wrote, on the CPU; nothing is unpickled.

        Raises `ValueError` for a damaged file or one of another kind, and `OSError` for one that cannot be read.
        """
        fields = store.load(Path(path))
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold a similarity: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists, numbers and strings; None for what is not there and for NaN, which JSON lacks."""
        return self.names() | {key: _plain(getattr(self, key)) for key in store.TENSORS}

    def to_json(self, path: str | PathLike[str]) -> None:
        """Write `to_dict()` as JSON. Raises `OSError` where the file cannot be written."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def to_pandas(self) -> pandas.DataFrame:
        """One row per group and ordered pair of tasks: group, task, other, value, count, std.

        Raises `ImportError` where pandas is not installed.
        """
        from gradsim.similarity.frame import to_frame

        return to_frame(self)

    def plot(
        self,
        kind: str = "heatmap",
        *,
        groups: Sequence[str] | None = None,
        classes: Mapping[str, str] | None = None,
        title: str | None = None,
    ) -> Figure:
        """Draw it with matplotlib: `"heatmap"` or `"dendrogram"` of the mean over `groups`, or `"layers"`.

        `classes` (task -> class, such as a language's family) colours the tasks. The tasks of a heat map stand in
        the order of its dendrogram. Raises `ValueError` for another kind, an unknown group or a pair that was never
        measured, and `ImportError` where matplotlib or scipy is not installed.
        """
        from gradsim.report.figures import draw

        return draw(self, kind, groups=groups, classes=classes, title=title)


def _plain(tensor: Tensor | None) -> Any:
    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(item) for item in value]
        return value if not isinstance(value, float) or abs(value) < float("inf") else None

    return None if tensor is None else clean(tensor.tolist())
