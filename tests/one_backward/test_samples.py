"""Where tensors have their samples, and how they are cut by task: against numbers written into every element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradsim.one_backward import Samples
from gradsim.one_backward.samples import Place
from gradsim.one_backward.strides import after_view

TASKS = [2, 0, 0, 2, 3]
ASSIGNMENTS = [TASKS, [0, 0, 1, 1, 1], [4, 3, 2, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0]]


def numbered(place: Place, rank: int, size: int = 5) -> Tensor:
    """A tensor with its samples at this place; each element is the number of its sample."""
    shape = [place.front * size * place.each if d == place.dim else 2 + d for d in range(rank)]
    row = torch.arange(size)[None, :, None].expand(place.front, -1, place.each).reshape(-1)
    return row.view([-1 if d == place.dim else 1 for d in range(rank)]).expand(shape).contiguous()


places = st.builds(Place, st.integers(0, 2), st.integers(1, 3), st.integers(1, 3))


def test_who_is_there() -> None:
    samples = Samples(TASKS)
    assert (samples.size, samples.present, samples.counts) == (5, [0, 2, 3], [2, 2, 1])
    assert samples.places(torch.device("cpu")).tolist() == [1, 0, 0, 1, 2]


@pytest.mark.parametrize("tasks", ASSIGNMENTS)
@given(places)
def test_split_gives_each_task_its_samples(tasks: list[int], place: Place) -> None:
    samples, x = Samples(tasks), numbered(place, 3)
    parts = samples.split(x, place)
    for task, n, part in zip(samples.present, samples.counts, parts, strict=True):
        assert part.shape[place.dim] == place.front * n * place.each
        assert sorted(set(part.flatten().tolist())) == [b for b, t in enumerate(tasks) if t == task]
        rows = part.movedim(place.dim, 0).flatten(1)[:, 0].tolist()
        own = [b for b, t in enumerate(tasks) if t == task]
        assert rows == [b for _ in range(place.front) for b in own for _ in range(place.each)]


@pytest.mark.parametrize("tasks", ASSIGNMENTS)
@given(places)
def test_joined_is_the_inverse(tasks: list[int], place: Place) -> None:
    place = place._replace(front=1)
    samples, x = Samples(tasks), torch.randn(numbered(place, 3).shape)
    assert torch.equal(samples.joined(samples.split(x, place), place), x)


@given(places)
def test_samples_in_front(place: Place) -> None:
    samples, x = Samples(TASKS), numbered(place, 3)
    first, collapsed = samples.first(x, place), samples.collapsed(x, place)
    for b in range(5):
        assert bool((first[b] == b).all())
        assert bool((collapsed[b] == b * place.front * place.each).all())
    assert first.numel() == x.numel() and collapsed.dim() == 3


@given(places)
def test_masked_and_weighted(place: Place) -> None:
    samples, x = Samples(TASKS), numbered(place, 3) + 1.0
    masked = samples.masked(x, place)
    assert masked.shape == (3, *x.shape)
    assert torch.equal(masked.sum(0), x)
    for j, task in enumerate(samples.present):
        own = [b + 1.0 for b, t in enumerate(TASKS) if t == task]
        assert sorted(set(masked[j].flatten().tolist()) - {0.0}) == own
    weights = torch.tensor([2.0, -3.0, 0.5], dtype=torch.float64)
    expected = (masked * weights.view(-1, 1, 1, 1)).sum(0)
    torch.testing.assert_close(samples.weighted(x, place, weights), expected.float())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_totals(dtype: torch.dtype) -> None:
    """In float32 at least: 1 + 300 times 2^-9 is no longer 1 in bfloat16."""
    samples, x = Samples([0] * 301 + [1]), torch.full((302, 2), 2.0**-9, dtype=dtype)
    x[0], x[-1] = 1.0, 7.0
    totals = samples.totals(x)
    assert totals.dtype == dtype and totals.shape == (2, 2)
    assert abs(float(totals[0, 0]) - (1 + 300 / 512)) < 0.01 and float(totals[1, 1]) == 7.0


@pytest.mark.parametrize(
    ("shape", "features", "expected"),
    [
        ((5,), 0, Place(0)),
        ((5, 7), 0, Place(0)),
        ((5, 5), 0, Place(0)),
        ((7, 5), 0, Place(1)),
        ((7, 5, 3), 1, Place(1)),
        ((7, 3, 5), 0, None),
        ((1, 5), 0, None),
        ((7, 5), 1, None),
        ((5,), 1, None),
        ((), 0, None),
        ((15, 4), 0, None),
    ],
)
def test_the_shape_tells(shape: tuple[int, ...], features: int, expected: Place | None) -> None:
    assert Samples(TASKS).place_by_shape(torch.empty(shape), features) == expected


def test_what_is_flattened_sample_by_sample() -> None:
    """[15, 4] counts once [5, 3, ...] has been seen; [20, 4] does not."""
    samples = Samples(TASKS)
    samples.place_by_shape(torch.empty(5, 3, 4))
    assert samples.place_by_shape(torch.empty(15, 4)) == Place(0, 1, 3)
    assert samples.place_by_shape(torch.empty(60)) == Place(0, 1, 12)
    assert samples.place_by_shape(torch.empty(35, 4)) is None


def test_the_dimension_that_was_given() -> None:
    samples = Samples(TASKS, batch_dim=1)
    assert samples.place_by_shape(torch.empty(5, 5)) == Place(1)
    assert samples.place_by_shape(torch.empty(5, 7)) is None
    assert samples.place_by_shape(torch.empty(5)) is None
    with samples.within_dim(0):
        assert samples.place_by_shape(torch.empty(5, 7)) == Place(0)
    assert samples.place_by_shape(torch.empty(5, 7)) is None


def test_either_dimension_of_a_time_first_model() -> None:
    samples = Samples(TASKS, sequence_first=True)
    assert samples.place_by_shape(torch.empty(7, 5, 3), 1) == Place(1)
    with pytest.raises(ValueError, match=r"\[5, 5, 3\].*5 samples.*batch_dim="):
        samples.place_by_shape(torch.empty(5, 5, 3), 1)


View = tuple[Callable[..., Any], tuple[Any, ...]]


@st.composite
def views(draw: st.DrawFn, x: Tensor) -> View:
    """A view of x."""
    d, e = draw(st.integers(0, x.dim() - 1)), draw(st.integers(0, x.dim() - 1))
    divisors = [k for k in range(1, x.shape[d] + 1) if x.shape[d] % k == 0]
    k = draw(st.sampled_from(divisors))
    length = draw(st.sampled_from(divisors) | st.integers(1, x.shape[d]))
    start = draw(st.integers(0, x.shape[d] - length))
    kinds: list[View] = [
        (torch.transpose, (d, e)),
        (Tensor.movedim, (d, e)),
        (Tensor.unsqueeze, (d,)),
        (Tensor.unflatten, (d, (k, x.shape[d] // k))),
        (Tensor.reshape, (-1,)),
        (Tensor.reshape, (k, -1)),
        (Tensor.permute, (tuple(draw(st.permutations(range(x.dim())))),)),
        (Tensor.narrow, (d, 0, k)),
        (Tensor.narrow, (d, start, length)),
        (Tensor.unfold, (d, length, k)),
        (Tensor.__getitem__, (tuple(slice(None) if i != d else slice(0, None, k) for i in range(x.dim())),)),
        (Tensor.flatten, (min(d, e), max(d, e))),
        (torch.Tensor.mT.__get__, ()) if x.dim() > 1 else (Tensor.unsqueeze, (0,)),
    ]
    if x.dim() > 1:
        kinds += [(Tensor.select, (d, draw(st.integers(0, x.shape[d] - 1)))), (Tensor.diagonal, (0, 0, 1))]
    if x.shape[d] == 1:
        kinds += [(Tensor.squeeze, (d,)), (Tensor.expand, tuple(3 if i == d else -1 for i in range(x.dim())))]
    return draw(st.sampled_from(kinds))


@settings(max_examples=150)
@given(st.data())
def test_views_are_found_or_lost_but_never_wrong(data: st.DataObject) -> None:
    """Up to four views in a row, of any tensor with its samples anywhere."""
    size = data.draw(st.integers(2, 4))
    place: Place | None = data.draw(places)
    assert place is not None
    x = numbered(place, data.draw(st.integers(place.dim + 1, 4)), size)
    for _ in range(4):
        func, args = data.draw(views(x))
        y = func(x, *args)
        place = after_view(func, (x, *args), {}, x, place, 0, size)
        if place is None:
            return
        assert y.shape[place.dim] == place.front * size * place.each
        row = torch.arange(size)[None, :, None].expand(place.front, -1, place.each).reshape(-1)
        assert bool((y.movedim(place.dim, -1) == row).all()), (func, args, x.shape, place)
        x = y.contiguous()


@pytest.mark.parametrize(
    ("func", "args", "before", "after"),
    [
        (Tensor.reshape, (-1, 4), Place(0), Place(0, 1, 3)),
        (Tensor.reshape, (5, 12), Place(0), Place(0)),
        (Tensor.transpose, (0, 1), Place(0), Place(1)),
        (Tensor.permute, ((2, 0, 1),), Place(0), Place(1)),
        (Tensor.unsqueeze, (0,), Place(0), Place(1)),
        (Tensor.select, (1, 2), Place(0), Place(0)),
        (Tensor.select, (0, 2), Place(0), None),
        (Tensor.narrow, (0, 0, 3), Place(0), None),
        (Tensor.narrow, (1, 0, 2), Place(0), Place(0)),
        (Tensor.flatten, (), Place(0), Place(0, 1, 12)),
    ],
)
def test_common_views_are_found(func: Callable[..., Tensor], args: Any, before: Place, after: Place | None) -> None:
    x = torch.empty(5, 3, 4)
    assert after_view(func, (x, *args), {}, x, before, 0, 5) == after


def test_a_part_that_starts_between_two_samples_is_lost() -> None:
    """Of [2 B] the B in the middle: all samples, but in another order."""
    x = torch.empty(10, 4)
    assert after_view(Tensor.narrow, (x, 0, 3, 5), {}, x, Place(0, 2), 0, 5) is None
    assert after_view(Tensor.narrow, (x, 0, 5, 5), {}, x, Place(0, 2), 0, 5) == Place(0)
    assert after_view(Tensor.narrow, (x, 0, 1, 5), {}, x, Place(0, 1, 2), 0, 5) is None


def test_time_first_flattened_has_the_times_in_front() -> None:
    x = torch.empty(3, 5, 4)
    assert after_view(Tensor.reshape, (x, -1, 4), {}, x, Place(1), 0, 5) == Place(0, 3, 1)
