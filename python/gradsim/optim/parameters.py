"""The parameters of a base optimizer with their names and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gradsim.distributed import unwrapped
from gradsim.gradients.granularity import Granularity, Groups
from gradsim.optim.checks import check_parameters


@dataclass
class Layout:
    """The P parameters of an optimizer in the order of its `param_groups`, their names, and their groups."""

    parameters: list[Tensor]
    names: list[str]
    groups: Groups


def flattened(param_groups: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """All parameters, in the order of the groups."""
    return [p for group in param_groups for p in group["params"]]


def layout_of(
    param_groups: Sequence[Mapping[str, Any]],
    granularity: Granularity,
    model: nn.Module | None,
    known: Mapping[int, str] | None = None,
) -> Layout:
    """Name, check and group the parameters.

    The names come from `known` (id of a parameter -> name), else from the model, else from the named parameters of the
    optimizer; a granularity that needs no names does without.

    Raises:
        ValueError: a parameter that the model does not contain, or that has no name where one is needed; what
            `Granularity.groups` refuses. And what `check_parameters` raises.
    """
    parameters = flattened(param_groups)
    if model is not None:
        names = _from_model(parameters, model, known or {})
    else:
        names = _from_groups(param_groups, known or {}, granularity)
    check_parameters(parameters, names)
    return Layout(parameters, names, granularity.groups(names))


def with_group(param_groups: Sequence[Mapping[str, Any]], new: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The groups as they will be once the base optimizer has added `new` (whose `params` is a list)."""
    entries = new["params"]
    tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in entries]
    for x in tensors:
        if not isinstance(x, Tensor):
            raise TypeError(f"params must hold tensors or pairs of a name and a tensor, not {type(x).__name__}")
    added: dict[str, Any] = {"params": tensors}
    if entries and all(isinstance(entry, tuple) for entry in entries):
        added["param_names"] = [entry[0] for entry in entries]
    return [*param_groups, added]


def _from_model(parameters: list[Tensor], model: nn.Module, known: Mapping[int, str]) -> list[str]:
    places = {id(p): name for name, p in unwrapped(model).named_parameters()} | dict(known)
    names = [places.get(id(p)) for p in parameters]
    result = [name for name in names if name is not None]
    if len(result) < len(names):
        i = names.index(None)
        raise ValueError(
            f"model does not contain parameter {i} of the optimizer (shape {list(parameters[i].shape)}); give the "
            "model whose parameters are optimized"
        )
    return result


def _from_groups(
    param_groups: Sequence[Mapping[str, Any]], known: Mapping[int, str], granularity: Granularity
) -> list[str]:
    names: list[str | None] = []
    for group in param_groups:
        own = group.get("param_names") or [None] * len(group["params"])
        names += [known.get(id(p), name) for p, name in zip(group["params"], own, strict=True)]
    if None not in names:
        return [name for name in names if name is not None]
    if granularity.needs_names:
        raise ValueError(
            f"{granularity} needs the names of the parameters: give model=, or build the optimizer with "
            "model.named_parameters()"
        )
    return [str(i) if name is None else name for i, name in enumerate(names)]
