"""Where the rows live, what they cost, and what is put back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradsim import GradientBuffer


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))]


def capture(buffer: GradientBuffer, task: int, values: list[Tensor | None]) -> None:
    buffer.open(task)
    for p, value in zip(buffer.parameters, values, strict=True):
        if value is not None:
            (p * value).sum().backward()
    buffer.close(task)


def test_autograd_storage_keeps_the_tensors() -> None:
    params = parameters()
    buffer = GradientBuffer(params, 2)
    outside = torch.ones(4)
    params[1].grad = outside
    buffer.open(1)
    assert params[1].grad is None
    params[0].sum().backward()
    made = params[0].grad
    buffer.close(1)
    assert params[0].grad is None and params[1].grad is outside
    assert buffer.rows[1][0] is made and buffer.rows[1][1] is None and buffer.captured == [False, True]
    assert buffer.memory_bytes == 24 and buffer.outputs() is None and buffer.flat is None
    buffer.open(1)
    assert params[0].grad is made
    params[0].sum().backward()
    buffer.close(1)
    assert made is not None and made.eq(2).all()  # accumulated where it lies
    buffer.clear()
    assert buffer.captured == [False, False] and buffer.memory_bytes == 0


def test_flat_storage_has_fixed_addresses() -> None:
    buffer = GradientBuffer(parameters(), 2, "flat")
    assert buffer.flat is None and buffer.outputs() is None
    capture(buffer, 0, [None, None])
    assert buffer.flat is None and buffer.rows[0] == [None, None]
    capture(buffer, 1, [torch.ones(2, 3), None])
    flat = buffer.flat
    assert flat is not None and flat.shape == (2, 10) and buffer.memory_bytes == 3 * 10 * 4
    assert flat[1].tolist() == [1.0] * 6 + [0.0] * 4
    first = buffer.rows[1][0]
    assert first is not None and first.data_ptr() == flat[1].data_ptr() and buffer.rows[1][1] is None
    capture(buffer, 1, [torch.full((2, 3), 2.0), torch.full((4,), 3.0)])  # a second micro-batch
    assert flat[1].tolist() == [3.0] * 10
    places = buffer.outputs()
    assert places is not None and [x.shape for x in places] == [(2, 3), (4,)]
    assert all(x.untyped_storage().data_ptr() != flat.untyped_storage().data_ptr() for x in places)
    buffer.clear()
    capture(buffer, 1, [torch.full((2, 3), 5.0), None])  # what lay there is not added
    assert flat is buffer.flat and flat[1, :6].eq(5).all() and buffer.rows[1][1] is None


@pytest.mark.parametrize("storage", ["autograd", "flat"])
def test_discard_forgets_all_micro_batches_of_the_task(storage: str) -> None:
    params = parameters()
    buffer = GradientBuffer(params, 2, storage)
    for task in (0, 1):
        capture(buffer, task, [torch.ones(2, 3), torch.ones(4)])
    buffer.open(1)
    params[0].sum().backward()
    buffer.discard(1)
    assert buffer.captured == [True, False] and buffer.rows[1] == [None, None] and params[0].grad is None
    capture(buffer, 1, [torch.ones(2, 3), None])
    again = buffer.rows[1][0]
    assert again is not None and again.eq(1).all() and buffer.rows[1][1] is None
    kept = buffer.rows[0][0]
    assert kept is not None and kept.eq(1).all()


def test_flat_storage_holds_one_dtype() -> None:
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.float64))]
    buffer = GradientBuffer(params, 1, "flat")
    with pytest.raises(TypeError, match=r"torch.float32 on cpu and torch.float64 on cpu; use storage='autograd'"):
        capture(buffer, 0, [torch.ones(2), torch.ones(2, dtype=torch.float64)])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="storage must be 'autograd' or 'flat', not 'rows'"):
        GradientBuffer(parameters(), 2, "rows")
    with pytest.raises(ValueError, match="at least one task, not 0"):
        GradientBuffer(parameters(), 0)
