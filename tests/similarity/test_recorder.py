"""Running means against numpy over the list of measurements; what is not finite was not measured."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradsim.similarity import Recorder

TASKS, GROUPS = ["a", "b", "c"], ["low", "high"]
SHAPE = (2, 3, 3)


def measurements(count: int, seed: int = 0, missing: float = 0.3) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    values = generator.uniform(-1, 1, (count, *SHAPE))
    values[generator.random(values.shape) < missing] = np.nan
    return values


def recorded(values: NDArray[np.float64], **options: Any) -> Recorder:
    recorder = Recorder(TASKS, GROUPS, **options)
    for value in values:
        recorder.add(torch.from_numpy(value))
    return recorder


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.9]))
def test_means_spread_and_count_are_those_of_numpy(count: int, seed: int, missing: float) -> None:
    values = measurements(count, seed, missing)
    similarity = recorded(values).similarity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing
        mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    np.testing.assert_allclose(similarity.cosine.numpy(), mean, atol=1e-14, rtol=0)
    np.testing.assert_allclose(similarity.std.numpy(), std, atol=1e-14, rtol=0)
    np.testing.assert_array_equal(similarity.count.numpy(), np.isfinite(values).sum(axis=0))
    np.testing.assert_array_equal(similarity.samples.numpy(), values)


def test_spread_of_nearly_equal_numbers() -> None:
    """A sum of squares minus the square of a sum would find nothing or a negative number here."""
    noise = np.array([0.0, 1e-9, 3e-9])
    similarity = recorded(0.9 + noise[:, None, None, None] * np.ones((3, *SHAPE))).similarity()
    np.testing.assert_allclose(similarity.std.numpy(), noise.std(), rtol=1e-6)


def test_infinite_is_not_measured() -> None:
    values = np.full((2, *SHAPE), 0.5)
    values[1, 0, 0, 1] = np.inf
    similarity = recorded(values).similarity()
    assert similarity.count[0, 0, 1] == 1 and similarity.cosine[0, 0, 1] == 0.5
    assert similarity.samples[1, 0, 0, 1].isnan()


def test_within_and_norms_have_counts_of_their_own() -> None:
    recorder = Recorder(TASKS, GROUPS)
    pairs = torch.zeros(SHAPE, dtype=torch.float64)
    nan = float("nan")
    recorder.add(pairs, norms=torch.tensor([[1.0, 2.0, nan]] * 2).double())
    recorder.add(pairs, within=torch.tensor([[0.5, nan, nan]] * 2).double(), norms=torch.full((2, 3), 4.0).double())
    recorder.add(pairs, within=torch.tensor([[0.1, 0.2, nan]] * 2).double())
    similarity = recorder.similarity()
    np.testing.assert_allclose(similarity.within.numpy(), [[0.3, 0.2, np.nan]] * 2, atol=1e-15)
    np.testing.assert_allclose(similarity.norms.numpy(), [[2.5, 3.0, 4.0]] * 2, atol=1e-15)
    assert similarity.count.unique().tolist() == [3]


def test_nothing_measured() -> None:
    similarity = Recorder(TASKS, GROUPS).similarity()
    assert similarity.cosine.isnan().all() and similarity.std.isnan().all() and not similarity.count.any()
    assert similarity.samples is similarity.steps is similarity.within is similarity.norms is None


def test_steps_belong_to_samples() -> None:
    recorder = Recorder(TASKS, GROUPS)
    for step, value in zip((5, 10), measurements(2), strict=True):
        recorder.add(torch.from_numpy(value), step=step)
    assert recorder.similarity().steps.tolist() == [5, 10]
    with pytest.raises(ValueError, match="step must be given for every measurement or for none: this one has none"):
        recorder.add(torch.zeros(SHAPE, dtype=torch.float64))
    with pytest.raises(TypeError, match="step must be an integer or None, not float"):
        recorder.add(torch.zeros(SHAPE, dtype=torch.float64), step=1.0)
    assert recorder.measurements == 2
    without = recorded(measurements(1))
    assert without.similarity().steps is None
    with pytest.raises(ValueError, match="those before have none"):
        without.add(torch.zeros(SHAPE, dtype=torch.float64), step=3)


def test_samples_that_take_too_much_are_dropped_whole() -> None:
    size = 2 * 3 * 3 * 8
    values = measurements(4)
    assert recorded(values, sample_bytes=4 * size).similarity().samples.shape == (4, *SHAPE)
    dropped = recorded(values, sample_bytes=4 * size - 1)
    similarity = dropped.similarity({"model": "toy"})
    assert similarity.samples is None
    assert similarity.metadata == {
        "model": "toy",
        "samples_dropped": f"the single measurements take more than {4 * size - 1} bytes",
    }
    np.testing.assert_array_equal(similarity.cosine.numpy(), recorded(values).similarity().cosine.numpy())
    again = Recorder(TASKS, GROUPS, sample_bytes=4 * size - 1)
    again.load_state_dict(dropped.state_dict())
    again.add(torch.from_numpy(values[0]))
    assert again.similarity().samples is None


def test_steps_go_with_dropped_samples() -> None:
    recorder = Recorder(TASKS, GROUPS, sample_bytes=0)
    recorder.add(torch.zeros(SHAPE, dtype=torch.float64), step=1)
    assert recorder.similarity().steps is None


@settings(max_examples=30)
@given(st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_state_goes_through_weights_only_and_on_bit_for_bit(first: int, second: int, with_steps: bool) -> None:
    values = measurements(first + second, seed=3)

    def feed(recorder: Recorder, start: int, end: int) -> None:
        for s in range(start, end):
            row = torch.from_numpy(values[s][:, 0])
            recorder.add(torch.from_numpy(values[s]), within=row, norms=row, step=s if with_steps else None)

    whole, part, rest = (Recorder(TASKS, GROUPS) for _ in range(3))
    feed(whole, 0, first + second)
    feed(part, 0, first)
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    rest.load_state_dict(torch.load(file, weights_only=True))
    feed(rest, first, first + second)
    assert rest.similarity() == whole.similarity()
    assert rest.measurements == first + second


def test_a_state_is_a_copy() -> None:
    recorder = recorded(measurements(2))
    state = recorder.state_dict()
    before = recorder.similarity()
    other = Recorder(TASKS, GROUPS)
    other.load_state_dict(state)
    recorder.add(torch.ones(SHAPE, dtype=torch.float64))
    other.add(torch.zeros(SHAPE, dtype=torch.float64))
    fresh = Recorder(TASKS, GROUPS)
    fresh.load_state_dict(state)
    assert fresh.similarity() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ["a", "b", "d"]}, r"other tasks: \['a', 'b', 'd'\]"),
        ({"groups": ["low"]}, "other groups"),
        ({"kind": "affinity"}, "other kind"),
        ({"pairs.mean": torch.zeros(2, 3, 3)}, "pairs.mean must be torch.float64"),
        ({"samples": torch.zeros(1, *SHAPE, dtype=torch.float64)}, "samples must have the shape"),
        ({"steps": torch.tensor([1])}, "steps must have the shape"),
        ({"samples": None}, "samples must be a tensor"),
    ],
)
def test_other_states_are_refused_and_change_nothing(change: dict[str, Any], words: str) -> None:
    recorder = recorded(measurements(2))
    before = recorder.similarity()
    with pytest.raises(ValueError, match=words):
        recorder.load_state_dict(recorder.state_dict() | change)
    assert recorder.similarity() == before
    with pytest.raises(ValueError, match="other tasks: None"):
        recorder.load_state_dict({})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"pairs": torch.zeros(SHAPE)}, TypeError, "pairs must be torch.float64"),
        ({"pairs": torch.zeros(3, 3).double()}, ValueError, r"pairs must have the shape \[2, 3, 3\]"),
        ({"within": torch.zeros(3).double()}, ValueError, "within must have the shape"),
        ({"norms": [1.0]}, TypeError, "norms must be a tensor, not list"),
    ],
)
def test_a_bad_measurement_changes_nothing(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    recorder = recorded(measurements(1))
    before = recorder.similarity()
    with pytest.raises(error, match=words):
        recorder.add(**{"pairs": torch.zeros(SHAPE, dtype=torch.float64)} | arguments)
    assert recorder.similarity() == before and recorder.measurements == 1


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match=r"tasks.*doubled: a"):
        Recorder(["a", "a"], GROUPS)
