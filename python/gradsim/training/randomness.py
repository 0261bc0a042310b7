"""Every random state that a model may draw from while it trains: seeded, saved, and given back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["random_state", "seeded", "set_random_state"]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch, its `device`, numpy and Python draw from `seed`; afterwards all of them are as they were."""
    before = random_state(device)
    try:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the other devices too
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        set_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """The random states, as tensors, numbers, strings and tuples."""
    name, keys, position, has_gauss, gauss = _numpy_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _numpy_state() -> tuple[str, NDArray[np.uint32], int, int, float]:
    state = np.random.get_state(legacy=True)
    assert isinstance(state, tuple)  # and a dict with legacy=False
    name, keys, position, has_gauss, gauss = state
    return name, np.asarray(keys, dtype=np.uint32), position, has_gauss, gauss


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on drawing where `random_state` was called."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate(state["python"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
