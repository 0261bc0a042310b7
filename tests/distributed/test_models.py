"""Hugging Face models and compiled ones on several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distributed import compiled
from distributed.cases import on
from distributed.launch import Outcome

pytest.importorskip("transformers")

from distributed import language_model


@pytest.mark.parametrize(("world", "case"), on(2, language_model, compiled, slow=True))
def test_models(world: int, case: Callable[[], Any], outcomes: Callable[..., Outcome]) -> None:
    outcomes(world, case).result()
