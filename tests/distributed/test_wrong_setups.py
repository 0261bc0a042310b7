"""Setups and programmes that are wrong end in a sentence, on every process, without a hang."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distributed import disagreeing, refused, refused_parts
from distributed.cases import on
from distributed.launch import Outcome


@pytest.mark.parametrize(
    ("world", "case"),
    on(2, refused, refused_parts, disagreeing) + on(4, refused, refused_parts, disagreeing, slow=True),
)
def test_wrong_setups(world: int, case: Callable[[], Any], outcomes: Callable[..., Outcome]) -> None:
    outcomes(world, case).result()
