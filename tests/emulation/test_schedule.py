"""The tickets of the fused step are what csrc/cuda/schedule.cuh describes, whatever the sizes of groups."""

from __future__ import annotations

import ctypes
from collections import Counter

import pytest
import torch
from torch import Tensor

from emulation import build

SIZES = [
    [1],
    [5],
    [3, 1, 4],
    [0, 2, 0, 0, 7, 1, 0],
    [1] * 70,
    [40, 1, 1, 1, 60],
    [2, 0] * 40,
]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    if build.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on x86-64 Linux")
    return ctypes.CDLL(str(build.schedule_checks()))


def tickets(library: ctypes.CDLL, sizes: list[int], ahead: int, bundle: int) -> Tensor:
    """A row per ticket, see schedule_checks.cpp."""
    first = torch.tensor([0, *sizes]).cumsum(0)
    out = torch.full((2 * sum(sizes), 10), -1)
    numbers = (ctypes.c_int64(len(sizes)), ctypes.c_void_p(first.data_ptr()), ctypes.c_int64(ahead))
    library.schedule_tickets(*numbers, ctypes.c_int64(bundle), ctypes.c_void_p(out.data_ptr()))
    return out


def described(sizes: list[int], ahead: int) -> list[tuple[bool, int, int]]:
    """(combines, group, item): after each Gramian item the combines of the groups that end `ahead` items before it."""
    first = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    groups = [k for k, size in enumerate(sizes) if size]
    owner = [k for k in groups for _ in range(sizes[k])]
    sequence: list[tuple[bool, int, int]] = []
    waiting = list(groups)
    for item in range(first[-1]):
        sequence.append((False, owner[item], item))
        while waiting and (item + 1 == first[waiting[0] + 1] + ahead or item + 1 == first[-1]):
            k = waiting.pop(0)
            sequence += [(True, k, i) for i in reversed(range(first[k], first[k + 1]))]
    return sequence


@pytest.mark.parametrize("ahead", [1, 2, 5, 1000])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_tickets_are_what_is_described(library: ctypes.CDLL, sizes: list[int], ahead: int) -> None:
    work = [(bool(row[0]), row[1], row[2]) for row in tickets(library, sizes, ahead, 4).tolist()]
    assert work == described(sizes, ahead)
    place = {entry: n for n, entry in enumerate(work)}
    for combines, k, item in work:  # what a combine waits for has smaller tickets
        if combines:
            last = sum(sizes[: k + 1]) - 1
            assert place[False, k, last] < place[True, k, item]


@pytest.mark.parametrize("bundle", [1, 3, 64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bundles_cover_each_group(library: ctypes.CDLL, sizes: list[int], bundle: int) -> None:
    """Each item is in one bundle of its own group, and counted in what the last one to arrive waits for."""
    rows = [row for row in tickets(library, sizes, 2, bundle).tolist() if not row[0]]
    members = Counter(row[5] for row in rows)
    for _, k, item, first, last, of, first_bundle, last_bundle, first_item, last_item in rows:
        assert (first, last) == (sum(sizes[:k]), sum(sizes[: k + 1]))
        assert first <= first_item <= item < last_item <= last
        assert members[of] == last_item - first_item <= bundle
        assert first_bundle <= of < last_bundle
        assert sum(members[b] for b in range(first_bundle, last_bundle)) == last - first
    assert max(members) < sum(sizes) // bundle + len(sizes)
