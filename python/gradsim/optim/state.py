"""What gradient surgery remembers from step to step, and how it is saved, loaded and carried over."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

VERSION = 1

# name -> dtype, by shape. `target` is phi_hat of the paper; the rest is what similarity() and statistics() report.
PAIRS = {
    "target": torch.float64,
    "cosine_sum": torch.float64,
    "cosine_square_sum": torch.float64,
    "count": torch.int64,
}  # [G, T, T]
TASKS = {
    "norm_sum": torch.float64,
    "visits": torch.int64,
    "negative": torch.int64,
    "corrections": torch.int64,
}  # [G, T]
SCALARS = {"step": torch.int64, "skipped": torch.int64}  # []
FIELDS = {**PAIRS, **TASKS, **SCALARS}
COUNTS = frozenset(name for name, dtype in FIELDS.items() if dtype is torch.int64)


class SurgeryState:
    """The tensors of one surgery, for G groups and T tasks, all on one device.

    They are changed in place only, so that their addresses stay the same (CUDA graphs). What was loaded for tasks that
    are not trained here is kept aside: it takes no part, and is saved again.
    """

    def __init__(self, tasks: Sequence[str], groups: Sequence[str], device: torch.device) -> None:
        self.tasks = list(tasks)
        self.groups = list(groups)
        self.tensors = _zeros(len(self.groups), len(self.tasks), device)
        self._aside: tuple[list[str], dict[str, Tensor]] | None = None  # all tasks that were loaded, and their tensors
        self._told: set[str] = set()  # tasks of which a warning has said that they are new or gone

    @property
    def device(self) -> torch.device:
        return self.tensors["step"].device

    def to(self, device: torch.device) -> None:
        """Move everything to another device."""
        self.tensors = {name: x.to(device) for name, x in self.tensors.items()}
        if self._aside is not None:
            self._aside = (self._aside[0], {name: x.to(device) for name, x in self._aside[1].items()})

    def with_groups(self, groups: Sequence[str]) -> SurgeryState:
        """The same for other groups: a group of the same name keeps what it has, a new one starts at 0."""
        result = SurgeryState(self.tasks, groups, self.device)
        _copy(result.tensors, self.tensors, _matches(groups, self.groups), _matches(self.tasks, self.tasks))
        result._told = set(self._told)
        if self._aside is not None:
            names, tensors = self._aside
            aside = _zeros(len(result.groups), len(names), self.device)
            _copy(aside, tensors, _matches(groups, self.groups), _matches(names, names))
            result._aside = (names, aside)
        return result

    def save(self) -> dict[str, Any]:
        """Strings, lists and copies of the tensors; the tasks kept aside come after those in use."""
        tasks, tensors = list(self.tasks), {name: x.clone() for name, x in self.tensors.items()}
        if self._aside is not None:
            names, aside = self._aside
            tasks += [name for name in names if name not in self.tasks]
            tensors = _zeros(len(self.groups), len(tasks), self.device)
            everything = _matches(self.groups, self.groups)
            _copy(tensors, aside, everything, _matches(tasks, names))
            _copy(tensors, self.tensors, everything, _matches(tasks, self.tasks))
        return {"tasks": tasks, "groups": list(self.groups), "tensors": tensors}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over what `check_saved` has accepted; tasks and groups are matched by name, new tasks start at 0."""
        tasks, groups, tensors = saved["tasks"], saved["groups"], saved["tensors"]
        check_groups(groups, self.groups)
        loaded = _zeros(len(self.groups), len(self.tasks), self.device)
        _copy(loaded, tensors, _matches(self.groups, groups), _matches(self.tasks, tasks))
        for name, x in loaded.items():
            self.tensors[name].copy_(x)
        vanished = [name for name in tasks if name not in self.tasks]
        self._aside = None
        if vanished:
            aside = _zeros(len(self.groups), len(tasks), self.device)
            _copy(aside, tensors, _matches(self.groups, groups), _matches(tasks, tasks))
            self._aside = (list(tasks), aside)
        self._tell([name for name in self.tasks if name not in tasks], vanished)

    def _tell(self, new: Sequence[str], vanished: Sequence[str]) -> None:
        """Warn of tasks that are new or gone: of each once, however often a state is loaded, and on one rank only.

        Frameworks load the same state several times, and on every rank.
        """
        new, vanished = ([name for name in names if name not in self._told] for names in (new, vanished))
        self._told.update(new, vanished)
        parts = [f"has nothing of {', '.join(new)}: their targets start at 0"] if new else []
        if vanished:
            parts.append(
                f"has tasks that are not trained here: {', '.join(vanished)}; their targets are kept aside and saved "
                "again"
            )
        distributed = torch.distributed
        several = distributed.is_available() and distributed.is_initialized()
        if parts and not (several and distributed.get_rank()):
            warnings.warn(f"the loaded surgery state {'; it '.join(parts)}", stacklevel=4)


def check_groups(saved: Sequence[str], groups: Sequence[str]) -> None:
    """Refuse a state of other groups (ValueError)."""
    if set(saved) == set(groups):
        return
    missing = [name for name in groups if name not in saved]
    extra = [name for name in saved if name not in groups]
    differences = [f"{what} {names[:3]}" for what, names in (("lacks", missing), ("has in addition", extra)) if names]
    raise ValueError(
        f"the surgery state belongs to other groups: it {' and '.join(differences)}; use the "
        "granularity and the model it was saved with"
    )


def check_saved(saved: object) -> None:
    """Refuse what is no state of a surgery, or one whose tensors do not fit its own names (TypeError, ValueError)."""
    if not isinstance(saved, Mapping):
        raise TypeError(f"the surgery state must be a dict, not {type(saved).__name__}")
    for key, kind in (("tasks", list), ("groups", list), ("tensors", dict)):
        if not isinstance(saved.get(key), kind):
            raise ValueError(f"the surgery state must have a {kind.__name__} under {key!r}")
    for key in ("tasks", "groups"):
        names = saved[key]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise ValueError(f"the surgery state must have different strings under {key!r}")
    G, T = len(saved["groups"]), len(saved["tasks"])
    if set(saved["tensors"]) != set(FIELDS):
        raise ValueError(f"the surgery state must hold the tensors {sorted(FIELDS)}, not {sorted(saved['tensors'])}")
    for name, expected in _zeros(G, T, torch.device("meta")).items():
        x = saved["tensors"][name]
        if not isinstance(x, Tensor) or x.shape != expected.shape or x.dtype != expected.dtype:
            was = f"{list(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name} of the surgery state must be {list(expected.shape)} {expected.dtype}, not {was}")
        if name in COUNTS and (x < 0).any():
            raise ValueError(f"{name} of the surgery state must not be negative: it counts")
        if name not in COUNTS and not x.isfinite().all():
            raise ValueError(f"{name} of the surgery state must be finite")
    if (saved["tensors"]["target"].abs() > 1 + 1e-6).any():
        raise ValueError("target of the surgery state must hold cosines, between -1 and 1")


def _zeros(G: int, T: int, device: torch.device) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(PAIRS, (G, T, T)),
        **dict.fromkeys(TASKS, (G, T)),
        **dict.fromkeys(SCALARS, ()),
    }
    return {name: torch.zeros(shapes[name], dtype=dtype, device=device) for name, dtype in FIELDS.items()}


Matches = tuple[list[int], list[int]]  # positions in the new list, and where the same names stood in the old one


def _matches(new: Sequence[str], old: Sequence[str]) -> Matches:
    places = {name: i for i, name in enumerate(old)}
    found = [(i, places[name]) for i, name in enumerate(new) if name in places]
    return [i for i, _ in found], [j for _, j in found]


def _copy(to: dict[str, Tensor], source: Mapping[str, Tensor], groups: Matches, tasks: Matches) -> None:
    """Write the matching blocks of `source` into `to`; scalars whole."""
    device = to["step"].device
    g_to, g_from = (torch.tensor(x, dtype=torch.int64) for x in groups)
    t_to, t_from = (torch.tensor(x, dtype=torch.int64) for x in tasks)
    for name, x in source.items():
        x = x.to(device)
        if name in PAIRS:
            to[name][g_to[:, None, None], t_to[:, None], t_to] = x[g_from[:, None, None], t_from[:, None], t_from]
        elif name in TASKS:
            to[name][g_to[:, None], t_to] = x[g_from[:, None], t_from]
        else:
            to[name].copy_(x)
