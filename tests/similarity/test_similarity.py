"""The container of similarities: what it accepts, its mean, its tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradsim.similarity import Similarity


def make(G: int = 2, T: int = 3, **changes: Any) -> Similarity:
    torch.manual_seed(G * 10 + T)
    cosine = torch.rand(G, T, T, dtype=torch.float64) * 2 - 1
    fields = {
        "tasks": [f"t{i}" for i in range(T)],
        "groups": [f"g{k}" for k in range(G)],
        "cosine": cosine,
        "count": torch.full_like(cosine, 4, dtype=torch.int64),
    }
    return Similarity(**(fields | changes))


def test_mean_is_the_plain_mean_over_groups() -> None:
    similarity = make(G=3)
    similarity.count[0] = 100  # a group that was measured more often has no more say
    expected = similarity.cosine.numpy().mean(axis=0)
    np.testing.assert_allclose(similarity.mean().numpy(), expected, atol=1e-15)
    np.testing.assert_array_equal(similarity.mean(["g2"]).numpy(), similarity.cosine[2].numpy())


def test_groups_that_never_measured_a_pair_do_not_enter() -> None:
    similarity = make(G=2)
    similarity.count[0, 0, 1] = 0
    similarity.cosine[0, 0, 1] = float("nan")
    similarity.count[:, 1, 2] = 0
    mean = similarity.mean()
    assert mean[0, 1] == similarity.cosine[1, 0, 1]
    assert math.isnan(mean[1, 2])
    assert int(mean.isnan().sum()) == 1


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [(["g9"], ValueError, "'g9'"), ([], ValueError, r"\[\]"), ("g0", TypeError, "list of names")],
)
def test_mean_refuses_other_groups(groups: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make().mean(groups)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"tasks": ["a", "a", "b"]}, ValueError, "tasks.*doubled: a"),
        ({"tasks": ["a", "b"]}, ValueError, r"cosine must have the shape \[2, 2, 2\]"),
        ({"tasks": [0, 1, 2]}, TypeError, "tasks must be strings"),
        ({"groups": []}, ValueError, "groups must not be empty"),
        ({"cosine": torch.zeros(2, 3, 3)}, TypeError, "cosine must be torch.float64"),
        ({"cosine": np.zeros((2, 3, 3))}, TypeError, "cosine must be a tensor, not ndarray"),
        ({"count": torch.zeros(2, 3, 3)}, TypeError, "count must be torch.int64"),
        ({"count": torch.full((2, 3, 3), -1)}, ValueError, "count must not be negative"),
        ({"within": torch.zeros(3, 2, dtype=torch.float64)}, ValueError, "within must have the shape"),
        ({"kind": 3}, TypeError, "kind"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make(**changes)


def test_equality() -> None:
    assert make() == make()
    assert make() != make(kind="affinity")
    assert make() != make(std=torch.zeros(2, 3, 3, dtype=torch.float64))
    assert make() != "a similarity"
    other = make()
    other.cosine[1, 0, 2] += 1e-12
    assert make() != other


@given(st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_dictionary_is_json_and_holds_every_number(groups: int, tasks: int, unmeasured: bool) -> None:
    similarity = make(groups, tasks, within=torch.rand(groups, tasks, dtype=torch.float64))
    if unmeasured:
        similarity.cosine[0, 0, 0] = float("nan")
    read = json.loads(json.dumps(similarity.to_dict(), allow_nan=False))
    assert read["tasks"] == similarity.tasks
    assert read["std"] is None
    found = np.array(read["cosine"], dtype=float)  # None becomes NaN
    np.testing.assert_array_equal(found, similarity.cosine.numpy())
    np.testing.assert_array_equal(read["within"], similarity.within.numpy())


def test_to_json(tmp_path: Path) -> None:
    make().to_json(tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8")) == make().to_dict()


def test_to_pandas_is_long() -> None:
    pytest.importorskip("pandas")
    similarity = make(G=2, T=3, std=torch.rand(2, 3, 3, dtype=torch.float64))
    frame = similarity.to_pandas()
    assert list(frame.columns) == ["group", "task", "other", "value", "count", "std"]
    assert len(frame) == 2 * 3 * 3
    row = frame[(frame.group == "g1") & (frame.task == "t0") & (frame.other == "t2")].iloc[0]
    assert row["value"] == similarity.cosine[1, 0, 2].item()
    assert row["std"] == similarity.std[1, 0, 2].item()
    assert row["count"] == 4
    assert make().to_pandas()["std"].isna().all()
