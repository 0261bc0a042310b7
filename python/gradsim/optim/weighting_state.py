"""What a weighting remembers, as numbers, strings, lists and dicts: any file format takes them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradsim.optim.weighting import NASH

_NASH_ARRAYS = ("prvs_alpha", "normalization_factor")  # what TorchJD's Nash-MTL keeps outside of its state_dict


def state_of(weighting: Any) -> dict[str, Any]:
    """What a weighting remembers, as far as it tells: its `state_dict`, if it has one."""
    nash = {name: _nash_state(module) for name, module in _modules(weighting) if type(module).__name__ == NASH}
    own = dict(weighting.state_dict()) if hasattr(weighting, "state_dict") else {}
    return {"own": {name: _told(x) for name, x in own.items()}, "nash": nash}


def restore(weighting: Any, state: Mapping[str, Any], first_call: Callable[[], object]) -> None:
    """Give a fresh weighting what `state_of` told; `first_call`: calls it with something of the right size."""
    if isinstance(weighting, torch.nn.Module) and type(weighting).__module__.startswith("torchjd."):
        with drawn_from("first call"):
            first_call()  # TorchJD makes its buffers then; before, its load_state_dict refuses them
    own = {name: _untold(x) for name, x in state["own"].items()}
    if own or hasattr(weighting, "load_state_dict"):
        weighting.load_state_dict(own)
    for name, entry in state["nash"].items():
        nash = weighting.get_submodule(name)
        for array in _NASH_ARRAYS:
            setattr(nash, array, _untold(entry[array]).numpy())
        nash.step = entry["step"]


class drawn_from:
    """A block in which torch draws on the CPU from a seed, and nobody's numbers outside are touched.

    So it is the same on every rank and after a resume. `torch.manual_seed` would seed the GPUs too.
    """

    def __init__(self, seed: str) -> None:
        self._seed = random.Random(seed).getrandbits(63)

    def __enter__(self) -> None:
        self._before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *exception: object) -> None:
        torch.default_generator.set_state(self._before)


def _modules(weighting: Any) -> list[tuple[str, torch.nn.Module]]:
    return list(weighting.named_modules()) if isinstance(weighting, torch.nn.Module) else []


def _nash_state(module: Any) -> dict[str, Any]:
    return {**{name: _told(torch.tensor(getattr(module, name))) for name in _NASH_ARRAYS}, "step": float(module.step)}


def _told(x: object) -> object:
    if not isinstance(x, Tensor):
        return x
    return {"dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape), "values": x.flatten().tolist()}


def _untold(x: Any) -> Any:
    if not isinstance(x, Mapping) or set(x) != {"dtype", "shape", "values"}:
        return x
    return torch.tensor(x["values"], dtype=getattr(torch, x["dtype"])).reshape(x["shape"])
