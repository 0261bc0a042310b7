"""Replicated parameters on 2 and 4 processes: the result is that of one process on the global batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distributed import half, replicas, replicas_stack
from distributed.cases import on
from distributed.launch import Outcome


@pytest.mark.parametrize(
    ("world", "case"), on(2, replicas, replicas_stack, half) + on(4, replicas, replicas_stack, half, slow=True)
)
def test_replicas(world: int, case: Callable[[], Any], outcomes: Callable[..., Outcome]) -> None:
    outcomes(world, case).result()
