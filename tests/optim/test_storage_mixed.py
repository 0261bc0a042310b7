"""Mixed batches whose rows are kept on the CPU or in bfloat16: what streams stays as it comes, the rest waits there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from one_backward.oracle import combined
from one_backward.stack_parts import apart, mixed, net, same_state, separate_backwards, work, wrapped

from gradsim.optim import streamed

CPU: dict[str, Any] = {"storage": "cpu"}
ROUNDED: list[dict[str, Any]] = [
    {"storage": storage, "rows_dtype": torch.bfloat16} for storage in ("autograd", "flat", "cpu")
]
UNIT = 2.0**-8


@pytest.fixture(autouse=True)
def small_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several groups at a time, several times a step."""
    monkeypatch.setattr(streamed, "READY_BYTES", 2000)


@pytest.mark.parametrize("options", [{}, {"second_pass": True}, {"task_scale": "mean"}], ids=str)
@pytest.mark.parametrize("how", [CPU, ROUNDED[0], ROUNDED[2]], ids=str)
def test_a_single_batch_rounds_and_moves_nothing(how: dict[str, Any], options: dict[str, Any]) -> None:
    """Its rows live for a group's time only, in the dtype and on the device of the gradients."""
    model = net()
    reference, opt = wrapped(model), wrapped(model, **how)
    for step in range(2):
        for each in (reference, opt):
            mixed(each, work(model, step), **options)
            each.finish()
            results = [None if p.grad is None else p.grad.clone() for p in each.buffer.parameters]
            if each is reference:
                expected = results
            each.zero_grad()
        assert all(torch.equal(x, y) for x, y in zip(results, expected, strict=True) if x is not None and y is not None)
    same_state(reference, opt)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("how", [CPU, *ROUNDED], ids=str)
def test_what_was_kept_is_added_to_what_streams(how: dict[str, Any], last: bool) -> None:
    """A task block, a kept batch, one more: against blocks of tasks, all in the dtype of the gradients."""
    model = net()
    reference, opt = wrapped(model, granularity="all_matrix"), wrapped(model, granularity="all_matrix", **how)
    parts = [work(model, step) for step in range(3)]
    for step in range(2):
        for part in parts:
            separate_backwards(reference, part, finish=False)
        reference.finish()
        expected = combined(reference)
        separate_backwards(opt, parts[0], finish=False)
        mixed(opt, parts[1], last=False)
        assert all(x is None or x.dtype == how.get("rows_dtype", x.dtype) for row in opt.buffer.rows for x in row)
        mixed(opt, parts[2], last=last)
        opt.finish()
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())
        # A correction is continuous in the rows; what it amplifies is small next to the rounding of four rows.
        assert apart(combined(opt), expected) < (1e-6 if how is CPU else 4 * UNIT), step


@pytest.mark.parametrize("how", [CPU, *ROUNDED], ids=str)
def test_a_batch_that_fails_leaves_what_was_kept(how: dict[str, Any]) -> None:
    model = net()
    opt = wrapped(model, **how)
    mixed(opt, work(model, 0), last=False)
    before = [[None if x is None else x.clone() for x in row] for row in opt.buffer.rows]
    part = work(model, 1)
    with pytest.raises(ZeroDivisionError), opt.mixed_batch(part.task_ids, last=False):
        part.loss.backward()
        raise ZeroDivisionError
    for row, old in zip(opt.buffer.rows, before, strict=True):
        for x, y in zip(row, old, strict=True):
            assert (x is None) == (y is None) and (x is None or y is None or torch.equal(x, y))
    opt.finish()
    assert all(p.grad is not None for p in model.parameters())


def test_tasks_that_only_the_kept_batch_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their rows come back in the dtype of the others."""
    model = net()
    for how in ROUNDED:
        opt, reference = wrapped(model, **how), wrapped(model)
        for each in (opt, reference):
            part = work(model, 0)
            with each.task("yo"):
                part.loss.backward()
            with each.mixed_batch([0, 1, 2, 0, 1, 2, 0, 1, 2]):
                part.loss.backward()
            each.finish()
            found = combined(each)
            if each is opt:
                rounded = found
        assert apart(rounded, found) < 4 * UNIT


def test_no_second_pass_in_flat_storage() -> None:
    model = net()
    opt = wrapped(model, **ROUNDED[1])
    with pytest.raises(RuntimeError, match=r"needs storage='autograd' or 'cpu', last=True"):
        mixed(opt, work(model), second_pass=True)
    assert not any(opt.buffer.captured) and all(p.grad is None for p in model.parameters())
