"""Parameters of which each process holds a part, on 2 and 4 processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distributed import sharded, tensor_parallel
from distributed.cases import on
from distributed.launch import Outcome


@pytest.mark.parametrize(
    ("world", "case"), on(2, sharded, tensor_parallel) + on(4, sharded, tensor_parallel, slow=True)
)
def test_sharded(world: int, case: Callable[[], Any], outcomes: Callable[..., Outcome]) -> None:
    outcomes(world, case).result()
