"""`task_similarity` against the means over batches that one would compute by hand, and what it does with loaders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from similarity.toys import (
    GROUPS,
    TASKS,
    Batch,
    LiveRows,
    batch,
    cosine,
    gradient,
    grouped,
    loaders,
    loss_fn,
    matrices,
    toy,
)

from gradsim import task_similarity

S = 4
WAYS: list[dict[str, Any]] = [{}, {"tasks_at_once": 3}, {"projection": 64}]


def measured(count: int = S, **options: Any) -> Any:
    return task_similarity(toy(), loaders(count), loss_fn, **{"exclude": "heads"} | options)


@pytest.fixture(scope="module")
def by_hand() -> tuple[Any, Any]:
    """float64 [S, G, T, T], the cosines of every batch, and [S - 1, G, T], those of neighbours."""
    model = toy()
    samples = np.stack([matrices(model, {task: batch(task, s) for task in TASKS}) for s in range(S)])
    rows = [[gradient(model, batch(task, s)) for task in TASKS] for s in range(S)]
    within = [
        [
            [cosine(grouped(a, prefixes), grouped(b, prefixes)) for a, b in zip(rows[s], rows[s + 1], strict=True)]
            for prefixes in GROUPS.values()
        ]
        for s in range(S - 1)
    ]
    return samples, np.array(within)


@pytest.mark.parametrize("way", WAYS[:2])
def test_means_over_batches(by_hand: tuple[Any, Any], way: dict[str, Any]) -> None:
    samples, within = by_hand
    similarity = measured(**way)
    np.testing.assert_allclose(similarity.samples.numpy(), samples, atol=2e-6)
    np.testing.assert_allclose(similarity.cosine.numpy(), samples.mean(0), atol=2e-6)
    np.testing.assert_allclose(similarity.std.numpy(), samples.std(0), atol=2e-6)
    np.testing.assert_allclose(similarity.within.numpy(), within.mean(0), atol=2e-6)
    assert similarity.count.unique().tolist() == [S]
    assert similarity.steps is None


def test_projected(by_hand: tuple[Any, Any]) -> None:
    samples, within = by_hand
    similarity = measured(projection=64)
    norm = list(GROUPS).index("norm")  # small enough to be exact
    np.testing.assert_allclose(similarity.samples[:, norm].numpy(), samples[:, norm], atol=2e-6)
    np.testing.assert_allclose(similarity.within[norm].numpy(), within[:, norm].mean(0), atol=2e-6)
    assert np.abs(similarity.cosine.numpy() - samples.mean(0)).max() < 4 / (64 * S) ** 0.5
    assert np.abs(similarity.within.numpy() - within.mean(0)).max() < 4 / (64 * (S - 1)) ** 0.5


@pytest.mark.parametrize(
    ("way", "within", "most", "made"),
    [
        ({}, True, 5, 16),
        ({}, False, 4, 16),
        ({"projection": 64}, True, 1, 16),
        ({"tasks_at_once": 2}, False, 3, 24),
        ({"tasks_at_once": 2}, True, 3, 24 + 12),
    ],
)
def test_passes_and_memory(way: dict[str, Any], within: bool, most: int, made: int) -> None:
    """The similarity within tasks takes no pass more, and one gradient more, where gradients are held."""
    with LiveRows().watch() as live:
        similarity = measured(within=within, **way)
    assert (live.most, live.made) == (most, made)
    assert (similarity.within is not None) == within


def test_a_batch_is_like_itself_in_every_projection() -> None:
    """Both gradients of a pair must have been thrown in the same way, though every measurement throws in another."""
    same = {task: [batch(task, 0)] * 3 for task in TASKS}
    similarity = task_similarity(toy(), same, loss_fn, exclude="heads", projection=64)
    np.testing.assert_allclose(similarity.within.numpy(), 1.0, atol=1e-6)
    assert similarity.std[0, 0, 1] > 1e-3  # other places


def test_one_batch_has_no_neighbour() -> None:
    assert measured(1).within is None
    assert measured(2).within is not None


def test_until_the_shortest_loader_ends() -> None:
    given = loaders(5)
    given["ig"] = given["ig"][:3]
    similarity = task_similarity(toy(), given, loss_fn, exclude="heads")
    assert similarity == measured(3)
    once = {task: iter(batches) for task, batches in given.items()}
    assert task_similarity(toy(), once, loss_fn, exclude="heads") == similarity
    assert measured(5, batches=3) == similarity


@settings(max_examples=5)
@given(st.permutations(TASKS))
def test_the_order_of_tasks_moves_entries_and_nothing_else(order: list[str]) -> None:
    base = measured(2)
    given = loaders(2)
    turned = task_similarity(toy(), {task: given[task] for task in order}, loss_fn, exclude="heads")
    index = [TASKS.index(task) for task in order]
    np.testing.assert_allclose(turned.cosine.numpy(), base.cosine[:, index][:, :, index].numpy(), atol=1e-6)
    np.testing.assert_allclose(turned.within.numpy(), base.within[:, index].numpy(), atol=1e-6)


@settings(max_examples=5)
@given(st.lists(st.sampled_from([1e-6, 0.1, 1.0, 1e4]), min_size=4, max_size=4))
def test_the_scale_of_a_loss_scales_its_norm_and_nothing_else(scales: list[float]) -> None:
    factor = dict(zip(TASKS, scales, strict=True))
    base = measured(2)
    scaled = task_similarity(toy(), loaders(2), lambda m, b: loss_fn(m, b) * factor[b[0]], exclude="heads")
    np.testing.assert_allclose(scaled.cosine.numpy(), base.cosine.numpy(), atol=1e-5)
    np.testing.assert_allclose(scaled.norms.numpy(), base.norms.numpy() * np.array(scales), rtol=1e-5)


def test_projection_keeps_its_seed() -> None:
    assert measured(2, projection=64) == measured(2, projection=64)
    assert measured(2, projection=64, seed=1) != measured(2, projection=64)


def test_metadata() -> None:
    similarity = measured(2, metadata={"model": "toy", "data": ["a", 1]}, projection=128)
    assert similarity.metadata["model"] == "toy" and similarity.metadata["data"] == ["a", 1]
    facts = similarity.metadata["measured"]
    assert facts["measurements"] == 2 and facts["projection"] == 128
    assert facts["standard_error"] == pytest.approx(0.0884, abs=1e-4)
    assert facts["parameters"] == {"embed": 240, "layers.0": 156, "layers.1": 156, "norm": 24}


def endless() -> Iterator[Batch]:
    while True:
        yield batch("am", 0)


@pytest.mark.parametrize(
    ("given", "options", "error", "words"),
    [
        ([], {}, TypeError, "loaders must be a mapping from tasks to loaders, not list"),
        ({}, {}, ValueError, "loaders must not be empty"),
        ({1: []}, {}, TypeError, "loaders must be strings"),
        ({"am": 3}, {}, TypeError, "the loader of task 'am' must be an iterable of batches, not int"),
        ({"am": []}, {}, ValueError, "the loader of task 'am' has no batch"),
        ({"am": iter([])}, {}, ValueError, "the loader of task 'am' has no batch"),
        (loaders(2), {"batches": 3}, ValueError, "the loader of task 'am' has only 2 batches, fewer than batches=3"),
        (loaders(2), {"batches": 0}, ValueError, "batches must be at least 1, not 0"),
        (loaders(2), {"batches": 1.0}, TypeError, "batches must be an integer or None, not float"),
        (loaders(2), {"progress": 1}, TypeError, "progress must be True or False"),
        (loaders(2), {"within": None}, TypeError, "within must be True or False"),
        (loaders(2), {"metadata": {"x": object()}}, TypeError, "metadata must hold only what JSON can"),
        (dict.fromkeys(["am", "ha"], endless()), {"batches": 2}, ValueError, "'am' and 'ha' share one iterator"),
    ],
)
def test_refusals(given: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    calls: list[int] = []
    with pytest.raises(error, match=words):
        task_similarity(toy(), given, lambda m, b: calls.append(1), **options)
    assert calls == []


def test_a_loader_of_unknown_length_that_is_too_short() -> None:
    given = {task: iter(batches) for task, batches in loaders(4).items()}
    given["ha"] = iter(loaders(2)["ha"])
    with pytest.raises(ValueError, match="the loader of task 'ha' has only 2 batches, fewer than batches=4"):
        task_similarity(toy(), given, loss_fn, batches=4)


class Terminal:
    """stderr as somebody looks at it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("progress", "rich", "seen"), [(True, True, True), (False, True, False), (True, False, False)])
def test_the_bar(monkeypatch: pytest.MonkeyPatch, progress: bool, rich: bool, seen: bool) -> None:
    if rich:
        pytest.importorskip("rich")
    else:
        for name in ("rich", "rich.console", "rich.progress"):
            monkeypatch.setitem(sys.modules, name, None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    similarity = measured(3, tasks_at_once=2, progress=progress)
    assert ("measuring" in terminal.text and "26/26" in terminal.text) == seen
    assert similarity.count.max() == 3


def test_the_bar_counts_what_there_is_to_do() -> None:
    """The number of passes that is announced is the one that is made."""
    from gradsim.similarity.measure import _Meter

    given = [{task: batch(task, s) for task in TASKS} for s in range(4)]
    for way in WAYS:
        for within in (True, False):
            meter = _Meter(toy(), TASKS, loss_fn, exclude="heads", **way)
            meter.within = within
            for s in range(3):
                meter.step(given[s], given[s - 1] if s else None)
            assert meter.source.taken == meter.passes(3, False)
            resumed = _Meter(toy(), TASKS, loss_fn, exclude="heads", **way)
            resumed.within = within
            resumed.step(given[2], given[1])
            resumed.step(given[3], given[2])
            assert resumed.source.taken == resumed.passes(2, True)


def test_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    measured(2)
    assert capsys.readouterr() == ("", "")
