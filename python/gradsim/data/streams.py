"""Random numbers that a seed and a few names decide, and nothing else."""

from __future__ import annotations

import hashlib
import json

import numpy as np

__all__ = ["stream"]


def stream(seed: int, *names: str | int) -> np.random.RandomState:
    """A random stream of its own for `seed` and `names`, such as a task and its epoch.

    The names go through SHA-256, not `hash`, which differs from process to process. `RandomState` is old, but its
    streams are the ones that NumPy has promised never to change (NEP 19): a run that is resumed after an upgrade
    draws what it would have drawn.
    """
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))
