"""A stretch of code with a random state of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside, and leave it as it was. Raises for what is no whole number from 0."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, not {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, and is {seed}")
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would seed the GPUs as well, and those are not put back
        torch.default_generator.manual_seed(seed)
        yield
