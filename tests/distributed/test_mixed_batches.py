"""One backward for all tasks on 2 and 4 processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distributed import mixed_batches, mixed_batches_sharded
from distributed.cases import on
from distributed.launch import Outcome


@pytest.mark.parametrize(
    ("world", "case"),
    on(2, mixed_batches, mixed_batches_sharded) + on(4, mixed_batches, mixed_batches_sharded, slow=True),
)
def test_mixed_batches(world: int, case: Callable[[], Any], outcomes: Callable[..., Outcome]) -> None:
    outcomes(world, case).result()
