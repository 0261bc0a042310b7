"""The budget: shares of the samples, the learning rate, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.training import Budget

SIZES = st.dictionaries(st.text(max_size=3), st.integers(1, 10**6), min_size=1, max_size=15)


def test_uniform_sampling_gives_every_task_the_batch() -> None:
    assert Budget(10, 16, 1e-3).samples({"a": 5, "b": 1000, "c": 1}) == {"a": 16, "b": 16, "c": 16}


@settings(max_examples=40)
@given(SIZES, st.integers(1, 50), st.sampled_from(["uniform", "proportional", "temperature"]), st.floats(0.2, 100))
def test_samples_add_up_and_leave_nobody_out(sizes: dict[str, int], batch: int, sampling: str, temp: float) -> None:
    samples = Budget(1, batch, 1e-3, sampling=sampling, temperature=temp).samples(sizes)
    assert list(samples) == list(sizes)
    assert sum(samples.values()) == batch * len(sizes)
    assert min(samples.values()) >= 1
    ordered = sorted(sizes, key=lambda task: sizes[task])
    assert all(samples[a] <= samples[b] + 1 for a, b in zip(ordered[:-1], ordered[1:], strict=True))


@settings(max_examples=40)
@given(SIZES, st.integers(1, 50), st.floats(0.2, 100))
def test_every_share_is_right_to_one_sample(sizes: dict[str, int], batch: int, temp: float) -> None:
    samples = Budget(1, batch, 1e-3, sampling="temperature", temperature=temp).samples(sizes)
    logs = {task: math.log(size) / temp for task, size in sizes.items()}
    weights = {task: math.exp(x - max(logs.values())) for task, x in logs.items()}
    for task, count in samples.items():
        share = 1 + (batch - 1) * len(sizes) * weights[task] / sum(weights.values())
        assert abs(count - share) < 1 + 1e-6


def test_proportional_shares_by_hand() -> None:
    # 30 samples: each gets 1, and 27 are shared as 2 : 6 : 1
    assert Budget(1, 10, 1e-3, sampling="proportional").samples({"a": 200, "b": 600, "c": 100}) == {
        "a": 7,
        "b": 19,
        "c": 4,
    }
    # the square roots of 1, 4 and 9 share 3 * 3 = 9 as 1.5 : 3 : 4.5, and of equal remainders the first goes up
    assert Budget(1, 4, 1e-3, sampling="temperature", temperature=2).samples({"a": 1, "b": 4, "c": 9}) == {
        "a": 3,
        "b": 4,
        "c": 5,
    }


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [Budget(10, 1, 8.0, warmup=0.3).rate(step) for step in range(10)]
    assert rates[:4] == [2.0, 4.0, 6.0, 8.0]
    assert rates[4:] == pytest.approx([8 * left / 7 for left in (6, 5, 4, 3, 2, 1)])


def test_the_learning_rate_without_decay_or_warmup() -> None:
    assert [Budget(4, 1, 0.5, warmup=0.0, decay=False).rate(step) for step in range(4)] == [0.5] * 4
    assert Budget(4, 1, 0.5, warmup=0.0).rate(0) == 0.5


@settings(max_examples=40)
@given(st.integers(1, 300), st.floats(0, 1))
def test_no_step_stands_still_or_exceeds_the_peak(steps: int, warmup: float) -> None:
    rates = [Budget(steps, 1, 1.0, warmup=warmup).rate(step) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, not 0"),
        ({"steps": 1.5}, TypeError, "steps must be a whole number, not 1.5"),
        ({"batch": True}, TypeError, "batch must be a whole number, not True"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be above 0.0, not 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be finite"),
        ({"learning_rate": "1"}, TypeError, "learning_rate must be a number, not '1'"),
        ({"warmup": 1.1}, ValueError, "warmup must be at most 1.0"),
        ({"decay": 1}, TypeError, "decay must be True or False"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be at least 0.0"),
        ({"clip_norm": -1}, ValueError, "clip_norm must be at least 0.0"),
        ({"sampling": "random"}, ValueError, "sampling must be one of 'uniform', 'proportional', 'temperature'"),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0.0"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Budget(**{"steps": 10, "batch": 4, "learning_rate": 1e-3, **change})


def test_refuses_tasks_without_examples() -> None:
    with pytest.raises(ValueError, match="the number of training examples of 'b' must be at least 1, not 0"):
        Budget(1, 1, 1.0).samples({"a": 3, "b": 0})
    with pytest.raises(ValueError, match="there is no task"):
        Budget(1, 1, 1.0).samples({})
