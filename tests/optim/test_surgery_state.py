"""Saving and loading: bit for bit, by name, and without a change where it does not fit."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from gradsim import Surgery

NAMES = ["a.weight", "a.bias", "b.weight"]


def rows(step: int, T: int = 3, P: int = 3) -> list[list[Tensor | None]]:
    generator = torch.Generator().manual_seed(step)
    return [[torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(P)] for _ in range(T)]


def surgery(tasks: str = "xyz", **options: Any) -> Surgery:
    return Surgery(tasks=list(tasks), names=NAMES, beta=0.3, **options)


def saved_and_read(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    result: dict[str, Any] = torch.load(file, weights_only=True)
    return result


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def continues_alike(one: Surgery, other: Surgery, start: int = 3) -> bool:
    pairs = [p for step in range(start, start + 3) for p in zip(one(rows(step)), other(rows(step)), strict=True)]
    return all(torch.equal(x, y) for x, y in pairs if x is not None and y is not None)


@pytest.mark.parametrize("method", ["gradvac", "pcgrad"])
def test_a_fresh_object_goes_on_bit_for_bit(method: str) -> None:
    first = surgery(method=method, seed=7)
    for step in range(3):
        first(rows(step))
    fresh = surgery(method=method)  # another seed: the saved one counts
    fresh.load_state_dict(saved_and_read(first.state_dict()))
    assert same(fresh.state_dict(), first.state_dict())
    assert continues_alike(first, fresh)
    assert same(fresh.state_dict(), first.state_dict())
    assert fresh.statistics() | {"ms": 0} == first.statistics() | {"ms": 0}


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_by_themselves(clone: Any) -> None:
    first = surgery()
    first(rows(0))
    second = clone(first)
    assert continues_alike(first, second)
    second(rows(9))
    assert not same(first.state_dict(), second.state_dict())


def test_a_saved_state_is_a_copy() -> None:
    first = surgery()
    first(rows(0))
    state = first.state_dict()
    kept = copy.deepcopy(state)
    first(rows(1))
    assert same(state, kept)
    other = surgery()
    other.load_state_dict(state)
    other(rows(1))
    assert same(state, kept)


def test_names_and_tasks_that_only_the_first_call_tells() -> None:
    first, fresh = Surgery(), Surgery()
    first(rows(0))
    fresh.load_state_dict(first.state_dict())
    assert same(fresh.state_dict(), first.state_dict())
    assert continues_alike(first, fresh)
    unused = Surgery()
    unused.load_state_dict(Surgery().state_dict())  # saved before the first call
    unused(rows(0))
    mismatched = Surgery()
    mismatched.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="other groups"):
        mismatched(rows(0, P=2))
    mismatched(rows(0))


def test_tasks_are_matched_by_name() -> None:
    first = surgery("xyz")
    for step in range(3):
        first(rows(step))
    old = first.state_dict()["tensors"]
    second = surgery("zwx")
    with pytest.warns(UserWarning, match="not trained here: y") as caught:
        second.load_state_dict(first.state_dict())
    assert len(caught) == 1
    new = second._state.tensors  # type: ignore[union-attr]
    assert torch.equal(new["target"][:, 0, 2], old["target"][:, 2, 0]) and old["target"][:, 2, 0].ne(0).all()
    assert torch.equal(new["count"][:, 0, 0], old["count"][:, 2, 2])
    assert new["target"][:, 1].eq(0).all() and new["target"][:, :, 1].eq(0).all()
    assert torch.equal(new["corrections"][:, [0, 2]], old["corrections"][:, [2, 0]])


def test_vanished_tasks_are_kept_aside_and_come_back() -> None:
    first = surgery("xyz")
    for step in range(3):
        first(rows(step))
    old = first.state_dict()["tensors"]["target"]
    second = surgery("zx")
    with pytest.warns(UserWarning, match="kept aside"):
        second.load_state_dict(first.state_dict())
    second(rows(3, T=2))
    between = saved_and_read(second.state_dict())
    assert between["tasks"] == ["z", "x", "y"]
    third = surgery("xyz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        third.load_state_dict(between)
    new = third.state_dict()["tensors"]["target"]
    assert torch.equal(new[:, 1], old[:, 1]) and torch.equal(new[:, :, 1], old[:, :, 1])
    assert new[:, 0, 2].ne(old[:, 0, 2]).all()  # x and z went on meanwhile


def test_groups_are_matched_by_name_in_any_order() -> None:
    first = Surgery(tasks=["x", "y"], names=["a.weight", "b.weight"])
    first(rows(0, 2, 2))
    second = Surgery(tasks=["x", "y"], names=["b.weight", "a.weight"])
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.similarity().cosine, first.similarity().cosine.flip(0))


def broken(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(state), **changes}


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    first = surgery()
    first(rows(0))
    good = first.state_dict()
    tensors = good["tensors"]
    bad: list[tuple[Any, type[Exception], str]] = [
        ([], TypeError, "must be a dict"),
        (broken(good, version=99), ValueError, "version 99"),
        (broken(good, method="pcgrad"), ValueError, "cannot go on as 'gradvac'"),
        (broken(good, seed=-1), ValueError, "seed"),
        (broken(good, tasks="xyz"), ValueError, "under 'tasks'"),
        (broken(good, tasks=["x", "x", "z"]), ValueError, "different strings"),
        (broken(good, groups=["a", "c"]), ValueError, r"lacks \['b'\] and has in addition \['c'\]"),
        (broken(good, tasks=["x", "y"]), ValueError, "must be"),
        (broken(good, tensors={**tensors, "extra": tensors["step"]}), ValueError, "must hold the tensors"),
        (broken(good, tensors={**tensors, "target": tensors["target"][:, :2]}), ValueError, "target of the surgery"),
        (broken(good, tensors={**tensors, "count": tensors["count"].float()}), ValueError, "count of the surgery"),
        (broken(good, tensors={**tensors, "step": 3}), ValueError, "not int"),
    ]
    first(rows(1))
    before = first.state_dict()
    for state, error, message in bad:
        with pytest.raises(error, match=message):
            first.load_state_dict(state)
        assert same(first.state_dict(), before)
    other = Surgery(tasks=["x", "y", "z"], names=NAMES, granularity="whole_model")
    with pytest.raises(ValueError, match="other groups"):
        other.load_state_dict(good)


def test_the_state_follows_the_gradients_to_another_device() -> None:
    first = surgery()
    first(rows(0))
    moved = first.prepare(torch.device("meta"))
    assert moved.device.type == "meta" and all(x.device.type == "meta" for x in moved.tensors.values())
