"""Where the samples are after functions without parameters: rows are right or the step is refused, never wrong."""

from __future__ import annotations

import pytest
import torch
from one_backward.places import COUPLED, KEPT, MOVED, Between
from one_backward.small import D, Small, right_or_refused, sequences
from one_backward.split import mixed_rows
from torch import nn


def between(name: str, table: dict[str, Between]) -> Small:
    """Two layers and the function between them."""
    function = table[name]
    return Small(
        lambda: {"a": nn.Linear(D, D), "b": nn.Linear(D, D)},
        sequences,
        lambda s, x: function(s, x, torch.tanh(s.a(x))),
    )


@pytest.mark.parametrize("name", KEPT)
def test_found(name: str) -> None:
    between(name, KEPT).check(idle=("b.bias",))


@pytest.mark.parametrize("name", MOVED)
def test_right_or_refused(name: str) -> None:
    right_or_refused(between(name, MOVED))


@pytest.mark.parametrize("name", COUPLED)
def test_refused(name: str) -> None:
    case = between(name, COUPLED)
    with pytest.raises(RuntimeError, match="samples"):
        mixed_rows(case.module(), case.inputs(), run=case.run)
