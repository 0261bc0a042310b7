"""The batch sampler: the right shares, every example once an epoch, and the same again after any interruption."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader

from gradsim.data import TaskBatchSampler

SIZES = {"hau": 700, "yor": 90, "tso": 8, "swa": 33}

sizes = st.dictionaries(st.text(max_size=4), st.integers(1, 40), min_size=1, max_size=6)
choices = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 20),
        "sampling": st.sampled_from(["uniform", "proportional", "temperature"]),
        "temperature": st.floats(0.2, 10),
        "num_batches": st.none() | st.integers(1, 7),
        "seed": st.integers(0, 2**40),
    }
)


def walk(sampler: TaskBatchSampler, steps: int) -> dict[str, list[int]]:
    """The indices of each task over some steps, one after the other."""
    seen: dict[str, list[int]] = {task: [] for task in sampler.sizes}
    while steps:
        for batch in islice(sampler.steps(), steps):
            steps -= 1
            for task, indices in batch.items():
                seen[task] += indices
    return seen


@settings(max_examples=30)
@given(sizes, choices)
def test_every_batch_has_its_size(sizes: dict[str, int], choice: dict[str, Any]) -> None:
    sampler = TaskBatchSampler(sizes, **choice)
    for batch in islice(sampler, 5):
        assert sum(len(indices) for indices in batch.values()) == choice["batch_size"]
        assert list(batch) == [task for task in sizes if task in batch]
        for task, indices in batch.items():
            assert indices
            assert all(type(index) is int and 0 <= index < sizes[task] for index in indices)


@settings(max_examples=30)
@given(sizes, choices)
def test_every_epoch_has_every_example_once(sizes: dict[str, int], choice: dict[str, Any]) -> None:
    for task, seen in walk(TaskBatchSampler(sizes, **choice), 30).items():
        for start in range(0, len(seen) - sizes[task] + 1, sizes[task]):
            assert sorted(seen[start : start + sizes[task]]) == list(range(sizes[task]))
        rest = seen[len(seen) // sizes[task] * sizes[task] :]
        assert len(set(rest)) == len(rest)


@settings(max_examples=30)
@given(sizes, choices)
def test_numbers_of_a_step_are_the_expected_ones_rounded(sizes: dict[str, int], choice: dict[str, Any]) -> None:
    sampler = TaskBatchSampler(sizes, **choice)
    for batch in islice(sampler, 5):
        for task, share in sampler.shares.items():
            assert abs(len(batch.get(task, [])) - share * choice["batch_size"]) < 1 + 1e-6


@pytest.mark.parametrize(
    ("sampling", "temperature", "power"),
    [
        ("uniform", 5.0, 0.0),
        ("proportional", 5.0, 1.0),
        ("temperature", 5.0, 0.2),
        ("temperature", 1.0, 1.0),
        ("temperature", math.inf, 0.0),
        ("temperature", 0.5, 2.0),
    ],
)
def test_shares_in_the_long_run(sampling: str, temperature: float, power: float) -> None:
    total = sum(size**power for size in SIZES.values())
    expected = {task: size**power / total for task, size in SIZES.items()}
    sampler = TaskBatchSampler(SIZES, 5, sampling=sampling, temperature=temperature, seed=3)
    assert sampler.shares == pytest.approx(expected)
    steps = 4000
    for task, seen in walk(sampler, steps).items():
        # a step's number is off by a Bernoulli variable: four standard deviations of at most half a sample each
        assert abs(len(seen) - steps * 5 * expected[task]) < 4 * 0.5 * math.sqrt(steps)


def test_uniform_is_exact_where_the_tasks_divide_the_batch() -> None:
    many = {f"t{k}": 10 + k for k in range(49)}
    for batch in islice(TaskBatchSampler(many, 49 * 3), 40):
        assert [len(batch[task]) for task in many] == [3] * 49


def test_rounding_errors_cost_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """At u = 0, once in a million steps, every sample lies on the bound between two tasks."""

    class Zeros:
        def random_sample(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
            return np.zeros(shape)

        def permutation(self, size: int) -> np.ndarray[Any, Any]:
            return np.arange(size)

    monkeypatch.setattr("gradsim.data.sampler.stream", lambda *names: Zeros())
    for tasks in range(1, 20):
        sizes = {str(k): k for k in range(1, tasks + 1)}
        batch = next(TaskBatchSampler(sizes, sum(sizes.values()), sampling="proportional").steps())
        assert {task: len(indices) for task, indices in batch.items()} == sizes


def test_small_batches_bring_every_pair_of_tasks_together() -> None:
    """Each pair of four equal tasks shares a batch of two in a sixth of the steps."""
    pairs: Counter[tuple[str, ...]] = Counter()
    steps = 6000
    for batch in islice(TaskBatchSampler(dict.fromkeys("abcd", 10), 2), steps):
        pairs[tuple(batch)] += 1
    assert len(pairs) == 6
    for count in pairs.values():
        assert abs(count - steps / 6) < 5 * math.sqrt(steps * 5 / 36)


def test_a_task_sees_the_same_alone_as_with_others() -> None:
    together = walk(TaskBatchSampler(SIZES, 16, seed=5), 40)["yor"]
    alone = walk(TaskBatchSampler({"yor": 90}, 4, seed=5), 40)["yor"]
    assert len(alone) == 160
    assert together == alone
    proportional = walk(TaskBatchSampler(SIZES, 64, sampling="proportional", seed=5), 10)["yor"]
    assert proportional == alone[: len(proportional)]


def test_the_order_changes_with_seed_task_and_epoch() -> None:
    def order(task: str, seed: int) -> tuple[int, ...]:
        return tuple(walk(TaskBatchSampler({task: 50}, 50, seed=seed), 1)[task])

    twice = walk(TaskBatchSampler({"a": 50}, 50, seed=1), 2)["a"]
    orders = {order("a", 1), order("a", 2), order("b", 1), tuple(twice[50:])}
    assert twice[:50] == list(order("a", 1))
    assert len(orders) == 4


def test_rounding_up_changes_with_the_seed() -> None:
    first, second = (TaskBatchSampler(SIZES, 7, sampling="proportional", seed=seed) for seed in (1, 2))
    numbers = [[len(indices) for batch in islice(s, 50) for indices in batch.values()] for s in (first, second)]
    assert numbers[0] != numbers[1]


@settings(max_examples=30)
@given(sizes, choices, st.integers(0, 60), st.integers(1, 15))
def test_resumes_anywhere(sizes: dict[str, int], choice: dict[str, Any], before: int, after: int) -> None:
    def take(sampler: TaskBatchSampler, number: int) -> list[dict[str, list[int]]]:
        batches: list[dict[str, list[int]]] = []
        while len(batches) < number:
            batches += islice(sampler.steps(), number - len(batches))
        return batches

    whole = TaskBatchSampler(sizes, **choice)
    take(whole, before)
    state = json.loads(json.dumps(whole.state_dict()))  # the state is plain
    resumed = TaskBatchSampler(sizes, **choice)
    take(resumed, 3)  # wherever it was
    resumed.load_state_dict(state)
    assert resumed.step == before
    sought = TaskBatchSampler(sizes, **choice)
    sought.seek(before)
    expected = take(whole, after)
    assert take(resumed, after) == expected
    assert take(sought, after) == expected


@pytest.mark.parametrize("step", [1023, 1024, 1025, 5000])
def test_seeks_over_blocks(step: int) -> None:
    walked, sought = (TaskBatchSampler(SIZES, 6, sampling="temperature", seed=9) for _ in range(2))
    walk(walked, step)
    sought.seek(step)
    assert next(walked.steps()) == next(sought.steps())


def test_resumes_in_the_middle_of_an_iteration() -> None:
    """A state that is taken while a batch is in use continues with the next, to the end of the iteration."""
    sampler = TaskBatchSampler(SIZES, 6, num_batches=10)
    batches, states = [], []
    for batch in sampler:
        batches.append(batch)
        states.append(sampler.state_dict())
    assert len(batches) == len(sampler) == 10
    for done, state in enumerate(states[:-1], start=1):
        resumed = TaskBatchSampler(SIZES, 6, num_batches=10)
        resumed.load_state_dict(state)
        assert list(resumed) == batches[done:]
    following = list(sampler)
    assert len(following) == 10
    assert following != batches


def test_a_state_of_other_settings_is_refused() -> None:
    state = TaskBatchSampler(SIZES, 6, seed=1).state_dict()
    others: list[tuple[TaskBatchSampler, str]] = [
        (TaskBatchSampler(SIZES, 6, seed=2), "seed=1, this one has 2"),
        (TaskBatchSampler(SIZES, 8, seed=1), "batch_size=6, this one has 8"),
        (TaskBatchSampler({**SIZES, "tso": 9}, 6, seed=1), "sizes="),
        (TaskBatchSampler(dict(reversed(SIZES.items())), 6, seed=1), "sizes="),
        (TaskBatchSampler(SIZES, 6, seed=1, sampling="temperature"), "temperature=None, this one has 5.0"),
        (TaskBatchSampler(SIZES, 6, seed=1, num_batches=3), "num_batches=None, this one has 3"),
    ]
    for sampler, message in others:
        with pytest.raises(ValueError, match=message):
            sampler.load_state_dict(state)
        assert sampler.step == 0
    with pytest.raises(ValueError, match="must be what TaskBatchSampler"):
        TaskBatchSampler(SIZES, 6).load_state_dict({"step": 3})


def test_flat_indices_serve_a_data_loader() -> None:
    """They count through the tasks' data laid end to end, in the order of `sizes`."""
    lists: Any = [[(task, index) for index in range(size)] for task, size in SIZES.items()]
    data: Any = ConcatDataset(lists)
    flat = TaskBatchSampler(SIZES, 12, num_batches=8, sampling="temperature", flat=True)
    loader: Any = DataLoader(data, batch_sampler=flat, collate_fn=list)
    assert len(loader) == 8
    expected = TaskBatchSampler(SIZES, 12, num_batches=8, sampling="temperature")
    for _ in range(2):
        batches = [[(task, i) for task, indices in batch.items() for i in indices] for batch in expected]
        assert list(loader) == batches


def test_no_length_without_an_end() -> None:
    with pytest.raises(TypeError, match="without num_batches has no length"):
        len(TaskBatchSampler(SIZES, 4))


def test_the_streams_are_what_they_were() -> None:
    """Written down once: a change here would break every run that is resumed after an upgrade.

    Strings hash differently in every process, so this also fails, in nearly all of them, if `hash` decides anything.
    """
    assert list(islice(TaskBatchSampler(SIZES, 5, sampling="temperature", seed=7), 2)) == [
        {"hau": [272, 416], "yor": [63], "tso": [6], "swa": [29]},
        {"hau": [563, 380], "yor": [25], "tso": [0], "swa": [14]},
    ]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sizes": {}}, ValueError, "sizes must hold at least one task"),
        ({"sizes": {"orm": 0}}, ValueError, r"sizes\['orm'\] .* must be at least 1, not 0"),
        ({"sizes": {"orm": 1.5}}, TypeError, r"sizes\['orm'\] .* must be an int, not float"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
        ({"batch_size": True}, TypeError, "batch_size must be an int, not bool"),
        ({"num_batches": 0}, ValueError, "num_batches must be at least 1, not 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0, not -1"),
        (
            {"sampling": "even"},
            ValueError,
            "sampling must be one of 'uniform', 'proportional', 'temperature', not 'even'",
        ),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0, not 0.0"),
        ({"temperature": math.nan}, ValueError, "temperature must be above 0, not nan"),
        ({"temperature": "5"}, TypeError, "temperature must be a number, not str"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TaskBatchSampler(**{"sizes": SIZES, "batch_size": 4, **changes})


def test_seek_refuses_what_is_no_step() -> None:
    sampler = TaskBatchSampler(SIZES, 4)
    with pytest.raises(ValueError, match="step must be at least 0, not -1"):
        sampler.seek(-1)
    with pytest.raises(TypeError, match="step must be an int, not float"):
        sampler.seek(1.0)  # type: ignore[arg-type]
