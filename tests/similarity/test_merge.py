"""Merged measurements are those that would have been made together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.similarity import Recorder, Similarity

TASKS, GROUPS = ["a", "b", "c"], ["low", "high"]
SHAPE = (2, 3, 3)


def values(count: int, seed: int) -> Any:
    """Measurements in which a task is missing now and then: float64 [count, G, T, T]."""
    generator = np.random.default_rng(seed)
    drawn = generator.uniform(-1, 1, (count, *SHAPE))
    absent = generator.random((count, 1, 3)) < 0.3
    drawn[np.broadcast_to(absent[..., None] | absent[..., None, :], drawn.shape)] = np.nan
    return drawn


def recorded(drawn: Any, steps: bool = True) -> Similarity:
    recorder = Recorder(TASKS, GROUPS)
    for s, value in enumerate(drawn):
        alone = torch.from_numpy(value).diagonal(dim1=1, dim2=2)
        recorder.add(torch.from_numpy(value), within=alone / 2, norms=alone.abs() + 1, step=s if steps else None)
    return recorder.similarity({"part": len(drawn)})


@settings(max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**31))
def test_as_if_measured_together(sizes: list[int], seed: int) -> None:
    parts = [values(size, seed + i) for i, size in enumerate(sizes)]
    merged = recorded(parts[0]).merge(*map(recorded, parts[1:]))
    together = recorded(np.concatenate(parts))
    for name, value in together.tensors().items():
        if name == "steps":
            assert merged.steps.tolist() == [s for size in sizes for s in range(size)]
        else:
            np.testing.assert_allclose(merged.tensors()[name].numpy(), value.numpy(), atol=1e-13, err_msg=name)
    assert merged.metadata == {"merged": [{"part": size} for size in sizes]}


def test_what_only_some_have_is_left_out() -> None:
    full, bare = recorded(values(2, 0)), recorded(values(2, 1), steps=False)
    bare.std = bare.within = None
    merged = full.merge(bare)
    assert merged.std is merged.steps is None
    assert merged.samples.shape == (4, *SHAPE) and merged.norms is not None
    assert torch.equal(merged.within.nan_to_num(), full.within.nan_to_num())  # measured in one of them alone
    full.within = full.samples = None
    assert full.merge(bare).within is full.merge(bare).samples is None


def test_the_parts_stay_as_they_were() -> None:
    first, second = recorded(values(2, 0)), recorded(values(3, 1))
    merged = first.merge(second)
    merged.cosine.zero_()
    merged.samples.zero_()
    assert first == recorded(values(2, 0)) and second == recorded(values(3, 1))


@pytest.mark.parametrize("name", ["tasks", "groups", "kind"])
def test_others_are_refused(name: str) -> None:
    first, second = recorded(values(1, 0)), recorded(values(1, 0))
    setattr(second, name, {"tasks": ["b", "a", "c"], "groups": ["low", "top"], "kind": "affinity"}[name])
    with pytest.raises(ValueError, match=f"similarities of other {name} cannot be merged"):
        first.merge(second)
    with pytest.raises(TypeError, match="merge takes similarities, not Tensor"):
        first.merge(first.cosine)
